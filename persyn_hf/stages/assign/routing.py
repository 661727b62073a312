"""The routed kinds: the measured best where rewards exist, the router's best elsewhere, one chunk after another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from persyn_hf.core import assignment as core
from persyn_hf.core import confidence as calibration
from persyn_hf.core.rewards import FloatArray, IntArray
from persyn_hf.errors import InputError
from persyn_hf.stages.assign.measured import Measured
from persyn_hf.stages.assign.rows import CELL, CHUNK, ORACLE, ROUTER, Decision, chunks
from persyn_hf.stages.assign.settings import Settings


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from persyn_hf.backends.routers import Router

FEW = 20  # measured dev prompts: fewer say nothing of how sure a router is

Score = Callable[["pa.Table"], FloatArray]  # prompts (with `messages`) -> scores (num_prompts, num_teachers)


class Dev(NamedTuple):
    """What dev says of the router: P(as good as the best) by margin, what scores are worth, and the figures."""

    curve: calibration.Curve | None
    worth: calibration.Worth | None
    report: dict[str, Any]


def score_with(router: "Router", advance: Callable[[int], None]) -> Score:
    def score(prompts: "pa.Table") -> FloatArray:
        return _checked(router.scores(prompts["messages"].to_pylist(), advance))

    return score


def score_launched_with(
    config: str, folder: Path, alpha: float | None, num_teachers: int, work_dir: Path, advance: Callable[[int], None]
) -> Score:
    """Scores of an llm router, from the processes that an accelerate config names."""
    from persyn_hf.backends.scoring.launched import score_launched

    options = {"folder": str(folder), "alpha": alpha}

    def score(prompts: "pa.Table") -> FloatArray:
        found = np.empty((len(prompts), num_teachers))
        rows = [(messages, "") for messages in prompts["messages"].to_pylist()]
        for numbers, values in score_launched(
            config,
            work_dir / "router",
            rows,
            [],
            kind="router",
            options=options,
            key="assign.accelerate",
        ):
            found[numbers] = values
            advance(len(numbers))
        return _checked(found)

    return score


def _checked(scores: FloatArray) -> FloatArray:
    if not np.isfinite(scores).all():
        raise InputError("the router gave a score that is no finite number; train it again")
    return scores


def learn_from_dev(settings: Settings, prompts: "Dataset", measured: Measured, means: FloatArray, score: Score) -> Dev:
    """Score the measured dev prompts: how often is the router's best as good as the best, by how far it is ahead?

    `measured`: of dev. `means`: of the teachers on calibration, as for all other prompts.
    """
    parts = []
    for chunk in chunks(prompts, ("dev",), (*CELL, "messages")):
        rewards = measured.of(chunk)
        known = np.isfinite(rewards).sum(axis=1) >= 2
        if known.any():
            parts.append((score(chunk.filter(known)), rewards[known]))
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
    """The prompts that the router has to decide on."""
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
    """Decide chunk by chunk. `given`: teachers of the unmeasured prompts in order, where a budget decides on them."""
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
    """Give routed prompts to their best teachers; measured ones and those that the router is sure of keep theirs."""
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
