"""Stage `train_router`: calibration rewards in, a router out, judged on dev (PerSyn, section 2.3).

Dev prompts take no part in training: the epoch or the regularisation is chosen on a slice of the calibration prompts.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load, merged
from persyn_hf.core.assignment import allocation, column_means, route
from persyn_hf.core.rewards import FloatArray, reward_matrix
from persyn_hf.core.router_table import router_table
from persyn_hf.errors import InputError
from persyn_hf.schemas import PROMPTS, REWARDS, ROUTER
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS, "rewards": REWARDS}
OUTPUT = ROUTER


class Settings(RouterSettings):
    """Knobs of this stage beside those of the router itself."""

    alpha: float | None = Field(default=None, ge=0, le=1)  # weight of learnability; null: as `score` combined them
    validation_share: float = Field(default=0.15, ge=0, lt=1)  # of the calibration prompts, for early stopping


def run(settings: Settings, context: Context, *, prompts: "Dataset", rewards: "Dataset") -> Result:
    """Train on the calibration prompts with at least two measured teachers; return the folder and the dev metrics."""
    pool = [teacher.name for teacher in context.teachers] or list(dict.fromkeys(rewards["teacher"][:]))
    ids, matrix = reward_matrix(rewards[:], pool, settings.alpha)
    labelled, counts = _labelled(prompts, ids, matrix)
    train, validation = _hold_out(labelled["calibration"], settings.validation_share)
    folder = context.work_dir / "router"
    context.progress.start(f"training the {settings.kind} router", settings.epochs if settings.kind == "llm" else 1)
    record = fit(settings, pool, train[1], validation[1], folder, seed=context.seed, advance=context.progress.advance)
    dev = labelled["dev"][1]
    scores = load(folder, settings.device).scores(dev.conversations)
    baseline = column_means(merged(train[1], validation[1]).rewards)
    baseline = np.where(np.isnan(baseline), np.nanmin(baseline) - 1.0, baseline)  # never measured: last
    rng = np.random.default_rng(context.seed)
    metrics: dict[str, Any] = dict(router_table(scores, dev.rewards, {"global_best": baseline}, rng))
    metrics["allocation"] = {
        name: dict(zip(pool, allocation(route(of).teacher, len(pool)).tolist(), strict=True))
        for name, of in (("router", scores), ("oracle", dev.rewards))
    }
    metrics["training"] = record
    parts = {"train": train[1], "validation": validation[1], "dev": dev}
    counts |= {f"{name}_prompts": len(part.conversations) for name, part in parts.items()}
    return Result(data=folder, counts=counts, metrics=metrics)


Split = tuple[list[str], Labelled]


def _labelled(prompts: "Dataset", ids: list[str], matrix: FloatArray) -> tuple[dict[str, Split], dict[str, int]]:
    """Prompts with at least two rewards, by split, in prompt order; and how many were left out."""
    row_of = {prompt_id: row for row, prompt_id in enumerate(ids)}
    usable = (~np.isnan(matrix)).sum(axis=1) >= 2
    found: dict[str, Split] = {}
    for split in ("calibration", "dev"):
        of_split = prompts.select([i for i, name in enumerate(prompts["split"][:]) if name == split])
        rows = [row_of.get(prompt_id, -1) for prompt_id in of_split["prompt_id"][:]]
        keep = [position for position, row in enumerate(rows) if row >= 0 and usable[row]]
        if len(keep) < 2:
            raise InputError(
                f"{len(keep)} {split} prompts have rewards of two teachers or more, at least 2 are needed to train a "
                f"router; raise `prompts.{split}`, or look for failures in the rewards"
            )
        kept = of_split.select(keep)
        chosen = [rows[position] for position in keep]
        found[split] = (kept["prompt_id"][:], Labelled(kept["messages"][:], matrix[chosen]))
    counts = {"prompts_without_pairs": int((~usable).sum()), "missing_cells": int(np.isnan(matrix).sum())}
    return found, counts


def _hold_out(calibration: Split, share: float) -> tuple[Split, Split]:
    """Train and validation part; the hash of the prompt decides, so it does not hang on the order of the rows."""
    ids, (conversations, rewards) = calibration
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).hexdigest())
    cut = len(ids) - min(max(round(share * len(ids)), 1 if share else 0), len(ids) - 1)
    parts = [sorted(order[:cut]), sorted(order[cut:])]
    train, validation = (
        ([ids[i] for i in part], Labelled([conversations[i] for i in part], rewards[part])) for part in parts
    )
    return train, validation
