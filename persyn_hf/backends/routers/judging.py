"""Judge a router on dev prompts or, where there are none, on calibration prompts that it has not seen.

Cross-fitting (`core.cross_fitting`) trains it once more for each fold, with words weighed and settings chosen anew. An
`llm` router is not trained so often: the prompts that chose its epoch judge it, which flatters it slightly.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.backends.routers import Advance, Labelled, RouterSettings, Scale, fit, load, teacher_means
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.assignment import allocation, route
from persyn_hf.core.cross_fitting import cross_fitted_gain
from persyn_hf.core.router_table import router_table
from persyn_hf.errors import InputError


FOLDS = 5
FEWEST = 10  # prompts with rewards from which a router can be judged without dev

HoldOut = Callable[[list[str]], tuple[list[int], list[int]]]  # prompt_ids -> rows to train on and to validate on


class Judged(NamedTuple):
    """What a router says of prompts that it has not seen, beside their rewards; (N, n) each."""

    scores: FloatArray
    rewards: FloatArray
    means: FloatArray  # each teacher's mean on the prompts that the router has seen, (n,) or (N, n)
    folds: int | None = None  # of cross-fitting; None: the one router has scored all


def cross_fitted(
    settings: RouterSettings,
    pool: Sequence[str],
    ids: list[str],
    labelled: Labelled,
    hold_out: HoldOut,
    folder: Path,
    seed: int,
    advance: Advance,
) -> Judged:
    """Train on all folds but one, and score that one, in turn; `advance(1)` follows each.

    `hold_out` chooses the validation prompts of a training. Folds hang on the prompts' names alone.
    """
    measured = (~np.isnan(labelled.rewards)).any(axis=1)
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(f"fold:{ids[row]}".encode()).hexdigest())
    fold = np.empty(len(ids), dtype=np.int64)
    fold[order] = np.arange(len(ids)) % FOLDS
    scores, means = np.zeros(labelled.rewards.shape), np.zeros(labelled.rewards.shape)
    for number in range(FOLDS):
        outside, inside = np.flatnonzero(fold != number).tolist(), np.flatnonzero((fold == number) & measured)
        part = labelled.take(outside)
        train, validation = (part.take(rows) for rows in hold_out([ids[row] for row in outside]))
        apart = folder.with_name(f"{folder.name}-fold{number}")
        fit(settings, pool, train, validation, apart, seed=seed)
        scores[inside] = load(apart, settings.device).scores([labelled.conversations[row] for row in inside])
        means[inside] = teacher_means(part.rewards)
        shutil.rmtree(apart)
        advance(1)
    return Judged(scores[measured], labelled.rewards[measured], means[measured], FOLDS)


def held_out(router: Any, train: Labelled, validation: Labelled) -> Judged:
    """Judge a router on its validation prompts."""
    means = np.tile(teacher_means(train.rewards), (len(validation.rewards), 1))
    return Judged(router.scores(validation.conversations), validation.rewards, means)


def check_judges(kind: str, number: int, validation_share: float) -> None:
    """Refuse a router that `number` calibration prompts cannot judge where there are no dev prompts."""
    if kind in ("auto", "extended"):
        does = "chooses among its candidates" if kind == "auto" else "is judged"
        raise InputError(
            f"train_router: `{'kind: auto' if kind == 'auto' else 'extend'}` {does} on dev prompts, found none; raise "
            f"`prompts.dev`{', or name one kind, as in `kind: stacking`' if kind == 'auto' else ''}"
        )
    if kind == "llm" and not validation_share:
        raise InputError(
            "train_router: without dev prompts the validation prompts judge an `llm` router, found `validation_share: "
            "0`; raise it, or raise `prompts.dev`"
        )
    if number < FEWEST:
        raise InputError(
            f"{number} calibration prompts have rewards of two teachers or more, at least {FEWEST} are needed where "
            "no dev prompts judge the router; raise `prompts.calibration` or `prompts.dev`"
        )


def metrics_of(
    judged: Judged, pool: Sequence[str], scale: Scale, rng: np.random.Generator, by_calibration: bool
) -> dict[str, Any]:
    """Return the table of a router, what it and a perfect choice give each teacher, and without dev its gain."""
    metrics: dict[str, Any] = dict(router_table(judged.scores, judged.rewards, {"global_best": judged.means}, rng))
    if scale != "log_odds":
        metrics["router"]["calibration_error"] = dict.fromkeys(("value", "low", "high"))  # rewards are no log-odds
    metrics["allocation"] = {
        name: dict(zip(pool, allocation(route(values).teacher, len(pool)).tolist(), strict=True))
        for name, values in (("router", judged.scores), ("oracle", judged.rewards))
    }
    if by_calibration:
        gain = cross_fitted_gain(judged.scores, judged.means, judged.rewards, judged.folds)
        metrics["by_calibration"] = {
            "folds": judged.folds,
            "prompts": len(judged.rewards),
            "cells": int((~np.isnan(judged.rewards)).sum()),
            "gain": dict.fromkeys(("value", "low", "high")) if gain is None else gain._asdict(),
        }
    return metrics
