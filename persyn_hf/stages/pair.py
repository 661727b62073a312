"""Stage `pair`: rewards in, the paper's pairwise comparisons out (PerSyn, section 2.3 and appendix A.2).

The dataset is for inspection and for other people's trainers. `train_router` reads the rewards themselves, which hold
the same comparisons in one row per prompt; it takes such a dataset where there are no rewards.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from persyn_hf.core.conversations import user_text
from persyn_hf.core.pairs import TIE, Comparisons, compare_teachers
from persyn_hf.core.rewards import IntArray, reward_matrix
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
    """Knobs of this stage. Their defaults live here and nowhere else."""

    alpha: float | None = Field(default=None, ge=0, le=1)  # weight of learnability; null: as `score` combined them
    tie: float = Field(default=TIE, ge=0)  # rewards that differ by no more are a tie, label 0.5


def run(settings: Settings, context: Context, *, prompts: "Dataset", rewards: "Dataset") -> Result:
    """Compare the teachers of each prompt two by two, prompts in the order of the rewards."""
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
            found = compare_teachers(ids[part], pool, matrix[part], tie=settings.tie)
            writer.write_table(_table(found, prompts[rows[part]], pool))
            wins += float(found.label.sum())
            counts.update(pairs=len(found.label), ties=found.ties)
            counts.update(missing_cells=found.missing_cells, pairs_skipped=found.skipped)
    metrics = {"mean_label": wins / counts["pairs"] if counts["pairs"] else None}
    return Result(data=Dataset.from_file(str(path)), counts={"prompts": len(ids), **counts}, metrics=metrics)


def _columns(rewards: "Dataset") -> dict[str, list[Any]]:
    """What `reward_matrix` reads, each name once in memory: there are as many rows as cells."""
    found: dict[str, list[Any]] = {}
    for name in ("prompt_id", "teacher"):
        column = rewards.select_columns([name]).with_format("arrow")[:][name].combine_chunks().dictionary_encode()
        values = column.dictionary.to_pylist()
        found[name] = [values[place] for place in column.indices.to_numpy()]
    return found | {name: rewards[name][:] for name in ("quality_reward", "learnability_reward", "reward")}


def _rows_of(prompts: "Dataset", ids: list[str]) -> IntArray:
    """Where the measured prompts lie."""
    row_of = {prompt_id: row for row, prompt_id in enumerate(prompts["prompt_id"][:])}
    unknown = [prompt_id for prompt_id in ids if prompt_id not in row_of]
    if unknown:
        raise InputError(
            f"the rewards name {len(unknown)} prompts (first {unknown[0]}) that `prompts` does not hold; "
            f"give the prompts that they were measured on"
        )
    return np.array([row_of[prompt_id] for prompt_id in ids], dtype=np.int64)


def _table(found: Comparisons, asked: dict[str, list[Any]], pool: list[str]) -> "pa.Table":
    """The pairs of some prompts; `asked`: their rows."""
    import pyarrow as pa

    columns = {
        "prompt_id": pa.array(asked["prompt_id"], pa.string()).take(pa.array(found.prompt)),
        "prompt": pa.array(map(user_text, asked["messages"]), pa.string()).take(pa.array(found.prompt)),
        "teacher_a": pa.array(pool, pa.string()).take(pa.array(found.a)),
        "teacher_b": pa.array(pool, pa.string()).take(pa.array(found.b)),
        "label": pa.array(found.label),
        "margin": pa.array(found.margin),
        "split": pa.array(asked["split"], pa.string()).take(pa.array(found.prompt)),
    }
    return pa.table(columns).cast(OUTPUT.features.arrow_schema)
