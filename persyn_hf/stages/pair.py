"""Stage `pair`: rewards in, the paper's pairwise comparisons out (PerSyn, section 2.3 and appendix A.2).

The dataset is for inspection and for other people's trainers. `train_router` reads the rewards themselves, which hold
the same comparisons in one row per prompt.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from persyn_hf.core.conversations import user_text
from persyn_hf.core.pairs import TIE, compare_teachers
from persyn_hf.core.rewards import reward_matrix
from persyn_hf.errors import InputError
from persyn_hf.recipe import Strict
from persyn_hf.schemas import PAIRS, PROMPTS, REWARDS
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS, "rewards": REWARDS}
OUTPUT = PAIRS


class Settings(Strict):
    """Knobs of this stage. Their defaults live here and nowhere else."""

    alpha: float | None = Field(default=None, ge=0, le=1)  # weight of learnability; null: as `score` combined them
    tie: float = Field(default=TIE, ge=0)  # rewards that differ by no more are a tie, label 0.5


def run(settings: Settings, context: Context, *, prompts: "Dataset", rewards: "Dataset") -> Result:
    """Compare the teachers of each prompt two by two, prompts in the order of the rewards."""
    from datasets import Dataset

    asked = prompts[:]
    known = dict(zip(asked["prompt_id"], zip(asked["messages"], asked["split"], strict=True), strict=True))
    pool = [teacher.name for teacher in context.teachers] or list(dict.fromkeys(rewards["teacher"][:]))
    ids, matrix = reward_matrix(rewards[:], pool, settings.alpha)
    unknown = [prompt_id for prompt_id in ids if prompt_id not in known]
    if unknown:
        raise InputError(
            f"the rewards name {len(unknown)} prompts (first {unknown[0]}) that `prompts` does not hold; "
            f"give the prompts that they were measured on"
        )
    found = compare_teachers(ids, pool, matrix, tie=settings.tie)
    texts = [user_text(known[prompt_id][0]) for prompt_id in ids]
    columns = {
        "prompt_id": [ids[i] for i in found.prompt],
        "prompt": [texts[i] for i in found.prompt],
        "teacher_a": [pool[i] for i in found.a],
        "teacher_b": [pool[i] for i in found.b],
        "label": found.label,
        "margin": found.margin,
        "split": [known[ids[i]][1] for i in found.prompt],
    }
    counts = {
        "prompts": len(ids),
        "pairs": len(found.label),
        "ties": found.ties,
        "missing_cells": found.missing_cells,
        "pairs_skipped": found.skipped,
    }
    metrics = {"mean_label": float(found.label.mean()) if len(found.label) else None}
    return Result(data=Dataset.from_dict(columns, features=OUTPUT.features), counts=counts, metrics=metrics)
