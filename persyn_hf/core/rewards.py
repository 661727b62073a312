"""Make rewards of parallel responses: normalise per prompt across teachers, then combine (PerSyn, section 2.1).

A matrix has the shape (num_prompts, num_teachers), columns in the order of the pool. NaN is a missing cell: there is
no response, or it could not be judged. In the columns of a dataset null is missing, and NaN is refused.

Values that differ by rounding only are made equal where they arise, in `normalise` and `combine`. All later code
compares exactly, so ranks, the best teacher and comparisons of two teachers agree on what is a tie. A row's values are
sorted, and each one that is no more than the tolerance above the one before it is tied to it. Ties chain: with
tolerance 1 the row [0, 0.6, 1.2, 3] becomes [0, 0, 0, 3]. Its 0 and 1.2 are further apart than the tolerance, but each
is tied to 0.6, and equality may not depend on which two are compared.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.unanswered import as_the_worst, unanswered
from persyn_hf.errors import InputError, check


How = Literal["minmax", "zscore", "rank", "none"]
Measure = Literal["mean_logprob", "rank_surprisal", "none"]

NOISE = 1e-6  # raw values of a prompt closer than this share of its largest magnitude are equal: float32's precision
LARGEST = 1e100  # of raw values: sums over prompts and the axes of figures stay finite
FITS = 10  # times that each effect is fitted, in turn: enough to settle them
ROUNDING = 1e-9  # the same share for combined rewards: float64's rounding, 2e-16, after NOISE became the whole scale


def normalise(values: ArrayLike, how: How = "minmax", near_tie: float = NOISE) -> FloatArray:
    """Normalise each prompt's values across teachers (the paper's footnote 2); missing cells stay missing.

    Args:
        values: (N, n) raw values, NaN where missing.
        how: `minmax`: the worst is 0, the best 1. `zscore`: mean 0, population standard deviation 1. `rank`: the worst
            is 0, the best 1, evenly spaced; ties share their mean. `none`: unchanged.
        near_tie: neighbours that differ by no more than this share of the row's largest magnitude tie.

    Raises:
        InputError: a value is infinite.
        RecipeError: `how` is another word.

    Except with `none`, a constant row becomes all 0: where every teacher is right (or wrong), nothing says which to
    prefer. While differences are larger than near-ties, shifting a row or scaling it (by more than 0) changes nothing.

    Example: [0, 1e-7, 0.5, 1] becomes [0, 0, 0.5, 1] with `minmax` and [1/6, 1/6, 2/3, 1] with `rank`: the two that
    tie for places 0 and 1 of 3 share 0.5 / 3.
    """
    matrix = np.array(values, dtype=np.float64)
    if np.isinf(matrix).any():
        row, column = np.argwhere(np.isinf(matrix))[0]
        raise InputError(
            f"rewards must be finite or missing, found {matrix[row, column]} for prompt number {row}, teacher "
            f"number {column}; score that response again or leave it out"
        )
    check(how in ("minmax", "zscore", "rank", "none"), "normalisation", how, "minmax, zscore, rank or none")
    if how == "none":
        return matrix
    magnitude = _magnitude(matrix)
    unit = _settle(matrix / np.where(magnitude > 0, magnitude, 1.0), near_tie)
    measured = ~np.isnan(unit)
    low = unit.min(axis=1, keepdims=True, initial=np.inf, where=measured)
    high = unit.max(axis=1, keepdims=True, initial=-np.inf, where=measured)
    varies = high > low
    count = np.maximum(measured.sum(axis=1, keepdims=True), 1)
    if how == "minmax":
        scaled = (unit - np.where(varies, low, 0.0)) / np.where(varies, high - low, 1.0)
    elif how == "zscore":
        centred = unit - np.nansum(unit, axis=1, keepdims=True) / count
        deviation = np.sqrt(np.nansum(centred**2, axis=1, keepdims=True) / count)
        scaled = centred / np.where(varies, deviation, 1.0)
    else:
        place = _count(unit, np.greater) + (_count(unit, np.equal) - 1) / 2
        scaled = place / np.maximum(count - 1, 1)
    return np.where(measured, np.where(varies, scaled, 0.0), np.nan)


def learnability(columns: Mapping[str, Sequence[Any]], how: Measure = "mean_logprob") -> FloatArray:
    """Return the learnability of responses (num_responses,), from what one forward pass of the student has measured.

    Higher is better; NaN: not measured. `columns` are those of a rewards dataset. `mean_logprob`: the paper's Eq. 1,
    nats per token. `rank_surprisal`: the negative rank-surprisal ratio, -sum min(rank, 100) / sum surprisal (arXiv
    2601.14249). `none`: NaN for all.

    Raises:
        InputError: a value is not finite.
        RecipeError: `how` is another word.
    """
    check(how in ("mean_logprob", "rank_surprisal", "none"), "measure", how, "mean_logprob, rank_surprisal or none")
    if how == "mean_logprob":
        return numbers(columns, "mean_logprob")
    if how == "rank_surprisal":
        surprisal = -numbers(columns, "sum_logprob")
        return -numbers(columns, "sum_min_rank") / np.where(surprisal > 0, surprisal, np.nan)
    return np.full(len(columns["mean_logprob"]), np.nan)


def combine(quality: ArrayLike | None, learnability: ArrayLike | None, alpha: float) -> FloatArray:
    """Combine normalised rewards by the paper's Eq. 2: (1 - alpha) * quality + alpha * learnability.

    All three are (N, n), and a cell is NaN where one of the two is missing. With alpha 0 learnability is not read and
    may be None; with alpha 1 quality may be. Neighbours within `ROUNDING` of the row's largest magnitude,
    of terms or sum, tie.

    Raises:
        InputError: alpha needs a matrix that is None.
        RecipeError: alpha is no number from 0 to 1.

    Example: quality [1, 0] and learnability [0, 1] with alpha 0.4 give [0.6, 0.4].
    """
    check(0 <= alpha <= 1, "alpha", alpha, "a number from 0 to 1")
    if alpha == 0 and quality is not None:
        return weighted_sum([np.asarray(quality, dtype=np.float64)])
    if alpha == 1 and learnability is not None:
        return weighted_sum([np.asarray(learnability, dtype=np.float64)])
    if quality is None or learnability is None:
        missing, only = ("quality", 1) if quality is None else ("learnability", 0)
        raise InputError(f"alpha {alpha} needs {missing} rewards, found none; measure them, or set alpha {only}")
    return weighted_sum(
        [(1 - alpha) * np.asarray(quality, dtype=np.float64), alpha * np.asarray(learnability, np.float64)]
    )


def weighted_sum(terms: Sequence[FloatArray]) -> FloatArray:
    """Return the sum of terms, (N, n) each; neighbours that differ by no more than rounding tie (`combine`)."""
    total = functools.reduce(np.add, terms)
    # where terms cancel, the sum is nothing but their rounding
    sizes = [_magnitude(np.where(np.isnan(total), np.nan, term)) for term in (*terms, total)]
    return _settle(total, ROUNDING * functools.reduce(np.maximum, sizes))


def rank_rewards(rewards: ArrayLike) -> IntArray:
    """Rank the rewards of each prompt, (N, n) -> (N, n): 1 is best, equal rewards share the better rank.

    A missing cell has rank 0. Example: [0.5, 1, 1, NaN] has the ranks [3, 1, 1, 0].
    """
    matrix = np.asarray(rewards, dtype=np.float64)
    return np.where(np.isnan(matrix), 0, _count(matrix, np.less) + 1).astype(np.int64)


def recombine(
    columns: Mapping[str, Sequence[Any]],
    alpha: float,
    normalisation: How = "minmax",
    measure: Measure = "mean_logprob",
    in_part: bool = False,
    near_tie: float = NOISE,
) -> dict[str, list[Any]]:
    """Make the columns `quality_reward`, `learnability_reward`, `reward` and `rank` of a rewards dataset.

    Args:
        columns: `prompt_id`, `teacher`, `quality_raw` and what `learnability` reads; one row per (prompt, teacher)
            cell, in any order. A row without `num_tokens`, where others have them, is of a teacher that failed.
        alpha, normalisation, measure, near_tie: see `combine`, `normalise` and `learnability`, which may raise.
        in_part: cells are missing by design. Rewards are then normalised over all cells of the prompt, the missing
            ones as `fill` predicts them; else the better of two poor teachers would count as much as the best of all.
            By default they are normalised over the measured cells.

    Returns:
        The four columns, one value per row; None where a reward is missing.
    """
    teachers = list(dict.fromkeys(columns["teacher"]))
    prompts, cells = _cells(columns["prompt_id"], columns["teacher"], teachers)
    raw = numbers(columns, "quality_raw"), learnability(columns, measure)
    size = len(prompts), len(teachers)
    measured = [_matrix(values, cells, size) for values in raw]
    measured[1] = as_the_worst(measured[1], _matrix(unanswered(columns), cells, size) == 1)
    scaled = (normalise(fill(matrix) if in_part else matrix, normalisation, near_tie) for matrix in measured)
    quality, learned = (np.where(np.isnan(old), np.nan, new) for old, new in zip(measured, scaled, strict=True))
    reward = combine(quality, learned, alpha)
    rewards = {"quality_reward": quality, "learnability_reward": learned, "reward": reward}
    ranks = rank_rewards(reward).ravel()[cells].tolist()
    return {name: _nullable(matrix.ravel()[cells]) for name, matrix in rewards.items()} | {
        "rank": [rank or None for rank in ranks]
    }


def fill(values: ArrayLike) -> FloatArray:
    """Predict the missing cells of a matrix as prompt effect + teacher effect, (N, n) -> (N, n).

    The two effects are fitted in turn, each the mean of what the other leaves. A prompt has few cells, so its effect
    is drawn to 0, as if it had one more cell of no effect. A prompt or a teacher without any measured cell stays
    missing. No prediction is below the least or above the largest measured cell: a quality from 0 to 1 is never -0.2,
    which would draw the measured ones together. Example: [[1, 0.4], [0.5, NaN]] gets 0.4 in the missing cell, where
    the sum of effects is 0.1504.
    """
    matrix = np.asarray(values, dtype=np.float64)
    measured = ~np.isnan(matrix)
    by_prompt, by_teacher = measured.sum(axis=1, keepdims=True), measured.sum(axis=0)
    prompt = np.zeros((len(matrix), 1))
    teacher = np.zeros(matrix.shape[1])
    for _ in range(FITS):
        teacher = np.nansum(matrix - prompt, axis=0) / np.maximum(by_teacher, 1)
        prompt = np.nansum(matrix - teacher, axis=1, keepdims=True) / (by_prompt + 1)
    predictable = (by_prompt > 0) & (by_teacher > 0)
    if measured.any():
        prompt = np.clip(prompt + teacher, matrix[measured].min(), matrix[measured].max())
    return np.where(measured, matrix, np.where(predictable, prompt, np.nan))


def to_matrix(
    prompt_ids: Sequence[str], teachers: Sequence[str], values: Sequence[float | None], pool: Sequence[str]
) -> tuple[list[str], FloatArray]:
    """Turn rows of (prompt, teacher, value) into a matrix.

    Returns the prompts in order of first appearance and the matrix (num_prompts, num_teachers), columns as in `pool`,
    NaN where there is no row or its value is None.

    Raises:
        InputError: a teacher is not in the pool, a cell has two rows, or a value is not finite.
    """
    columns = {"prompt_id": prompt_ids, "teacher": teachers, "value": values}
    prompts, cells = _cells(prompt_ids, teachers, pool)
    return prompts, _matrix(numbers(columns, "value"), cells, (len(prompts), len(pool)))


def reward_matrix(
    columns: Mapping[str, Sequence[Any]], pool: Sequence[str], alpha: float | None
) -> tuple[list[str], FloatArray]:
    """Turn the columns of a rewards dataset into prompts and a reward matrix, as `to_matrix` does.

    With an `alpha` the quality and learnability rewards are combined by it; None takes the stored `reward`.

    Raises:
        InputError: see `to_matrix` and `combine`.
    """
    ids, teachers = columns["prompt_id"], columns["teacher"]
    if alpha is None:
        return to_matrix(ids, teachers, columns["reward"], pool)
    order, quality = to_matrix(ids, teachers, columns["quality_reward"], pool)
    _, learnability = to_matrix(ids, teachers, columns["learnability_reward"], pool)
    return order, combine(quality, learnability, alpha)


def numbers(columns: Mapping[str, Sequence[Any]], name: str) -> FloatArray:
    """Return one column of a rewards dataset: null becomes NaN; NaN and beyond `LARGEST` raise an `InputError`."""
    values = columns[name]
    array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    for row in np.flatnonzero(~(np.abs(array) <= LARGEST)):  # true of NaN, too
        if values[row] is not None:
            raise InputError(
                f"the rewards hold {values[row]} as `{name}` of prompt {columns['prompt_id'][row]} and teacher "
                f"`{columns['teacher'][row]}`, a finite number up to {LARGEST:g} is needed, or null where it is "
                "missing; score that response again or leave it out"
            )
    return array


def _cells(prompt_ids: Sequence[str], teachers: Sequence[str], pool: Sequence[str]) -> tuple[list[str], IntArray]:
    """Return the prompts in order of first appearance, and each row's place in the flattened matrix."""
    rows = {prompt_id: index for index, prompt_id in enumerate(dict.fromkeys(prompt_ids))}
    columns = {teacher: index for index, teacher in enumerate(pool)}
    unknown = sorted(set(teachers) - set(columns))
    if unknown:
        raise InputError(
            f"the rewards name the teacher `{unknown[0]}`, the pool holds {', '.join(pool)}; "
            f"add it to `teachers`, or score the pool's responses anew"
        )
    places = (rows[p] * len(pool) + columns[t] for p, t in zip(prompt_ids, teachers, strict=True))
    cells = np.fromiter(places, dtype=np.int64)
    counts = np.bincount(cells, minlength=len(rows) * len(pool))
    if counts.size and counts.max() > 1:
        row, column = divmod(int(counts.argmax()), len(pool))
        raise InputError(
            f"the rewards hold {counts.max()} rows for prompt {list(rows)[row]} and teacher `{pool[column]}`, "
            f"one is needed; keep the selected response only"
        )
    return list(rows), cells


def _matrix(values: FloatArray, cells: IntArray, size: tuple[int, int]) -> FloatArray:
    """Put values at their places in the flattened matrix; NaN elsewhere."""
    matrix = np.full(size, np.nan)
    matrix.flat[cells] = values
    return matrix


def _nullable(values: FloatArray) -> list[float | None]:
    """Return the values as a list with None for NaN."""
    return [None if value != value else value for value in values.tolist()]


def _magnitude(matrix: FloatArray) -> FloatArray:
    """Return the largest absolute value of each row, (N, 1); 0 for a row without any."""
    return np.nan_to_num(np.abs(matrix)).max(axis=1, keepdims=True, initial=0.0)


def _settle(matrix: FloatArray, tolerance: ArrayLike) -> FloatArray:
    """Tie a row's neighbours in order, in chains, that differ by at most `tolerance` (or (N, 1)), to the least."""
    order = np.argsort(matrix, axis=1)
    ordered = np.take_along_axis(matrix, order, axis=1)
    apart = np.ones(matrix.shape, dtype=bool)
    apart[:, 1:] = ~(np.diff(ordered, axis=1) <= tolerance)  # a missing cell, sorted last, is apart from all
    least = np.maximum.accumulate(np.where(apart, np.arange(matrix.shape[1]), 0), axis=1)
    settled = np.empty_like(matrix)
    np.put_along_axis(settled, order, np.take_along_axis(ordered, least, axis=1), axis=1)
    return settled


def _count(matrix: FloatArray, compare: np.ufunc) -> IntArray:
    """Count the cells of its row that each cell compares to, (N, n); one teacher at a time, to save memory."""
    counts = np.zeros(matrix.shape, dtype=np.int64)
    for column in matrix.T:
        counts += compare(matrix, column[:, None])
    return counts
