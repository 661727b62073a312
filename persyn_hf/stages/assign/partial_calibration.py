"""Choose which cells of the calibration prompts are paid for, round by round, by the rewards of earlier rounds.

Each round is a chain of three steps of the recipe: `assign` chooses the cells (this file), `generate` has them
answered, `score` rewards them. Its assignments hold the cells of all rounds so far; `generate` finds the answers of
earlier ones in the journal. The last round is the calibration matrix that routers learn from.

Example: 100 prompts, 5 teachers, `share: 0.4` (200 of 500 cells), `rounds: 3`, `strategy: successive_halving`.

    round  quota         teachers  new prompts  new cells  cells in all
    1      200 // 3 = 66        5           13         65            65
    2      135 // 2 = 67        3           22         66           131
    3       69 // 1 = 69        2           34         68           199

A quota that does not divide leaves some cells over, as no prompt is asked of one teacher alone. The 3 and 2 teachers
are the best by mean reward, ceil(5 / 2) and ceil(5 / 4); a specialist (`core.partial_calibration.survivors`) would
stay as well.

With a `budget` in place of `share` the first round asks every teacher `FEWEST` prompts, whatever that costs, as only
answers tell what answers cost. What is left is spent in even parts, at each teacher's mean cost so far.

A `prior` counts where later rounds choose and where they may stop (`core.priors`).

With `stop: gain` every later round first looks at what the cells so far have brought (`stopping`). Where a further
cell does not pay, it adds none; nor do the rounds after it, which look at the same cells.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.priors import read_prior
from persyn_hf.core import partial_calibration as core
from persyn_hf.core.arrays import BoolArray, FloatArray, IntArray
from persyn_hf.core.priors import fit_prior
from persyn_hf.core.rewards import to_matrix
from persyn_hf.errors import InputError
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.stage import Context
from persyn_hf.stages.assign.cell_costs import cell_costs
from persyn_hf.stages.assign.measured import Measured, of_splits
from persyn_hf.stages.assign.rows import CELL, Decision, by_rule, chunks
from persyn_hf.stages.assign.settings import Settings
from persyn_hf.stages.assign.stopping import look_at, words_of


if TYPE_CHECKING:
    from datasets import Dataset

FEWEST = 10  # prompts that the first round needs, as later rounds choose by its rewards


def in_part(
    prompts: "Dataset",
    settings: Settings,
    context: Context,
    pool: list[str],
    before: "Dataset | None",
    rewards: "Dataset | None",
    responses: "Dataset | None",
    prior: "Dataset | None",
    report: dict[str, Any],
) -> Iterator[Decision]:
    """Assign the cells of earlier rounds and those of this one; prompts of other splits go to every teacher.

    Args:
        before, rewards: assignments and rewards of the round before; None in the first round.
        responses: the answers of the round before, which tell the price of a cell where there is a budget.
        prior: the rewards that `labelling.prior` names, where it names no file.
        report: gets `labelling`: cells per teacher, prompts with any, the share of all cells, and where calibration
            may stop, `ahead`: what made it go on or stop.

    Raises:
        InputError: the share pays for too little, or the round before has no rewards or no cost.
    """
    assert settings.labelling is not None  # `run` asked
    columns = of_splits(prompts, ("calibration",), ("prompt_id", "messages"))
    ids = columns["prompt_id"]
    shape = len(ids), len(pool)
    given = settings.labelling.prior if prior is None else prior
    known = None if given is None else read_prior(given, ids, columns["messages"], pool)
    num_pool = _num_pool(prompts) if settings.labelling.stop == "gain" else 0
    noted: dict[str, Any] = {}
    if before is None or rewards is None:
        asked = _first(settings.labelling, context, shape, pool)
    else:
        asked = _asked_before(before, ids, pool)
        number, price = _affordable(settings, context, asked, responses, _number_of(prompts, "dev"))
        rewards_so_far = _rewards_so_far(Measured([rewards], ("calibration",), pool, None), columns)
        if settings.labelling.stop == "gain":
            so_far = columns, rewards_so_far, asked, num_pool, known
            noted["ahead"] = look_at(settings.labelling, context.seed, *so_far)
            number = 0 if noted["ahead"]["stop"] else number
        if number > 0:
            asked = _next(settings, context, asked, rewards_so_far, columns, number, price, known)
        if known is not None:
            noted["prior"] = _weighed(known, rewards_so_far, pool)
    report["labelling"] = noted | {
        "cells": dict(zip(pool, asked.sum(axis=0).tolist(), strict=True)),
        "prompts": int(asked.any(axis=1).sum()),
        "share": float(asked.mean()) if asked.size else 0.0,
    }
    return _decide(prompts, settings.chosen_splits, dict(zip(ids, asked, strict=True)), len(pool))


def _asked_before(before: "Dataset", ids: list[str], pool: list[str]) -> BoolArray:
    """Return the cells (N, n) that the round before had asked; `ids` are the calibration prompts, in order."""
    earlier = of_splits(before, ("calibration",), ("prompt_id", "teacher"))
    asked_ids, cells = to_matrix(earlier["prompt_id"], earlier["teacher"], [1.0] * len(earlier["teacher"]), pool)
    row_of = {prompt_id: row for row, prompt_id in enumerate(ids)}
    asked = np.zeros((len(ids), len(pool)), dtype=bool)
    asked[[row_of[prompt_id] for prompt_id in asked_ids]] = ~np.isnan(cells)
    return asked


def _weighed(prior: FloatArray, rewards: FloatArray, pool: list[str]) -> dict[str, Any]:
    """Say in plain JSON what the rewards so far make of a prior."""
    fitted = fit_prior(prior, rewards)
    counts = dict(zip(pool, fitted.counts.tolist(), strict=True))
    return {"prompts": int(fitted.known.sum()), "slope": fitted.slope, "count": counts}


def _num_pool(prompts: "Dataset") -> int:
    """Count the pool's prompts, on which a router gains what calibration is paid for."""
    number = _number_of(prompts, "pool")
    if not number:
        raise InputError(
            "`calibration.stop: gain` weighs what a router gains on the pool's prompts, found none; raise "
            "`prompts.pool`, or leave `stop` out"
        )
    return number


def _number_of(prompts: "Dataset", split: str) -> int:
    return prompts["split"][:].count(split)


def _first(wanted: Calibration, context: Context, shape: tuple[int, int], pool: list[str]) -> BoolArray:
    """Choose the cells of the first round; with `full`, all cells except those that `anchors` leaves out."""
    rng = np.random.default_rng(context.seed)
    order = rng.permutation(shape[0])
    asked = np.ones(shape, dtype=bool)
    if wanted.strategy == "full":
        for name, number in wanted.anchors.items():
            asked[order[number:], pool.index(name)] = False
        return asked
    if wanted.budget is not None:
        return _first_within(wanted.strategy, shape, order, rng)
    number = core.quota(np.zeros(shape, dtype=bool), wanted.share, wanted.rounds, 1)
    least = FEWEST * (2 if wanted.strategy == "uncertainty" else shape[1])
    if number < least:
        raise InputError(
            f"`calibration.share` {wanted.share} of {shape[0]} calibration prompts and {shape[1]} teachers pays for "
            f"{number} cells in the first of {wanted.rounds} rounds, at least {least} are needed; raise `share` or "
            "`prompts.calibration`, or lower `rounds`"
        )
    if wanted.strategy != "uncertainty":
        return core.first_in_full(shape, number, order)
    return core.first_at_random(shape, number, order, rng)


def _first_within(strategy: str, shape: tuple[int, int], order: IntArray, rng: np.random.Generator) -> BoolArray:
    """Choose the cells of the first round within a budget: `FEWEST` of each teacher."""
    if shape[0] < FEWEST:
        raise InputError(
            f"`calibration.budget` needs {FEWEST} calibration prompts to measure what answers cost, found {shape[0]}; "
            "raise `prompts.calibration`"
        )
    number = FEWEST * shape[1]
    if strategy != "uncertainty":
        return core.first_in_full(shape, number, order)
    return core.first_evenly(shape, number, order, rng)


def _affordable(
    settings: Settings, context: Context, asked: BoolArray, responses: "Dataset | None", dev: int
) -> tuple[float, FloatArray | None]:
    """Return what this round may spend, and the price of a cell of each teacher, (n,); None: 1 each.

    dev: the number of dev prompts, which every teacher answers after the last round.
    """
    wanted = settings.labelling
    assert wanted is not None
    if wanted.budget is None:
        return core.quota(asked, wanted.share, wanted.rounds, settings.round), None
    price = cell_costs(wanted.budget.cost, context.teachers, responses)
    spent = float(asked.sum(axis=0) @ price)
    if wanted.budget.covers_dev:
        spent += dev * float(price.sum())
    return core.allowance(float(wanted.budget.total), spent, wanted.rounds, settings.round), price


def _rewards_so_far(measured: Measured, columns: dict[str, list[Any]]) -> FloatArray:
    """Return the rewards (N, n) of the round before, in the order of the calibration prompts, NaN where none is."""
    import pyarrow as pa

    rewards = measured.of(pa.table({"prompt_id": columns["prompt_id"]}))
    if np.isnan(rewards).all():
        raise InputError("no answer of the round before has a reward, some are needed to choose by; see `score`")
    return rewards


def _next(
    settings: Settings,
    context: Context,
    asked: BoolArray,
    rewards: FloatArray,
    columns: dict[str, list[Any]],
    number: float,
    price: FloatArray | None,
    prior: FloatArray | None,
) -> BoolArray:
    """Add the cells of a later round, by the rewards of the round before and a prior, to those asked so far.

    `number` is what they may cost at `price` (n,) a cell, None: 1 each.
    """
    wanted = settings.labelling
    assert wanted is not None
    if wanted.strategy == "uncertainty":
        return core.contend(asked, number, rewards, words_of(columns["messages"]), price, prior)
    order = np.random.default_rng(context.seed).permutation(len(asked))  # the order of the first round
    if wanted.strategy == "whole_prompts":
        return core.more_in_full(asked, number, order, price)
    sizes = np.array([teacher.params_b or 0.0 for teacher in context.teachers], dtype=np.float64)
    keep = max(2, -(-len(sizes) // 2 ** (settings.round - 1)))
    return core.halve(asked, number, order, core.survivors(rewards, sizes, keep, prior), price)


def _decide(
    prompts: "Dataset", splits: tuple[str, ...], asked: dict[str, BoolArray], num_teachers: int
) -> Iterator[Decision]:
    """Turn the cells into decisions, in prompt order; `asked` maps calibration prompts to booleans per teacher."""
    everyone = np.ones(num_teachers, dtype=bool)
    for chunk in chunks(prompts, splits, CELL):
        mask = np.array([asked.get(prompt_id, everyone) for prompt_id in chunk["prompt_id"].to_pylist()])
        rows, teacher = np.nonzero(mask)
        yield by_rule(chunk.take(rows), teacher)
