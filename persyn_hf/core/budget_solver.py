"""Choose a teacher for every prompt where teachers have quotas and answers have a price.

The problem: maximise sum_i rewards[i, t_i] over one teacher t_i per prompt, with low_j <= number of prompts of teacher
j <= high_j and sum_i cost[t_i] <= total. Without a total the linear programme has an integral solution, and that is
the optimum. With a total a few prompts are fractional; an integer programme over the most contested prompts rounds
them. Every solution has a `gap`: the optimum is better by no more than this, which the dual proves.

Example: a teacher that costs 1 per prompt, one that costs 3, a total of 6, and three prompts whose rewards with the
two are (0.2, 0.9), (0.4, 0.6) and (0.5, 0.8). All prompts at the cheap teacher cost 3 and are worth 1.1. A change to
the dear teacher costs 2, so 3 more units pay for one change and a half. The relaxation changes prompt 0 and half of
prompt 2: 1.1 + 0.7 + 0.15 = 1.95. Its last unit of cost bought 0.3 / 2 = 0.15, which is the `price`. The price shows
who is contested: with 0.15 taken off for every unit of cost the dear teacher leads by 0.7 - 0.3 = 0.4 on prompt 0,
trails by 0.1 on prompt 1, and ties on prompt 2. The sum of the best reduced rewards plus 0.15 * 6 is the dual bound,
1.95 again. Whole prompts allow one change only: prompt 0, in all 1.8. The integer programme proves that nothing is
better, so the gap is 0, not 0.15.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.linear_programs import Bounds, Prices, integer_programme, linear_programme
from persyn_hf.errors import RecipeError


SMALL = 2_000  # up to this many prompts, the linear programme is solved whole; above, prices of a sample come first
SAMPLE = 10  # the sample holds every tenth prompt
CONTESTED = 300  # prompts of the first integer programme
EXACT = 1e-9  # a gap per prompt up to this share of the range of the rewards is rounding, and counts as 0
TOLERANCE = 1e-6  # of the solver, and so of `total`, in units of the dearest prompt
FRONTIER = 10_000  # prompts that a frontier is measured on at most
BLOCK = 100_000  # prompts looked at together, for memory


class Solution(NamedTuple):
    """An assignment within the bounds: the teacher (N,) of each prompt, and the sum of the rewards, `value`.

    The optimum is worth at most `value + gap`. One more unit of cost would bring the reward `price`.
    """

    teacher: IntArray
    value: float
    gap: float
    price: float


class _Reduced(NamedTuple):
    """Rewards less prices: the best teacher (N,) of each prompt, its lead `ahead` (N,), and the dual bound.

    No assignment within the bounds is worth more than `bound` (weak duality).
    """

    best: IntArray
    ahead: FloatArray
    bound: float


class _Part(NamedTuple):
    """The solution of a programme: the teacher (N,) of each prompt, -1 for a split one, its value and the prices.

    `value` counts split prompts, too. No solution of the same programme is worth more than `bound`.
    """

    teacher: IntArray
    value: float
    prices: Prices
    bound: float


def bounds_of(
    num_prompts: int, low: ArrayLike, high: ArrayLike, cost: ArrayLike | None = None, total: float | None = None
) -> Bounds:
    """Make the bounds of `num_prompts` prompts from least and largest shares per teacher, (n,) each.

    Numbers of prompts are rounded so that no share is broken. cost (n,): of one prompt with each teacher, default 0.
    total: largest cost of all prompts together, default none.

    Raises:
        RecipeError: no assignment keeps all bounds; the message names the bound to change.
    """
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
    """Return the least that `num_prompts` can cost: what `low` asks for, then the cheapest teachers up to `high`."""
    left = num_prompts - bounds.low.sum()
    cost = bounds.low @ bounds.cost
    for teacher in np.argsort(bounds.cost, kind="stable"):
        taken = min(left, bounds.high[teacher] - bounds.low[teacher])
        cost, left = cost + taken * bounds.cost[teacher], left - taken
    return float(cost)


def allocate(rewards: FloatArray, bounds: Bounds, first: IntArray | None = None) -> Solution:
    """Find the best assignment within the bounds.

    rewards (N, n): all finite. bounds: feasible ones, as `bounds_of` makes them. first (N,): a best teacher of each
    prompt, which is the result where it keeps the bounds; default: of equal teachers the first in pool order.

    The same input gives the same solution. Prompts with equal rewards get their teachers in the order of the pool.
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
    """Solve the linear programme, in which a prompt may be split between teachers; a split prompt has teacher -1.

    Most prompts are never in doubt, so a large programme is solved on few of them:

    1. Every tenth prompt, solved in this same way with the bounds scaled alike, gives first prices.
    2. At these prices every prompt has a best reduced reward. The `contested` prompts whose best teacher leads by
       least enter the programme. The others keep their best teacher, and what they use up is taken off the bounds.
    3. The programme gives a value and new prices. At these, the dual bound of *all* prompts is computed. Where bound
       and value meet (up to `tolerance`), no prompt that was left out would have moved: the solution is optimal.
       Else, half as many prompts again are contested, and step 2 is repeated with the new prices.

    Where the contested prompts are too few to keep the bounds at all, their number is doubled. The loop ends at the
    latest when every prompt is contested: that programme needs no proof.

    Example: the three prompts of the module's docstring are solved whole. The prompts get the teachers (1, 0, -1), the
    value is 1.95 and the bound 1.95. The price is 0.45, as `allocate` counts cost in units of the dearest prompt, 3.
    """
    number = len(rewards)
    prices, contested = free, number
    if number > SMALL:
        sample = np.ascontiguousarray(rewards[::SAMPLE])
        share = len(sample) / number
        scaled = Bounds(bounds.low * share, bounds.high * share, bounds.cost, bounds.total * share)
        prices = _relax(sample, free, scaled, tolerance * share)[0].prices
        contested = max(SMALL, int(8 * number / np.sqrt(len(sample))))
    while True:
        teacher, window = _contest(_reduce(rewards, prices, bounds), contested)
        relaxed = _complete(rewards, teacher, window, prices, bounds)
        if relaxed is None:  # the prompts that may move are too few for the bounds
            contested *= 2
            continue
        prices = relaxed.prices
        reduced = _reduce(rewards, prices, bounds)
        if contested >= number or reduced.bound - relaxed.value <= tolerance:
            return relaxed, reduced
        contested += contested // 2


def _round(rewards: FloatArray, relaxed: _Part, reduced: _Reduced, bounds: Bounds) -> tuple[IntArray, float]:
    """Solve the integer programme over the split and the most contested prompts; the other prompts keep their teacher.

    Returns the teachers (N,) and a bound on the value of every whole assignment. An assignment is either one that the
    integer programme may choose, and is worth no more than that proves; or it gives some prompt a teacher whose
    reduced reward is more than `window` below the prompt's best, and is worth at most the dual bound less `window`.
    The larger of the two bounds holds for all.
    """
    contested = CONTESTED
    while True:
        teacher, window = _contest(reduced, contested)
        teacher[teacher >= 0] = relaxed.teacher[teacher >= 0]
        rounded = _complete(rewards, teacher, window, relaxed.prices, bounds, integral=True)
        if rounded is not None:
            return rounded.teacher, min(reduced.bound, max(rounded.bound, reduced.bound - window))
        contested *= 4


def _contest(reduced: _Reduced, number: int) -> tuple[IntArray, float]:
    """Contest the `number` prompts whose best teacher leads by least, and all that tie with the last of them.

    Returns the best teachers (N,), -1 for a contested prompt, and the largest lead among the contested prompts.
    """
    if number >= len(reduced.best):
        return np.full(len(reduced.best), -1, dtype=np.int64), np.inf
    window = float(np.partition(reduced.ahead, number - 1)[number - 1])
    return np.where(reduced.ahead <= window, -1, reduced.best), window


def _complete(
    rewards: FloatArray, teacher: IntArray, window: float, prices: Prices, bounds: Bounds, integral: bool = False
) -> _Part | None:
    """Solve a programme that gives a teacher to every prompt without one (-1); the others keep theirs.

    A prompt may only get teachers whose reduced reward is within `window` of its best; None: these break the bounds.
    """
    rows = np.flatnonzero(teacher < 0)
    kinds, kind_of = np.unique(rewards[rows], axis=0, return_inverse=True)  # equal prompts are one kind
    reduced = kinds - prices.per_prompt(bounds)
    allowed = reduced >= reduced.max(axis=1, keepdims=True) - window
    taken = np.bincount(teacher[teacher >= 0], minlength=rewards.shape[1])
    low, high = np.maximum(bounds.low - taken, 0), bounds.high - taken
    left = Bounds(low, high, bounds.cost, bounds.total - float(taken @ bounds.cost))
    solve = integer_programme if integral else linear_programme
    solved = solve(kinds, np.bincount(kind_of.ravel(), minlength=len(kinds)), allowed, left)
    if solved is None:
        return None
    counts, prices, bound = solved
    kept = _value(rewards, teacher)
    completed = teacher.copy()
    completed[rows] = _hand_out(counts, kind_of.ravel())
    return _Part(completed, kept + float((counts * kinds).sum()), prices, kept + bound)


def _hand_out(counts: FloatArray, kind_of: IntArray) -> IntArray:
    """Give each kind's counts of teachers to its prompts, both in order; -1 for the prompts of a fraction.

    So counts [[2, 1]] and kind_of [0, 0, 0] give [0, 0, 1]; counts [[1.5, 0.5]] and kind_of [0, 0] give [0, -1].
    """
    whole = np.floor(counts + 1e-6).astype(np.int64)
    width = counts.shape[1]
    rest = np.bincount(kind_of, minlength=len(counts)) - whole.sum(axis=1)
    labels = np.tile([*range(width), -1], len(counts))
    handed = np.repeat(labels, np.column_stack([whole, rest]).ravel())
    teacher = np.empty(len(kind_of), dtype=np.int64)
    teacher[np.argsort(kind_of, kind="stable")] = handed
    return teacher


def _reduce(rewards: FloatArray, prices: Prices, bounds: Bounds) -> _Reduced:
    """Take the prices off the rewards, one block of prompts at a time; see `_Reduced`."""
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
    """Say whether an assignment keeps all bounds, the total up to `TOLERANCE`."""
    counts = np.bincount(teacher, minlength=len(bounds.low))
    return bool(
        ((bounds.low <= counts) & (counts <= bounds.high)).all() and counts @ bounds.cost <= bounds.total + TOLERANCE
    )


def _value(rewards: FloatArray, teacher: IntArray) -> float:
    """Sum the rewards of the prompts that have a teacher."""
    rows = np.flatnonzero(teacher >= 0)
    return float(rewards[rows, teacher[rows]].sum())


class Point(NamedTuple):
    """A point of the frontier: cost and reward of a mean prompt, and the reward that one more unit of cost brings."""

    cost: float
    reward: float
    price: float


def frontier(rewards: FloatArray, bounds: Bounds, points: int = 9) -> list[Point]:
    """Trace the best reward against cost, from the cheapest assignment to the best one.

    The `points` totals are evenly spaced between them. At most `FRONTIER` prompts, evenly spaced, are looked at.
    """
    step = max(1, -(-len(rewards) // FRONTIER))
    sample = np.ascontiguousarray(rewards[::step])
    share = len(sample) / len(rewards)
    scaled = bounds._replace(low=np.floor(bounds.low * share), high=np.ceil(bounds.high * share), total=np.inf)
    free = allocate(sample, scaled)
    dearest = float(scaled.cost[free.teacher].sum())
    traced = []
    for total in np.linspace(least_cost(len(sample), scaled), dearest, points)[:-1]:
        solution = allocate(sample, scaled._replace(total=float(total)))
        spent = float(scaled.cost[solution.teacher].sum())
        traced.append(Point(spent / len(sample), solution.value / len(sample), solution.price))
    traced.append(Point(dearest / len(sample), free.value / len(sample), 0.0))
    return sorted({point.cost: point for point in reversed(traced)}.values())
