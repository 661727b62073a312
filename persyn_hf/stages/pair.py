"""Stage `pair`: rewards in, the paper's pairwise comparisons out (PerSyn, section 2.3 and appendix A.2).

The dataset is for inspection and for other people's trainers. `train_router` reads the rewards themselves, which hold
the same comparisons in one row per prompt; it takes such a dataset where there are no rewards.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from persyn_hf.core.arrays import IntArray
from persyn_hf.core.conversations import user_text
from persyn_hf.core.pairs import TIE, Comparisons, compare_teachers
from persyn_hf.core.rewards import reward_matrix
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import Strict
from persyn_hf.schemas import PAIRS, PROMPTS, REWARDS
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS, "rewards": REWARDS}
OUTPUT = PAIRS

CHUNK = 256  # prompts whose pairs are in memory at a time


class Settings(Strict):
    """The settings of this stage. Their defaults live here and nowhere else."""

    alpha: float | None = Field(
        default=None, ge=0, le=1, description="The weight of learnability. Null: the rewards are as `score` made them."
    )
    tie: float = Field(
        default=TIE, ge=0, le=1e12, description="Rewards that differ by no more than this are a tie, label 0.5."
    )


def run(settings: Settings, context: Context, *, prompts: "Dataset", rewards: "Dataset") -> Result:
    """Compare the teachers of each prompt two by two, prompts in the order of the rewards.

    Raises:
        InputError: the rewards name a prompt or teacher that is not given, or are not numbers.
    """
    from datasets import Dataset

    columns = _columns(rewards)
    pool = [teacher.name for teacher in context.teachers] or list(dict.fromkeys(columns["teacher"]))
    ids, matrix = reward_matrix(columns, pool, settings.alpha)
    del columns
    rows = _rows_of(prompts, ids)
    counts: Counter[str] = Counter(dict.fromkeys(("pairs", "ties", "missing_cells", "pairs_skipped"), 0))
    wins = 0.0
    path = context.work_dir / "pairs.arrow"
    with OUTPUT.writer(path) as writer:
        for start in range(0, len(ids), CHUNK):
            part = slice(start, start + CHUNK)
            pairs = compare_teachers(ids[part], pool, matrix[part], tie=settings.tie)
            writer.write_table(_table(pairs, prompts[rows[part]], pool))
            wins += float(pairs.label.sum())
            counts.update(pairs=len(pairs.label), ties=pairs.ties)
            counts.update(missing_cells=pairs.missing_cells, pairs_skipped=pairs.skipped)
    metrics = {"mean_label": wins / counts["pairs"] if counts["pairs"] else None}
    return Result(data=Dataset.from_file(str(path)), counts={"prompts": len(ids), **counts}, metrics=metrics)


def _columns(rewards: "Dataset") -> dict[str, list[Any]]:
    """Return the columns that `reward_matrix` reads; each name is in memory once, though there is a row per cell."""
    columns: dict[str, list[Any]] = {}
    for name in ("prompt_id", "teacher"):
        column = rewards.select_columns([name]).with_format("arrow")[:][name].combine_chunks().dictionary_encode()
        values = column.dictionary.to_pylist()
        columns[name] = [values[place] for place in column.indices.to_numpy()]
    return columns | {name: rewards[name][:] for name in ("quality_reward", "learnability_reward", "reward")}


def _rows_of(prompts: "Dataset", ids: list[str]) -> IntArray:
    """Return the rows of `prompts` that hold the measured prompts `ids`, (len(ids),)."""
    row_of = {prompt_id: row for row, prompt_id in enumerate(prompts["prompt_id"][:])}
    unknown = [prompt_id for prompt_id in ids if prompt_id not in row_of]
    if unknown:
        raise InputError(
            f"the rewards name {len(unknown)} prompts (first {unknown[0]}) that `prompts` does not hold; "
            f"give the prompts that they were measured on"
        )
    return np.array([row_of[prompt_id] for prompt_id in ids], dtype=np.int64)


def _table(pairs: Comparisons, prompts: dict[str, list[Any]], pool: list[str]) -> "pa.Table":
    """Turn the comparisons of some prompts into rows of the `PAIRS` contract; `prompts` are the columns of these."""
    import pyarrow as pa

    columns = {
        "prompt_id": pa.array(prompts["prompt_id"], pa.string()).take(pa.array(pairs.prompt)),
        "prompt": pa.array(map(user_text, prompts["messages"]), pa.string()).take(pa.array(pairs.prompt)),
        "teacher_a": pa.array(pool, pa.string()).take(pa.array(pairs.a)),
        "teacher_b": pa.array(pool, pa.string()).take(pa.array(pairs.b)),
        "label": pa.array(pairs.label),
        "margin": pa.array(pairs.margin),
        "split": pa.array(prompts["split"], pa.string()).take(pa.array(pairs.prompt)),
    }
    return pa.table(columns).cast(OUTPUT.features.arrow_schema)
