"""The choices that other weights would have made, from rewards measured already: recomputed as a slider moves."""

import functools
from dataclasses import dataclass
from typing import get_args

import numpy as np

from persyn_hf.core.arrays import BoolArray, FloatArray, IntArray
from persyn_hf.core.assignment import column_means
from persyn_hf.core.metrics import effective_teachers
from persyn_hf.core.rewards import ROUNDING, How, fill, normalise
from persyn_hf.errors import check
from persyn_hf.space.whatif_data import Measured


# As fine as the slider near the ends, where single teachers take over, and every second step between.
ALPHAS = tuple(step / 100 for step in range(101) if step % 2 == 0 or not 10 < step < 90)
UNMEASURED = -1e290  # as a reward: finite, so that 0 times it is a number


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """The best teacher of each prompt, (N,), and whether it has several, (N,)."""

    teacher: IntArray
    tied: BoolArray

    def shares(self, num_teachers: int, among: BoolArray | None = None) -> FloatArray:
        """Return the share of all prompts that each teacher gets, (n,); `among` (N,) counts some prompts only."""
        teacher = self.teacher if among is None else self.teacher[among]
        return np.bincount(teacher, minlength=num_teachers) / max(len(self.teacher), 1)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The oracle's choices under one setting; means over the prompts. `cost`: per prompt; None: not known."""

    shares: FloatArray
    quality: float
    learnability: float
    cost: float | None
    effective_teachers: float
    tied: float  # share of the prompts with several best teachers
    moved: float  # share of the prompts whose teacher by the recipe's weights is no longer a best one


@functools.lru_cache(maxsize=64)
def what_if(rewards: Measured, alpha: float, normalisation: How = "minmax", weight: float = 0.0) -> Outcome:
    """Send each prompt to its best teacher under other weights and return the means over the prompts.

    Best is (1 - alpha) quality + alpha learnability - weight * cost, the cost in answers of the pool's mean cost.

    Args:
        alpha: 0 to 1.
        weight: reward given up for one more answer of the pool's mean cost; 0 or more.
    """
    found = choices(rewards, alpha, normalisation, weight)
    shares, rows = found.shares(len(rewards.pool)), np.arange(len(rewards.ids))
    return Outcome(
        shares=shares,
        quality=float(rewards.quality[rows, found.teacher].mean()),
        learnability=float(rewards.learnability[rows, found.teacher].mean()),
        cost=None if rewards.cost is None else float(shares @ rewards.cost),
        effective_teachers=float(effective_teachers(shares)),
        tied=float(found.tied.mean()),
        moved=float((found.teacher != by_recipe(rewards).teacher).mean()),
    )


@functools.lru_cache(maxsize=16)
def curve(rewards: Measured, normalisation: How = "minmax", weight: float = 0.0) -> dict[float, Outcome]:
    """Return the outcome at every alpha of `ALPHAS`; normalisation and weight as in `what_if`."""
    return {alpha: what_if.__wrapped__(rewards, alpha, normalisation, weight) for alpha in ALPHAS}


@functools.lru_cache(maxsize=8)
def by_recipe(rewards: Measured) -> Choice:
    """Return the best teacher of each prompt by the recipe's own weights.

    Of several best teachers it is the one that the assignment chose, if that is among them.
    """
    return _best(rewards, rewards.alpha, rewards.how, 0.0, rewards.chosen)


@functools.lru_cache(maxsize=8)
def choices(rewards: Measured, alpha: float, normalisation: How = "minmax", weight: float = 0.0) -> Choice:
    """Return the best teacher of each prompt under other weights, as `what_if` takes them.

    A prompt keeps its teacher by the recipe's weights wherever that is still one of the best: else blocks of prompts
    with several best teachers would change theirs where two means cross.
    """
    return _best(rewards, alpha, normalisation, weight, by_recipe(rewards).teacher)


def moved(rewards: Measured, alpha: float, normalisation: How = "minmax", weight: float = 0.0) -> IntArray:
    """Return how many prompts go from each teacher by the recipe's weights to each under these, (n, n)."""
    n = len(rewards.pool)
    pairs = by_recipe(rewards).teacher * n + choices(rewards, alpha, normalisation, weight).teacher
    return np.bincount(pairs, minlength=n * n).reshape(n, n).astype(np.int64)


def moved_ids(
    rewards: Measured,
    alpha: float,
    normalisation: How = "minmax",
    weight: float = 0.0,
    was: str = "",
    becomes: str = "",
    only_moved: bool = True,
) -> list[str]:
    """Return the ids of the prompts whose best teacher is another one than by the recipe's weights.

    Args:
        alpha, normalisation, weight: as in `what_if`.
        was: the best teacher by the recipe's weights; "": any.
        becomes: the best teacher under these weights; "": any.
        only_moved: False: also those that keep their teacher.
    """
    before = by_recipe(rewards).teacher
    after = choices(rewards, alpha, normalisation, weight).teacher
    wanted = before != after if only_moved else np.ones(len(before), dtype=bool)
    for name, teacher in ((was, before), (becomes, after)):
        if name:
            check(name in rewards.pool, "teacher", name, f"one of {', '.join(rewards.pool)}")
            wanted &= teacher == rewards.pool.index(name)
    return [rewards.ids[row] for row in np.flatnonzero(wanted).tolist()]


@functools.lru_cache(maxsize=8)
def _scaled(rewards: Measured, normalisation: How) -> tuple[FloatArray, FloatArray]:
    """Return quality and learnability normalised as `core.rewards.recombine` does it, both (N, n).

    Each is normalised over the cells of the prompt that have it; then cells without the other are NaN, too. Where
    rewards were measured in part, the missing cells count as predicted.
    """
    check(normalisation in get_args(How), "normalisation", normalisation, f"one of {', '.join(get_args(How))}")
    raw = (rewards.quality, rewards.learnability)
    filled = (fill(matrix) if rewards.in_part else matrix for matrix in raw)
    both = (normalise(matrix, normalisation, rewards.near_tie) for matrix in filled)
    missing = np.isnan(rewards.quality) | np.isnan(rewards.learnability)
    quality, learned = (np.where(missing, np.nan, scaled) for scaled in both)
    return quality, learned


@functools.lru_cache(maxsize=8)
def _filled(rewards: Measured, normalisation: How) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return what `_best` needs: `_scaled` with `UNMEASURED` for missing cells, means, and what ties.

    The shapes are (n, N), (n, N), (2, n) and (N,): teachers come first because a maximum over rows is the faster one.
    """
    quality, learned = _scaled(rewards, normalisation)
    means = np.stack([column_means(quality), column_means(learned)])
    size = np.nanmax(np.maximum(np.abs(quality), np.abs(learned)), axis=1)
    first, second = (np.ascontiguousarray(np.nan_to_num(matrix, nan=UNMEASURED).T) for matrix in (quality, learned))
    return first, second, means, ROUNDING * size


def _best(rewards: Measured, alpha: float, how: How, weight: float, stay: IntArray) -> Choice:
    """Choose as `core.rewards.combine` and `core.assignment.route` do, without their sorting, for one slider's step.

    Args:
        stay: (N,) a teacher per prompt that keeps it wherever it is one of the best.
    """
    check(0 <= alpha <= 1, "alpha", alpha, "a number from 0 to 1")
    check(weight >= 0, "lambda", weight, "a number of 0 or more")
    quality, learned, means, tie = _filled(rewards, how)
    reward, prior = (1 - alpha) * quality, (1 - alpha) * means[0] + alpha * means[1]
    reward += alpha * learned
    if weight and rewards.cost is not None:
        penalty = weight * rewards.cost / rewards.cost.mean()
        reward -= penalty[:, None]
        prior -= penalty
    best = reward >= reward.max(axis=0) - tie
    teacher, left = stay.copy(), ~best[stay, np.arange(len(stay))]
    order = np.nan_to_num(prior, nan=UNMEASURED)[:, None]
    teacher[left] = np.where(best[:, left], order, -np.inf).argmax(axis=0)
    return Choice(teacher=teacher, tied=best.sum(axis=0) > 1)
