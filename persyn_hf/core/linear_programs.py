"""The programmes behind `core.budget`: prompts of the same rewards are one kind, a variable is kind times teacher."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.rewards import FloatArray, IntArray


NODES = 2_000  # of the search tree of the integer programme: a limit in seconds gives other results on other machines


class Bounds(NamedTuple):
    """Prompts per teacher, (n,) each; what one prompt costs with each teacher (n,), and all of them at most."""

    low: FloatArray
    high: FloatArray
    cost: FloatArray
    total: float = np.inf


class Prices(NamedTuple):
    """Dual of the bounds, all 0 or more."""

    high: FloatArray
    low: FloatArray
    total: float

    def per_prompt(self, bounds: Bounds) -> FloatArray:
        return self.high - self.low + self.total * bounds.cost

    def bound(self, bounds: Bounds) -> float:
        """What the prices of all bounds together add to the sum of the prompts' best reduced rewards."""
        limit = self.total * bounds.total if self.total else 0.0
        return float(self.high @ bounds.high - self.low @ bounds.low + limit)


def linear_programme(
    kinds: FloatArray, weight: IntArray, allowed: NDArray[np.bool_], bounds: Bounds
) -> tuple[FloatArray, Prices, float] | None:
    """Prompts of each kind (G, n) per teacher, the prices of the bounds, and the value."""
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    kind, teacher, each, per_teacher = _columns(allowed)
    limits, upper = [per_teacher, -per_teacher], [bounds.high, -bounds.low]
    if np.isfinite(bounds.total):
        limits, upper = [*limits, bounds.cost[None, teacher]], [*upper, np.array([bounds.total])]
    values = kinds[kind, teacher]

    options = {"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-9}
    found = linprog(-values, vstack(limits), np.concatenate(upper), each, weight, method="highs", options=options)
    if found.x is None:
        return None
    counts = np.zeros(kinds.shape)
    counts[kind, teacher] = found.x
    dual = np.maximum(-found.ineqlin.marginals, 0.0)
    width = kinds.shape[1]
    total = float(dual[2 * width]) if np.isfinite(bounds.total) else 0.0
    return counts, Prices(dual[:width], dual[width : 2 * width], total), float(-found.fun)


def integer_programme(
    kinds: FloatArray, weight: IntArray, allowed: NDArray[np.bool_], bounds: Bounds
) -> tuple[FloatArray, Prices, float] | None:
    """As `linear_programme`, whole prompts only; no prices, but a bound on the value."""
    from scipy.optimize import LinearConstraint, milp

    kind, teacher, each, per_teacher = _columns(allowed)
    rules = [LinearConstraint(each, weight, weight), LinearConstraint(per_teacher, bounds.low, bounds.high)]
    if np.isfinite(bounds.total):
        rules.append(LinearConstraint(bounds.cost[None, teacher], -np.inf, bounds.total))
    options = {"node_limit": NODES, "mip_rel_gap": 0.0}
    found = milp(-kinds[kind, teacher], integrality=np.ones(len(kind)), constraints=rules, options=options)
    if found.x is None:
        return None
    counts = np.zeros(kinds.shape)
    counts[kind, teacher] = np.rint(found.x)
    none = np.zeros(kinds.shape[1])
    return counts, Prices(none, none, 0.0), float(-found.mip_dual_bound)


def _columns(allowed: NDArray[np.bool_]) -> tuple[IntArray, IntArray, Any, Any]:
    """Kind and teacher of each variable, and the sums of the variables per kind and per teacher as sparse rows."""
    from scipy.sparse import csr_array

    kind, teacher = np.nonzero(allowed)
    here, ones = np.arange(len(kind)), np.ones(len(kind))
    each = csr_array((ones, (kind, here)), shape=(allowed.shape[0], len(kind)))
    per_teacher = csr_array((ones, (teacher, here)), shape=(allowed.shape[1], len(kind)))
    return kind, teacher, each, per_teacher
