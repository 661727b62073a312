"""Decide for the kinds without a router: the measured best, another teacher for some, one for all, random shares."""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.core import assignment as core
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.rewards import reward_matrix, to_matrix
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strict import nearest
from persyn_hf.stage import Context
from persyn_hf.stages.assign.measured import COLUMNS, Measured, of_splits
from persyn_hf.stages.assign.rows import CELL, ORACLE, RULE, SOURCES, Decision, by_rule, chunks
from persyn_hf.stages.assign.settings import Settings


if TYPE_CHECKING:
    from datasets import Dataset


def everyone(cells: Iterator[Any], num_teachers: int) -> Iterator[Decision]:
    """Send every prompt to every teacher."""
    for chunk in cells:
        rows = np.repeat(np.arange(len(chunk)), num_teachers)
        yield by_rule(chunk.take(rows), np.tile(np.arange(num_teachers), len(chunk)))


def mix(cells: Iterator[Any], settings: Settings, context: Context, pool: list[str]) -> Iterator[Decision]:
    """Send each prompt to a random teacher, by the weights of the settings.

    One generator serves all chunks, so the draws do not depend on where a chunk ends.
    """
    weights, rng = _weights(settings, pool), np.random.default_rng(context.seed)
    for chunk in cells:
        yield by_rule(chunk, core.mix(len(chunk), weights, rng))


def same(cells: Iterator[Any], teacher: int) -> Iterator[Decision]:
    """Send every prompt to one teacher, an index."""
    for chunk in cells:
        yield by_rule(chunk, np.full(len(chunk), teacher))


def oracle(prompts: "Dataset", splits: tuple[str, ...], measured: Measured) -> Iterator[Decision]:
    """Send each prompt to its measured best; one on which no response could be judged goes to the best on average.

    Raises:
        InputError: a prompt has no rewards at all.
    """
    without = [name for chunk in chunks(prompts, splits, CELL) for name in chunk["prompt_id"].to_pylist()]
    without = [name for name in without if name not in measured]
    if without:
        raise InputError(
            f"oracle needs rewards of every prompt, {len(without)} have none (first {without[0]}); "
            f"generate and score all teachers on them, or leave their split out of `splits`"
        )
    return _oracle(prompts, splits, measured)


def _oracle(prompts: "Dataset", splits: tuple[str, ...], measured: Measured) -> Iterator[Decision]:
    """Decide as `oracle`, chunk by chunk, once it has checked that rewards are there."""
    for chunk in chunks(prompts, splits, CELL):
        scores = measured.of(chunk)
        teacher, margin = core.route(scores, measured.means)
        source = np.where(np.isnan(scores).all(axis=1), RULE, ORACLE)
        yield Decision(chunk, teacher, scores, margin, np.full(len(chunk), np.nan), source)


def reassign(
    prompts: "Dataset",
    base: "Dataset",
    settings: Settings,
    context: Context,
    pool: list[str],
    report: dict[str, Any],
) -> Iterator[Decision]:
    """Take the assignments of `base`, and send the prompts of some teachers to another.

    The scores stay. Where the teacher changes, margin and confidence are no longer known. `report` gets the number of
    prompts that were moved, and the teachers.

    Raises:
        RecipeError: a teacher to move from or to is not named or not in the pool.
        InputError: the base does not hold one assignment per prompt, in order.
    """
    if settings.to_teacher is None:
        raise RecipeError("the strategy reassign needs `to_teacher`, got none; name the teacher that takes over")
    leaving = settings.from_teachers or tuple(teacher.name for teacher in context.teachers if teacher.long_cot)
    if not leaving:
        raise RecipeError("reassign found no Long-CoT teacher in the pool; name whom to replace in `from_teachers`")
    come_from = [index_of(pool, name, "from_teachers") for name in leaving]
    goes_to = index_of(pool, settings.to_teacher, "to_teacher")
    report |= {"reassigned": 0, "from_teachers": list(leaving), "to_teacher": settings.to_teacher}
    splits = settings.chosen_splits
    kept = zip_longest(chunks(prompts, splits, CELL), chunks(base, splits, base.column_names))
    return _reassign(kept, come_from, goes_to, pool, report)


def _reassign(
    kept: Iterator[tuple[Any, Any]], come_from: list[int], goes_to: int, pool: list[str], report: dict[str, Any]
) -> Iterator[Decision]:
    """Decide as `reassign`, on pairs of a chunk of prompts and the chunk of the base's assignments to them."""
    for chunk, before in kept:
        if chunk is None or before is None or not chunk["prompt_id"].equals(before["prompt_id"]):
            raise InputError(
                "reassign needs a base with one assignment per prompt in the order of the prompts, found another "
                "order, too few or too many; give the assignments of a strategy over the same splits"
            )
        names = before["teacher"].to_pylist()
        old = np.array([index_of(pool, name, "base") for name in names])
        new = core.reassign(old, come_from, goes_to)
        moved = old != new
        report["reassigned"] += int(moved.sum())
        scores = np.array(before["scores"].to_pylist(), dtype=np.float64).reshape(len(new), -1)
        margin, confidence = (before[name].to_numpy().astype(np.float64) for name in ("margin", "confidence"))
        source = np.array([SOURCES.index(name) for name in before["source"].to_pylist()])
        nothing = np.where(moved, np.nan, 0.0)
        yield Decision(chunk, new, scores, margin + nothing, confidence + nothing, np.where(moved, RULE, source))


def one_teacher(
    settings: Settings, context: Context, pool: list[str], rewards: "Dataset | None"
) -> tuple[int, dict[str, Any]]:
    """Choose the one teacher for all prompts, by name or by the rule of the kind.

    Returns its index, and for the metrics its name (`chosen`) and every teacher's value under the rule (`values`).
    """
    if settings.teacher is not None:
        chosen = index_of(pool, settings.teacher, "teacher")
        return chosen, {"chosen": pool[chosen], "values": {}}
    ranking = ONE_TEACHER[settings.kind](settings, context, pool, rewards)
    values = dict(zip(pool, (None if np.isnan(value) else float(value) for value in ranking.values), strict=True))
    return ranking.teacher, {"chosen": pool[ranking.teacher], "values": values}


def _car(settings: Settings, _: Context, pool: list[str], rewards: "Dataset | None") -> core.Ranking:
    quality, logprob = (_calibration(rewards, pool, column) for column in ("quality_raw", "mean_logprob"))
    return core.car(quality, -logprob, settings.beta)


def _best_mean_reward(settings: Settings, _: Context, pool: list[str], rewards: "Dataset | None") -> core.Ranking:
    return core.best_mean(reward_matrix(_calibration_rows(rewards), pool, settings.alpha)[1])


def _strong(_: Settings, context: Context, pool: list[str], rewards: "Dataset | None") -> core.Ranking:
    return core.strong(pool, [teacher.params_b for teacher in context.teachers], _mean_quality(pool, rewards))


def _family_strong(settings: Settings, context: Context, pool: list[str], rewards: "Dataset | None") -> core.Ranking:
    if context.student is None:
        raise RecipeError("family_strong needs a student with a `family`, got none; name one teacher instead")
    sizes, families = zip(*((teacher.params_b, teacher.family) for teacher in context.teachers), strict=True)
    strongest = _strong(settings, context, pool, rewards).teacher
    means = _mean_quality(pool, rewards)
    return core.family_strong(pool, families, sizes, context.student.family, strongest, means)


# The rule of each kind of strategy that chooses one teacher for all prompts.
ONE_TEACHER: dict[str, Callable[[Settings, Context, list[str], "Dataset | None"], core.Ranking]] = {
    "car": _car,
    "best_mean_reward": _best_mean_reward,
    "strong": _strong,
    "family_strong": _family_strong,
}


def _mean_quality(pool: list[str], rewards: "Dataset | None") -> FloatArray | None:
    """Return the teachers' mean quality (n,) on calibration, which orders teachers of one size; None: not known."""
    return None if rewards is None else core.column_means(_calibration(rewards, pool, "quality_raw"))


def _calibration_rows(rewards: "Dataset | None") -> dict[str, list[Any]]:
    """Return the columns of the calibration prompts' rewards: choosing a teacher may look at neither dev nor pool."""
    assert rewards is not None  # `run` checked it
    columns = of_splits(rewards, ("calibration",), (*COLUMNS, "quality_raw", "mean_logprob"))
    if not columns["prompt_id"]:
        raise InputError("the rewards hold no calibration prompt, some are needed to choose a teacher; run `score`")
    return columns


def _calibration(rewards: "Dataset | None", pool: list[str], column: str) -> FloatArray:
    """Return a column of the calibration prompts' rewards as a matrix (num_prompts, num_teachers)."""
    columns = _calibration_rows(rewards)
    return to_matrix(columns["prompt_id"], columns["teacher"], columns[column], pool)[1]


def _weights(settings: Settings, pool: list[str]) -> list[float]:
    """Return the weights of a mix in the order of the pool: 0 for a teacher that is not named, even without any."""
    if settings.weights is None:
        return [1.0] * len(pool)
    shares = {index_of(pool, name, "weights"): share for name, share in settings.weights.items()}
    return [shares.get(index, 0.0) for index in range(len(pool))]


def index_of(pool: list[str], name: str, where: str) -> int:
    """Return the index of a teacher; a name that is not in the pool raises a `RecipeError`, which names `where`."""
    if name not in pool:
        raise RecipeError(f"`{where}` names the teacher `{name}`{nearest(name, pool)}")
    return pool.index(name)
