"""Route within a budget: all scores are needed before the first prompt is given away, so they go to a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.core import assignment as core
from persyn_hf.core import budget_solver as solver
from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.confidence import Worth
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strategies import Budget
from persyn_hf.stages.assign.measured import Measured
from persyn_hf.stages.assign.routing import Score, unmeasured
from persyn_hf.stages.assign.rows import CHUNK
from persyn_hf.stages.assign.rules import index_of


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


def scores_of(
    prompts: "Dataset", splits: tuple[str, ...], measured: Measured, score: Score, path: Path, at_a_time: int = CHUNK
) -> FloatArray:
    """Score the prompts that the router decides on, in order, into the file `path`; (num_prompts, num_teachers)."""
    width = measured.matrix.shape[1]
    path.unlink(missing_ok=True)
    with open(path, "wb") as stream:
        for chunk in unmeasured(prompts, splits, measured, at_a_time):
            stream.write(np.ascontiguousarray(score(chunk), dtype=np.float64).tobytes())
    if not path.stat().st_size:
        return np.zeros((0, width))
    return np.memmap(path, dtype=np.float64, mode="r").reshape(-1, width)


def replay(scores: FloatArray) -> Score:
    """Make a `Score` that hands out scores that are known already, in order."""
    done = 0

    def score(prompts: "pa.Table") -> FloatArray:
        nonlocal done
        done += len(prompts)
        return np.array(scores[done - len(prompts) : done])

    return score


def spend(
    budget: Budget,
    teachers: Sequence[Teacher],
    scores: FloatArray,
    measured: Measured,
    worth: Worth | None,
    cost: FloatArray,
) -> tuple[IntArray, dict[str, Any]]:
    """Choose the teachers of the prompts within a budget.

    Args:
        scores: (N, n), of the prompts that the router decides on.
        worth: what a score is worth in reward, learned on dev; None: scores count as rewards.
        cost: (n,), of one prompt with each teacher.

    Returns:
        The teachers (N,), and for the metrics what the budget came to and the frontier of reward against cost.

    Raises:
        RecipeError: the bounds of the budget cannot be kept.

    A `lambda` is taken off as reward per unit of cost while teachers are chosen, and is not part of what is reported.
    """
    pool = [teacher.name for teacher in teachers]
    low = [_share(budget.min, name, 0.0, pool) for name in pool]
    high = [_share(budget.max, name, 1.0, pool) for name in pool]
    number = len(scores)
    bounds = solver.bounds_of(number, low, high, cost, budget.total)
    level, scale = worth or Worth(0.0, 1.0)
    rewards = np.empty((number, len(pool)))
    first = np.empty(number, dtype=np.int64)
    for start in range(0, number, solver.BLOCK):
        block = slice(start, start + solver.BLOCK)
        centred = scores[block] - scores[block].mean(axis=1, keepdims=True)
        rewards[block] = level + scale * centred
        first[block] = core.route(rewards[block] - budget.lambda_ * cost, measured.means).teacher
    if budget.lambda_:
        rewards -= budget.lambda_ * cost
    solution = solver.allocate(rewards, bounds, first)
    if budget.lambda_:
        rewards += budget.lambda_ * cost
    report: dict[str, Any] = {"budget": _report(rewards, solution, bounds, worth, bool(budget.cost))}
    if budget.cost and number:
        points = solver.frontier(rewards, bounds._replace(total=np.inf))
        report["frontier"] = {f"{point.cost:.4g}": point._asdict() for point in points}
    return solution.teacher, report


def _report(
    rewards: FloatArray, solution: solver.Solution, bounds: solver.Bounds, worth: Worth | None, priced: bool
) -> dict[str, Any]:
    """Return what the budget came to: mean rewards with and without it and, where there is a cost, cost and price."""
    number = max(len(rewards), 1)
    mean = float(rewards[np.arange(len(rewards)), solution.teacher].sum()) / number
    free = rewards.max(axis=1)
    figures: dict[str, Any] = {
        "prompts": len(rewards),
        "predicted_reward": mean,
        "without_budget": float(free.sum()) / number,
        "gap": solution.gap / number,  # reward per prompt by which the best assignment may be better at most
        "reward_per_score": None if worth is None else worth.scale,  # null: dev does not tell, scores count as rewards
    }
    if priced:
        figures |= {"cost": float(bounds.cost[solution.teacher].sum()), "price": solution.price}
    return figures


def _share(shares: dict[str, float | int], name: str, default: float, pool: list[str]) -> float:
    """Return the share of a teacher; a name in `shares` that is not in the pool is refused."""
    for teacher in shares:
        index_of(pool, teacher, "budget")
    return float(shares.get(name, default))
