"""Choose who answers which prompt: PerSyn's argmax and the paper's baselines, as functions over teacher indices.

Teachers are columns 0 to n-1 in the order of the pool. Ties always end in pool order, so every choice is repeatable.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import BoolArray, FloatArray, IntArray
from persyn_hf.errors import InputError, RecipeError


class Routing(NamedTuple):
    """One teacher per prompt (N,), and the margin (N,): best score minus second best, NaN where fewer than two are."""

    teacher: IntArray
    margin: FloatArray


class Ranking(NamedTuple):
    """One teacher for all prompts, and the value (n,) of each teacher under the rule; NaN: not measured."""

    teacher: int
    values: FloatArray


def column_means(matrix: ArrayLike) -> FloatArray:
    """Return the mean of each teacher's measured cells, (N, n) -> (n,); NaN for a teacher without any."""
    values = np.asarray(matrix, dtype=np.float64)
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def route(scores: ArrayLike, prior: ArrayLike | None = None, stay: ArrayLike | None = None) -> Routing:
    """Choose the teacher of the best score for each prompt, among its measured cells.

    Args:
        scores: (N, n), NaN where not measured.
        prior: (n,) decides between equal scores, then pool order does; default: the teachers' mean scores. It decides
            alone for a prompt without any measured cell.
        stay: (N,) a teacher per prompt that keeps it wherever it is one of the best; None: there is none. So a change
            of weights moves no prompt that it gives no reason to move.

    Raises:
        InputError: no teacher has any score.

    The tie rule matters where quality alone decides: binary grades tie often, and pool order would favour one teacher.
    Example: scores [1, 1, 0] and prior [0.4, 0.7, 0.9] choose teacher 1, with margin 0.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    weights = column_means(matrix) if prior is None else np.asarray(prior, dtype=np.float64)
    if not len(matrix):
        return Routing(np.zeros(0, dtype=np.int64), np.zeros(0))
    filled = np.where(np.isnan(matrix), -np.inf, matrix)
    best = filled.max(axis=1, keepdims=True)
    among = filled == best  # all of them where nothing was measured
    if np.isnan(weights).all() and np.isinf(best).any():
        raise InputError("no teacher has any score, one is needed; check that the rewards were measured")
    teacher = np.where(among, np.where(np.isnan(weights), -np.finfo(float).max, weights), -np.inf).argmax(axis=1)
    if stay is not None:
        kept = np.asarray(stay, dtype=np.int64)
        teacher = np.where(among[np.arange(len(matrix)), kept] & ~np.isinf(best[:, 0]), kept, teacher)
    second = np.partition(filled, -2, axis=1)[:, -2] if filled.shape[1] > 1 else np.full(len(filled), -np.inf)
    margin = np.where(np.isinf(second), np.nan, best[:, 0] - np.where(np.isinf(second), 0.0, second))
    return Routing(teacher.astype(np.int64), margin)


def several_best(scores: ArrayLike) -> BoolArray:
    """Say which prompts have several teachers of the best score, (N, n) -> (N,)."""
    matrix = np.asarray(scores, dtype=np.float64)
    filled = np.where(np.isnan(matrix), -np.inf, matrix)
    best = filled.max(axis=1, keepdims=True, initial=-np.inf)
    return ((filled == best) & ~np.isinf(best)).sum(axis=1) > 1


def best_first(scores: ArrayLike, first: ArrayLike) -> IntArray:
    """Order the teachers of each prompt as they are to be asked, (N, n) -> (N, n) indices.

    `first` (N,), the assigned teacher, comes first. The others follow by score, equal scores in pool order, and those
    without a score come last.
    """
    matrix = np.array(scores, dtype=np.float64)
    matrix[np.isnan(matrix)] = -np.inf
    matrix[np.arange(len(matrix)), np.asarray(first, dtype=np.int64)] = np.inf
    return np.argsort(-matrix, axis=1, kind="stable").astype(np.int64)


def mix(num_prompts: int, weights: ArrayLike, rng: np.random.Generator) -> IntArray:
    """Draw a random teacher for each prompt, independently, with probability proportional to `weights` (n,).

    Returns (num_prompts,) indices. Prompts drawn in parts from one generator get the same teachers as drawn at once.

    Raises:
        RecipeError: a weight is negative or not finite, or all are 0.
    """
    shares = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise RecipeError(f"`weights` of a mix must be numbers >= 0 with a sum above 0, got {shares.tolist()}")
    return rng.choice(len(shares), size=num_prompts, p=shares / shares.sum()).astype(np.int64)


def strong(names: Sequence[str], params_b: Sequence[float | None], mean_quality: ArrayLike | None = None) -> Ranking:
    """Choose the largest teacher; of equal sizes the one of higher mean quality, then the first in pool order.

    names and params_b (n,): billions of parameters; mean_quality (n,).

    Raises:
        RecipeError: a teacher has no size.
    """
    for name, size in zip(names, params_b, strict=True):
        if size is None:
            raise RecipeError(
                f"the strongest teacher is found by size and `{name}` has no `params_b`; "
                f"set it for every teacher, or name the strongest with `teacher:`"
            )
    sizes = np.array(params_b, dtype=np.float64)
    return Ranking(_best(sizes, then=np.zeros(len(sizes)) if mean_quality is None else mean_quality), sizes)


def family_strong(
    names: Sequence[str],
    families: Sequence[str],
    params_b: Sequence[float | None],
    family: str,
    strongest: int | None,
    mean_quality: ArrayLike | None = None,
) -> Ranking:
    """Choose the strongest teacher (see `strong`) of the student's `family` other than `strongest`, an index or None.

    Raises:
        RecipeError: there is none, or the family is unknown.
    """
    members = [i for i, teachers_family in enumerate(families) if teachers_family == family and i != strongest]
    if family == "unknown" or not members:
        raise RecipeError(
            f"family_strong needs a teacher of the student's family `{family}` other than the strongest of all, "
            f"found none (families of the pool: {', '.join(dict.fromkeys(families))}); name one with `teacher:`"
        )
    quality = None if mean_quality is None else np.asarray(mean_quality)[members]
    best = strong([names[i] for i in members], [params_b[i] for i in members], quality)
    values = np.full(len(names), np.nan)
    values[members] = best.values
    return Ranking(members[best.teacher], values)


def car(quality: ArrayLike, loss: ArrayLike, beta: float = 3.0) -> Ranking:
    """Choose the teacher of the best compatibility-adjusted reward (Xu et al. 2025) for all prompts.

    The value of a teacher is mean quality / (1 + beta * mean loss). quality (N, n): raw quality. loss (N, n): the
    student's mean negative log-likelihood, nats per token, 0 or more. Where a mean quality is negative all are min-max
    scaled first: dividing a negative number would reward a high loss.

    Raises:
        InputError: no teacher has both a quality and a loss.
    """
    mean_quality, mean_loss = column_means(quality), column_means(loss)
    if np.isnan(mean_quality + mean_loss).all():
        raise InputError("car needs `quality_raw` and `mean_logprob` of at least one teacher, found none; run `score`")
    if np.nanmin(mean_quality) < 0:
        spread = np.nanmax(mean_quality) - np.nanmin(mean_quality)
        mean_quality = (mean_quality - np.nanmin(mean_quality)) / (spread or 1.0)
    values = mean_quality / (1 + beta * mean_loss)
    return Ranking(_best(values, then=-mean_loss), values)


def best_mean(rewards: ArrayLike) -> Ranking:
    """Choose the teacher with the highest mean reward over its measured prompts; rewards (N, n).

    Raises:
        InputError: no reward is measured.
    """
    values = column_means(rewards)
    if np.isnan(values).all():
        raise InputError("best_mean_reward needs measured rewards, found none; run `score` on the calibration prompts")
    return Ranking(_best(values, then=np.zeros(len(values))), values)


def reassign(teacher: ArrayLike, from_teachers: Sequence[int], to_teacher: int) -> IntArray:
    """Send every prompt of `from_teachers` to `to_teacher`, (N,) -> (N,) indices (the paper's Long-CoT experiment)."""
    base = np.asarray(teacher, dtype=np.int64)
    return np.where(np.isin(base, list(from_teachers)), to_teacher, base)


def allocation(teacher: ArrayLike, num_teachers: int) -> FloatArray:
    """Return the share of the prompts that each teacher gets, (N,) -> (n,), with sum 1 (all 0 without prompts)."""
    counts = np.bincount(np.asarray(teacher, dtype=np.int64), minlength=num_teachers)
    return counts / max(counts.sum(), 1)


def _best(values: FloatArray, then: ArrayLike) -> int:
    """Return the index of the largest value; equal values go by the larger `then`, then the first. NaN is smallest."""
    first = np.where(np.isnan(values), -np.inf, values)
    second = np.nan_to_num(np.asarray(then, dtype=np.float64), nan=-np.inf)
    return max(range(len(first)), key=lambda i: (first[i], second[i], -i))
