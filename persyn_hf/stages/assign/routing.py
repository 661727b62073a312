"""Decide for the routed kinds: the measured best where rewards exist, the router's best elsewhere, chunk by chunk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from persyn_hf.core import assignment as core
from persyn_hf.core import confidence as calibration
from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.errors import InputError
from persyn_hf.stages.assign.measured import Measured
from persyn_hf.stages.assign.rows import CELL, CHUNK, ORACLE, ROUTER, Decision, chunks
from persyn_hf.stages.assign.settings import Settings


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from persyn_hf.backends.launching.plan import Plan
    from persyn_hf.backends.routers import Router

FEW = 20  # with fewer measured dev prompts nothing is said of how sure a router is

Score = Callable[["pa.Table"], FloatArray]  # prompts (with `messages`) -> scores (num_prompts, num_teachers)


class Dev(NamedTuple):
    """What dev says of a router.

    curve: probability that its choice is as good as the best, by margin; None: too few dev prompts. worth: what a
    score is worth in reward; None: not known. report: figures for the metrics.
    """

    curve: calibration.Curve | None
    worth: calibration.Worth | None
    report: dict[str, Any]


def score_with(router: "Router", advance: Callable[[int], None]) -> Score:
    """Make a `Score` of a router in this process; `advance` is called with the number of prompts done."""

    def score(prompts: "pa.Table") -> FloatArray:
        return _checked(router.scores(prompts["messages"].to_pylist(), advance))

    return score


def score_launched_with(
    plan: "Plan", folder: Path, alpha: float | None, num_teachers: int, work_dir: Path, advance: Callable[[int], None]
) -> Score:
    """Make a `Score` of an llm router in the processes of the plan."""
    from persyn_hf.backends.launch import seen_by_all
    from persyn_hf.backends.scoring.launched import score_launched

    options = {"folder": str(seen_by_all(plan, folder, work_dir)), "alpha": alpha}

    def score(prompts: "pa.Table") -> FloatArray:
        scores = np.empty((len(prompts), num_teachers))
        rows = [(messages, "") for messages in prompts["messages"].to_pylist()]
        for numbers, values in score_launched(
            plan,
            work_dir / "router",
            rows,
            [],
            kind="router",
            options=options,
        ):
            scores[numbers] = values
            advance(len(numbers))
        return _checked(scores)

    return score


def _checked(scores: FloatArray) -> FloatArray:
    """Return the scores; one that is not finite raises an `InputError`."""
    if not np.isfinite(scores).all():
        raise InputError("the router gave a score that is no finite number; train it again")
    return scores


def learn_from_dev(settings: Settings, prompts: "Dataset", measured: Measured, means: FloatArray, score: Score) -> Dev:
    """Learn on the measured dev prompts how often the router's choice is as good as the best, by its margin.

    A choice is as good where its reward is within `settings.epsilon` of the prompt's best. measured: rewards of dev.
    means (n,): the teachers' mean rewards on calibration, which decide between equal scores as for all other prompts.
    """
    parts = []
    for chunk in chunks(prompts, ("dev",), (*CELL, "messages")):
        rewards = measured.of(chunk)
        compared = np.isfinite(rewards).sum(axis=1) >= 2
        if compared.any():
            parts.append((score(chunk.filter(compared)), rewards[compared]))
    if not parts:
        return Dev(None, None, {"dev_prompts": 0})
    scores, rewards = (np.concatenate(both) for both in zip(*parts, strict=True))
    teacher, margin = core.route(scores, means)
    near = calibration.near_best(teacher, rewards, settings.epsilon)
    judged = np.isfinite(near)
    scores, margin, near = scores[judged], margin[judged], near[judged]
    report: dict[str, Any] = {"epsilon": settings.epsilon, "dev_prompts": len(near)}
    if len(near) < FEW:
        return Dev(None, None, report)
    curve = calibration.fit_curve(margin, near)
    error, bins = calibration.reliability(calibration.held_out(margin, near), near)
    report |= {
        "as_good_as_best": float(near.mean()),
        "ece_softmax": calibration.reliability(calibration.top_softmax(scores), near)[0],
        "ece": error,
        "intercept": curve.intercept,
        "slope": curve.slope,
        "reliability": {f"from {row.pop('from'):.1f}": row for row in bins},
    }
    worth = calibration.worth(np.concatenate([part[0] for part in parts]), rewards)
    return Dev(curve, worth, report)


def unmeasured(
    prompts: "Dataset", splits: tuple[str, ...], measured: Measured, at_a_time: int = CHUNK
) -> Iterator["pa.Table"]:
    """Yield the prompts without any measured reward, which the router has to decide on, some at a time."""
    for chunk in chunks(prompts, splits, (*CELL, "messages"), at_a_time):
        rest = chunk.filter(np.isnan(measured.of(chunk)).all(axis=1))
        if len(rest):
            yield rest


def routed(
    prompts: "Dataset",
    settings: Settings,
    measured: Measured,
    score: Score,
    curve: calibration.Curve | None,
    given: IntArray | None = None,
) -> Iterator[Decision]:
    """Decide chunk by chunk.

    curve: makes margins into confidence; None: no confidence is known. given: teachers of the unmeasured prompts in
    order, where a budget has decided on them.
    """
    columns = CELL if given is not None else (*CELL, "messages")  # then the scores are known already
    done = 0
    for chunk in chunks(prompts, settings.chosen_splits, columns, CHUNK):
        scores = measured.of(chunk)
        open_ = np.isnan(scores).all(axis=1)
        if open_.any():
            scores[open_] = score(chunk.filter(open_))
        teacher, margin = core.route(scores, measured.means)
        confidence = np.full(len(chunk), np.nan)
        if curve is not None:
            confidence[open_] = curve(margin[open_])
        if given is not None:
            best = teacher.copy()
            teacher[open_] = given[done : done + int(open_.sum())]
            confidence[best != teacher] = np.nan  # the curve is about the router's own choice
            done += int(open_.sum())
        source = np.where(open_, ROUTER, ORACLE)
        yield _several(
            Decision(chunk.select(CELL), teacher, scores, margin, confidence, source),
            settings.per_prompt,
            settings.confidence,
        )


def _several(decision: Decision, per_prompt: int, sure: float | None) -> Decision:
    """Give each routed prompt to its `per_prompt` best teachers, one row each.

    Measured prompts keep their one teacher, and so do prompts whose confidence is `sure` or more.
    """
    if per_prompt == 1:
        return decision
    asked = decision.source == ROUTER
    if sure is not None:
        asked &= decision.confidence < sure
    number = np.where(asked, per_prompt, 1)
    order = core.best_first(decision.scores, decision.teacher)
    rows = np.repeat(np.arange(len(number)), number)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(number) - number, number)
    return Decision(
        decision.cells.take(rows),
        order[rows, place],
        decision.scores[rows],
        decision.margin[rows],
        decision.confidence[rows],
        decision.source[rows],
    )
