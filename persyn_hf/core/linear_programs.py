"""The linear and the integer programme behind `core.budget_solver`.

Prompts with the same rewards are one kind. A variable is the number of prompts of one kind that one teacher gets, so
the size of a programme grows with the kinds, not with the prompts.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.arrays import FloatArray, IntArray


NODES = 2_000  # limit on the search tree of the integer programme; one in seconds would depend on the machine


class Bounds(NamedTuple):
    """The bounds that an assignment must keep.

    low, high: (n,) least and largest number of prompts per teacher. cost: (n,) cost of one prompt with each teacher.
    total: largest cost of all prompts together.
    """

    low: FloatArray
    high: FloatArray
    cost: FloatArray
    total: float = np.inf


class Prices(NamedTuple):
    """The dual of the bounds, in reward, all 0 or more.

    high, low: (n,) gain if a teacher might get one prompt more, or had to get one fewer. total: gain per unit of cost.
    """

    high: FloatArray
    low: FloatArray
    total: float

    def per_prompt(self, bounds: Bounds) -> FloatArray:
        """Return what a prompt with each teacher is charged, (n,); its reward less this is its reduced reward."""
        return self.high - self.low + self.total * bounds.cost

    def bound(self, bounds: Bounds) -> float:
        """Return what the bounds are worth at these prices.

        Added to the sum of the prompts' best reduced rewards, it is the dual bound: no assignment is worth more.
        """
        limit = self.total * bounds.total if self.total else 0.0
        return float(self.high @ bounds.high - self.low @ bounds.low + limit)


def linear_programme(
    kinds: FloatArray, weight: IntArray, allowed: NDArray[np.bool_], bounds: Bounds
) -> tuple[FloatArray, Prices, float] | None:
    """Solve the linear programme with HiGHS.

    Args:
        kinds: (G, n) rewards of each kind of prompt.
        weight: (G,) prompts of each kind.
        allowed: (G, n) whether a kind may go to a teacher.
        bounds: what the solution must keep.

    Returns:
        Prompts of each kind per teacher (G, n), the prices of the bounds, and the value; None where it is infeasible.
    """
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    kind, teacher, each, per_teacher = _columns(allowed)
    limits, upper = [per_teacher, -per_teacher], [bounds.high, -bounds.low]
    if np.isfinite(bounds.total):
        limits, upper = [*limits, bounds.cost[None, teacher]], [*upper, np.array([bounds.total])]
    values = kinds[kind, teacher]

    options = {"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-9}
    solved = linprog(-values, vstack(limits), np.concatenate(upper), each, weight, method="highs", options=options)
    if solved.x is None:
        return None
    counts = np.zeros(kinds.shape)
    counts[kind, teacher] = solved.x
    dual = np.maximum(-solved.ineqlin.marginals, 0.0)
    width = kinds.shape[1]
    total = float(dual[2 * width]) if np.isfinite(bounds.total) else 0.0
    return counts, Prices(dual[:width], dual[width : 2 * width], total), float(-solved.fun)


def integer_programme(
    kinds: FloatArray, weight: IntArray, allowed: NDArray[np.bool_], bounds: Bounds
) -> tuple[FloatArray, Prices, float] | None:
    """Solve the programme of `linear_programme`, which has the same arguments, in whole prompts.

    Returns prompts of each kind per teacher (G, n), prices that are all 0, and a bound that the search has proven: no
    solution is worth more. The bound may be above the value, as the search ends after `NODES` nodes.
    """
    from scipy.optimize import LinearConstraint, milp

    kind, teacher, each, per_teacher = _columns(allowed)
    rules = [LinearConstraint(each, weight, weight), LinearConstraint(per_teacher, bounds.low, bounds.high)]
    if np.isfinite(bounds.total):
        rules.append(LinearConstraint(bounds.cost[None, teacher], -np.inf, bounds.total))
    options = {"node_limit": NODES, "mip_rel_gap": 0.0}
    solved = milp(-kinds[kind, teacher], integrality=np.ones(len(kind)), constraints=rules, options=options)
    if solved.x is None:
        return None
    counts = np.zeros(kinds.shape)
    counts[kind, teacher] = np.rint(solved.x)
    none = np.zeros(kinds.shape[1])
    return counts, Prices(none, none, 0.0), float(-solved.mip_dual_bound)


def _columns(allowed: NDArray[np.bool_]) -> tuple[IntArray, IntArray, Any, Any]:
    """List the variables, one per allowed (kind, teacher).

    Returns the kind and the teacher of each variable (V,), and sparse matrices that sum the variables per kind (G, V)
    and per teacher (n, V).
    """
    from scipy.sparse import csr_array

    kind, teacher = np.nonzero(allowed)
    here, ones = np.arange(len(kind)), np.ones(len(kind))
    each = csr_array((ones, (kind, here)), shape=(allowed.shape[0], len(kind)))
    per_teacher = csr_array((ones, (teacher, here)), shape=(allowed.shape[1], len(kind)))
    return kind, teacher, each, per_teacher
