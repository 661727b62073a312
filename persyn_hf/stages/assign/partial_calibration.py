"""`all` in part: which cells of the calibration prompts are paid for, chosen by the rewards of the rounds before."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.core import partial_calibration as core
from persyn_hf.core.conversations import user_text
from persyn_hf.core.partial_calibration import BoolArray
from persyn_hf.core.rewards import to_matrix
from persyn_hf.errors import InputError
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.stage import Context
from persyn_hf.stages.assign.measured import Measured, of_splits
from persyn_hf.stages.assign.rows import CELL, Decision, by_rule, chunks
from persyn_hf.stages.assign.settings import Settings


if TYPE_CHECKING:
    from datasets import Dataset

FEWEST = 10  # prompts of the first round: what the others are chosen by


def in_part(
    prompts: "Dataset",
    settings: Settings,
    context: Context,
    pool: list[str],
    before: "Dataset | None",
    rewards: "Dataset | None",
    report: dict[str, Any],
) -> Iterator[Decision]:
    """The cells of earlier rounds and those of this one; prompts of other splits go to every teacher.

    before, rewards: assignments and rewards of the round before; null in the first round.
    """
    assert settings.labelling is not None  # `run` asked
    columns = of_splits(prompts, ("calibration",), ("prompt_id", "messages"))
    ids = columns["prompt_id"]
    shape = len(ids), len(pool)
    if before is None or rewards is None:
        asked = _first(settings.labelling, context, shape, pool)
    else:
        earlier = of_splits(before, ("calibration",), ("prompt_id", "teacher"))
        known, cells = to_matrix(earlier["prompt_id"], earlier["teacher"], [1.0] * len(earlier["teacher"]), pool)
        row_of = {prompt_id: row for row, prompt_id in enumerate(ids)}
        asked = np.zeros(shape, dtype=bool)
        asked[[row_of[prompt_id] for prompt_id in known]] = ~np.isnan(cells)
        asked = _next(settings, context, asked, Measured([rewards], ("calibration",), pool, None), columns)
    report["labelling"] = {
        "cells": dict(zip(pool, asked.sum(axis=0).tolist(), strict=True)),
        "prompts": int(asked.any(axis=1).sum()),
        "share": float(asked.mean()) if asked.size else 0.0,
    }
    return _decide(prompts, settings.chosen_splits, dict(zip(ids, asked, strict=True)), len(pool))


def _first(wanted: Calibration, context: Context, shape: tuple[int, int], pool: list[str]) -> BoolArray:
    rng = np.random.default_rng(context.seed)
    order = rng.permutation(shape[0])
    asked = np.ones(shape, dtype=bool)
    if wanted.strategy == "full":
        for name, number in wanted.anchors.items():
            asked[order[number:], pool.index(name)] = False
        return asked
    number = core.quota(np.zeros(shape, dtype=bool), wanted.share, wanted.rounds, 1)
    least = FEWEST * (shape[1] if wanted.strategy == "successive_halving" else 2)
    if number < least:
        raise InputError(
            f"`calibration.share` {wanted.share} of {shape[0]} calibration prompts and {shape[1]} teachers pays for "
            f"{number} cells in the first of {wanted.rounds} rounds, at least {least} are needed; raise `share` or "
            "`prompts.calibration`, or lower `rounds`"
        )
    if wanted.strategy == "successive_halving":
        return core.first_in_full(shape, number, order)
    return core.first_at_random(shape, number, order, rng)


def _next(
    settings: Settings, context: Context, asked: BoolArray, measured: Measured, columns: dict[str, list[Any]]
) -> BoolArray:
    import pyarrow as pa

    wanted = settings.labelling
    assert wanted is not None
    rewards = measured.of(pa.table({"prompt_id": columns["prompt_id"]}))
    if np.isnan(rewards).all():
        raise InputError("no answer of the round before has a reward, some are needed to choose by; see `score`")
    number = core.quota(asked, wanted.share, wanted.rounds, settings.round)
    if wanted.strategy == "uncertainty":
        texts = [user_text(messages) for messages in columns["messages"]]
        features = Tfidf.fit(texts, RouterSettings().max_features).transform(texts)
        return core.contend(asked, number, rewards, features)
    sizes = np.array([teacher.params_b or 0.0 for teacher in context.teachers], dtype=np.float64)
    keep = max(2, -(-len(sizes) // 2 ** (settings.round - 1)))
    order = np.random.default_rng(context.seed).permutation(len(asked))  # the order of the first round
    return core.halve(asked, number, order, core.survivors(rewards, sizes, keep))


def _decide(
    prompts: "Dataset", splits: tuple[str, ...], asked: dict[str, BoolArray], num_teachers: int
) -> Iterator[Decision]:
    everyone = np.ones(num_teachers, dtype=bool)
    for chunk in chunks(prompts, splits, CELL):
        mask = np.array([asked.get(prompt_id, everyone) for prompt_id in chunk["prompt_id"].to_pylist()])
        rows, teacher = np.nonzero(mask)
        yield by_rule(chunk.take(rows), teacher)
