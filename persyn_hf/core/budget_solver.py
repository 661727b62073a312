"""Who answers which prompt where teachers have quotas and answers a price.

Maximise sum_i rewards[i, t_i] over one teacher t_i per prompt, with low_j <= number of prompts of teacher j <= high_j
and sum_i cost[t_i] <= total. Without a total the linear programme has an integral solution, and that is the optimum;
with one, a few prompts are fractional and go to an integer programme over the most contested prompts. Every solution
comes with `gap`, by how much the optimum may be better at most, proven by the dual.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.linear_programs import Bounds, Prices, integer_programme, linear_programme
from persyn_hf.core.rewards import FloatArray, IntArray
from persyn_hf.errors import RecipeError


SMALL = 2_000  # prompts of a linear programme that is solved whole; larger ones begin with the prices of a sample
SAMPLE = 10  # of a larger one, every so-manieth prompt
CONTESTED = 300  # prompts of the integer programme
EXACT = 1e-9  # times range of the rewards, per prompt: a gap of rounding
TOLERANCE = 1e-6  # of the solver, and so of `total`, in units of the dearest prompt
FRONTIER = 10_000  # prompts
BLOCK = 100_000  # prompts looked at together, for memory


class Solution(NamedTuple):
    """Teacher per prompt, its value, by how much the optimum is better at most, reward per unit of cost at `total`."""

    teacher: IntArray
    value: float
    gap: float
    price: float


class _Reduced(NamedTuple):
    """Rewards less prices: the best teacher of each prompt, by how much it is ahead (N,), and the dual bound."""

    best: IntArray
    ahead: FloatArray
    bound: float


class _Part(NamedTuple):
    """A solution of a programme: teachers (N,), -1 where fractional, its value, prices, and a bound on the value."""

    teacher: IntArray
    value: float
    prices: Prices
    bound: float


def bounds_of(
    num_prompts: int, low: ArrayLike, high: ArrayLike, cost: ArrayLike | None = None, total: float | None = None
) -> Bounds:
    """Bounds from shares of the prompts, rounded so that no share is broken; says which bound cannot be kept."""
    lowest = np.ceil(np.asarray(low, dtype=np.float64) * num_prompts - 1e-9)
    highest = np.floor(np.asarray(high, dtype=np.float64) * num_prompts + 1e-9)
    costs = np.zeros(len(lowest)) if cost is None else np.asarray(cost, dtype=np.float64)
    bounds = Bounds(lowest, highest, costs, np.inf if total is None else total)
    if lowest.sum() > num_prompts:
        raise RecipeError(
            f"`budget.min` asks for {lowest.sum():,.0f} prompts in all, there are {num_prompts:,}; lower a share"
        )
    if highest.sum() < num_prompts:
        raise RecipeError(
            f"`budget.max` leaves room for {highest.sum():,.0f} prompts in all, there are {num_prompts:,}; "
            "raise a share"
        )
    cheapest = least_cost(num_prompts, bounds)
    if cheapest > bounds.total:
        raise RecipeError(
            f"`budget.total` is {bounds.total:.6g}, the cheapest assignment that `min` and `max` allow costs "
            f"{cheapest:.6g}; raise the total or change the shares"
        )
    return bounds


def least_cost(num_prompts: int, bounds: Bounds) -> float:
    """Cost of `num_prompts` where reward does not matter: what `low` asks for, and the cheapest for the rest."""
    left = num_prompts - bounds.low.sum()
    cost = bounds.low @ bounds.cost
    for teacher in np.argsort(bounds.cost, kind="stable"):
        taken = min(left, bounds.high[teacher] - bounds.low[teacher])
        cost, left = cost + taken * bounds.cost[teacher], left - taken
    return float(cost)


def allocate(rewards: FloatArray, bounds: Bounds, first: IntArray | None = None) -> Solution:
    """The best assignment within the bounds.

    Args:
        rewards: (N, n), all finite.
        bounds: feasible ones, as `bounds_of` gives them.
        first: (N,), a best teacher of each prompt, taken where no bound forbids it; default the first in pool order.

    Returns:
        The same solution for the same input. Prompts with equal rewards get their teachers in the order of the pool.
    """
    unit = float(np.abs(bounds.cost).max()) or 1.0  # the solver's tolerances are absolute
    bounds = bounds._replace(cost=bounds.cost / unit, total=bounds.total / unit)
    free = Prices(np.zeros(len(bounds.low)), np.zeros(len(bounds.low)), 0.0)
    teacher = _reduce(rewards, free, bounds).best if first is None else np.asarray(first, dtype=np.int64)
    if _within(teacher, bounds):
        return Solution(teacher, _value(rewards, teacher), 0.0, 0.0)
    tolerance = EXACT * len(rewards) * float(np.ptp(rewards))
    relaxed, reduced = _relax(rewards, free, bounds, tolerance)
    if (relaxed.teacher < 0).any():
        teacher, bound = _round(rewards, relaxed, reduced, bounds)
    else:
        teacher, bound = relaxed.teacher, reduced.bound
    value = _value(rewards, teacher)
    gap = bound - value if bound - value > tolerance else 0.0
    return Solution(teacher, value, gap, relaxed.prices.total / unit)


def _relax(rewards: FloatArray, free: Prices, bounds: Bounds, tolerance: float) -> tuple[_Part, _Reduced]:
    """Solve the linear programme: prompts of which a part goes elsewhere have teacher -1.

    Prompts whose best teacher, at the prices of a sample, is far ahead keep it; the others enter the programme. New
    prices come out, and more prompts enter until the dual bound of all prompts meets the value.
    """
    number = len(rewards)
    prices, contested = free, number
    if number > SMALL:
        part = np.ascontiguousarray(rewards[::SAMPLE])
        share = len(part) / number
        scaled = Bounds(bounds.low * share, bounds.high * share, bounds.cost, bounds.total * share)
        prices = _relax(part, free, scaled, tolerance * share)[0].prices
        contested = max(SMALL, int(8 * number / np.sqrt(len(part))))
    while True:
        teacher, window = _contest(_reduce(rewards, prices, bounds), contested)
        found = _complete(rewards, teacher, window, prices, bounds)
        if found is None:  # the prompts that may move are too few for the bounds
            contested *= 2
            continue
        prices = found.prices
        reduced = _reduce(rewards, prices, bounds)
        if contested >= number or reduced.bound - found.value <= tolerance:
            return found, reduced
        contested += contested // 2


def _round(rewards: FloatArray, relaxed: _Part, reduced: _Reduced, bounds: Bounds) -> tuple[IntArray, float]:
    """Solve the integer programme over the fractional and the most contested prompts; the others stay.

    Returns teachers and a bound on the value: moving one of the others loses more than `window` against the dual.
    """
    contested = CONTESTED
    while True:
        teacher, window = _contest(reduced, contested)
        teacher[teacher >= 0] = relaxed.teacher[teacher >= 0]
        found = _complete(rewards, teacher, window, relaxed.prices, bounds, integral=True)
        if found is not None:
            return found.teacher, min(reduced.bound, max(found.bound, reduced.bound - window))
        contested *= 4


def _contest(reduced: _Reduced, number: int) -> tuple[IntArray, float]:
    """Best teachers, -1 for the `number` prompts where these are least ahead, and by how much they are at most."""
    if number >= len(reduced.best):
        return np.full(len(reduced.best), -1, dtype=np.int64), np.inf
    window = float(np.partition(reduced.ahead, number - 1)[number - 1])
    return np.where(reduced.ahead <= window, -1, reduced.best), window


def _complete(
    rewards: FloatArray, teacher: IntArray, window: float, prices: Prices, bounds: Bounds, integral: bool = False
) -> _Part | None:
    """Give a teacher to every prompt that has none (-1), one within `window` of its best; None: not within bounds."""
    rows = np.flatnonzero(teacher < 0)
    kinds, kind_of = np.unique(rewards[rows], axis=0, return_inverse=True)  # equal prompts are one kind
    reduced = kinds - prices.per_prompt(bounds)
    allowed = reduced >= reduced.max(axis=1, keepdims=True) - window
    taken = np.bincount(teacher[teacher >= 0], minlength=rewards.shape[1])
    low, high = np.maximum(bounds.low - taken, 0), bounds.high - taken
    left = Bounds(low, high, bounds.cost, bounds.total - float(taken @ bounds.cost))
    solve = integer_programme if integral else linear_programme
    found = solve(kinds, np.bincount(kind_of.ravel(), minlength=len(kinds)), allowed, left)
    if found is None:
        return None
    counts, prices, bound = found
    kept = _value(rewards, teacher)
    completed = teacher.copy()
    completed[rows] = _hand_out(counts, kind_of.ravel())
    return _Part(completed, kept + float((counts * kinds).sum()), prices, kept + bound)


def _hand_out(counts: FloatArray, kind_of: IntArray) -> IntArray:
    """Teachers of the prompts of each kind, in prompt order and in that of the pool; -1: a fraction is left."""
    whole = np.floor(counts + 1e-6).astype(np.int64)
    width = counts.shape[1]
    rest = np.bincount(kind_of, minlength=len(counts)) - whole.sum(axis=1)
    labels = np.tile([*range(width), -1], len(counts))
    handed = np.repeat(labels, np.column_stack([whole, rest]).ravel())
    teacher = np.empty(len(kind_of), dtype=np.int64)
    teacher[np.argsort(kind_of, kind="stable")] = handed
    return teacher


def _reduce(rewards: FloatArray, prices: Prices, bounds: Bounds) -> _Reduced:
    best, ahead = np.empty(len(rewards), dtype=np.int64), np.empty(len(rewards))
    per_prompt, bound = prices.per_prompt(bounds), prices.bound(bounds)
    for start in range(0, len(rewards), BLOCK):
        block = np.asarray(rewards[start : start + BLOCK]) - per_prompt
        best[start : start + BLOCK] = block.argmax(axis=1)
        highest = np.partition(block, -2, axis=1)[:, -2:]
        ahead[start : start + BLOCK] = highest[:, 1] - highest[:, 0]
        bound += float(highest[:, 1].sum())
    return _Reduced(best, ahead, bound)


def _within(teacher: IntArray, bounds: Bounds) -> bool:
    counts = np.bincount(teacher, minlength=len(bounds.low))
    return bool(
        ((bounds.low <= counts) & (counts <= bounds.high)).all() and counts @ bounds.cost <= bounds.total + TOLERANCE
    )


def _value(rewards: FloatArray, teacher: IntArray) -> float:
    """Sum over the prompts that have a teacher."""
    rows = np.flatnonzero(teacher >= 0)
    return float(rewards[rows, teacher[rows]].sum())


class Point(NamedTuple):
    """A point of the frontier: cost and reward of one prompt, and the reward that one more unit of cost brings."""

    cost: float
    reward: float
    price: float


def frontier(rewards: FloatArray, bounds: Bounds, points: int = 9) -> list[Point]:
    """Best reward for totals from the least that the other bounds allow to what the best assignment takes.

    Measured on at most `FRONTIER` prompts, evenly spaced, and on whole prompts.
    """
    step = max(1, -(-len(rewards) // FRONTIER))
    sample = np.ascontiguousarray(rewards[::step])
    share = len(sample) / len(rewards)
    scaled = bounds._replace(low=np.floor(bounds.low * share), high=np.ceil(bounds.high * share), total=np.inf)
    free = allocate(sample, scaled)
    dearest = float(scaled.cost[free.teacher].sum())
    found = []
    for total in np.linspace(least_cost(len(sample), scaled), dearest, points)[:-1]:
        solution = allocate(sample, scaled._replace(total=float(total)))
        spent = float(scaled.cost[solution.teacher].sum())
        found.append(Point(spent / len(sample), solution.value / len(sample), solution.price))
    found.append(Point(dearest / len(sample), free.value / len(sample), 0.0))
    return sorted({point.cost: point for point in reversed(found)}.values())
