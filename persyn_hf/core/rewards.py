"""Rewards of parallel responses: normalised per prompt across teachers, then combined (PerSyn, section 2.1).

A matrix has the shape (num_prompts, num_teachers), columns in the order of the pool; NaN is a missing cell: no
response, or one that could not be judged.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persyn_hf.errors import InputError, check


FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
How = Literal["minmax", "zscore", "rank", "none"]

CONSTANT = 1e-6  # a row whose spread is below this share of its largest magnitude differs by rounding only


def normalise(values: ArrayLike, how: How = "minmax") -> FloatArray:
    """Normalise each prompt's values across teachers (the paper's footnote 2); missing cells stay missing.

    `minmax`: worst 0, best 1. `zscore`: mean 0, population standard deviation 1. `rank`: worst 0, best 1, evenly
    spaced, ties share their mean. `none`: unchanged. But for `none` a constant row becomes all 0: where every
    teacher is right (or wrong), quality says nothing about which to prefer.
    """
    matrix = np.array(values, dtype=np.float64)
    measured = ~np.isnan(matrix)
    if np.isinf(matrix).any():
        row, column = np.argwhere(np.isinf(matrix))[0]
        raise InputError(
            f"rewards must be finite or missing, found {matrix[row, column]} for prompt number {row}, teacher "
            f"number {column}; score that response again or leave it out"
        )
    if how == "none":
        return matrix
    low = np.where(measured, matrix, np.inf).min(axis=1, keepdims=True)
    high = np.where(measured, matrix, -np.inf).max(axis=1, keepdims=True)
    varies = high - low > CONSTANT * np.maximum(np.abs(low), np.abs(high))
    filled = np.where(measured & varies, matrix, 0.0)
    count = np.maximum(measured.sum(axis=1, keepdims=True), 1)
    if how == "minmax":
        scaled = (filled - np.where(varies, low, 0.0)) / np.where(varies, high - low, 1.0)
    elif how == "zscore":
        centred = np.where(measured, filled - filled.sum(axis=1, keepdims=True) / count, 0.0)
        deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
        scaled = centred / np.where(varies, deviation, 1.0)
    elif how == "rank":
        below = (matrix[:, :, None] > matrix[:, None, :]).sum(axis=2)
        tied = (matrix[:, :, None] == matrix[:, None, :]).sum(axis=2)
        scaled = (below + (tied - 1) / 2) / np.maximum(count - 1, 1)
    else:
        check(False, "normalise", how, "minmax, zscore, rank or none")
    return np.where(measured, np.where(varies, scaled, 0.0), np.nan)


def combine(quality: ArrayLike | None, learnability: ArrayLike | None, alpha: float) -> FloatArray:
    """Paper Eq. 2: (1 - alpha) * quality + alpha * learnability, both normalised.

    With alpha 0 learnability may be missing altogether, with alpha 1 quality may be.
    """
    check(0 <= alpha <= 1, "alpha", alpha, "a number from 0 to 1")
    if alpha == 0 and quality is not None:
        return np.array(quality, dtype=np.float64)
    if alpha == 1 and learnability is not None:
        return np.array(learnability, dtype=np.float64)
    if quality is None or learnability is None:
        missing, only = ("quality", 1) if quality is None else ("learnability", 0)
        raise InputError(f"alpha {alpha} needs {missing} rewards, found none; measure them, or set alpha {only}")
    return (1 - alpha) * np.asarray(quality, dtype=np.float64) + alpha * np.asarray(learnability, dtype=np.float64)


def rank_rewards(rewards: ArrayLike) -> IntArray:
    """Rank per prompt: 1 is best, equal rewards share the better rank, a missing cell has 0."""
    matrix = np.asarray(rewards, dtype=np.float64)
    better = (matrix[:, None, :] > matrix[:, :, None]).sum(axis=2)
    return np.where(np.isnan(matrix), 0, better + 1).astype(np.int64)


def to_matrix(
    prompt_ids: Sequence[str], teachers: Sequence[str], values: Sequence[float | None], pool: Sequence[str]
) -> tuple[list[str], FloatArray]:
    """Rows of (prompt, teacher, value) -> prompts in order of first appearance, matrix with columns as in `pool`."""
    rows = {prompt_id: index for index, prompt_id in enumerate(dict.fromkeys(prompt_ids))}
    columns = {teacher: index for index, teacher in enumerate(pool)}
    unknown = sorted(set(teachers) - set(columns))
    if unknown:
        raise InputError(
            f"the rewards name the teacher `{unknown[0]}`, the pool holds {', '.join(pool)}; "
            f"add it to `teachers`, or score the pool's responses anew"
        )
    cells = np.array([rows[p] * len(pool) + columns[t] for p, t in zip(prompt_ids, teachers, strict=True)], dtype=int)
    counts = np.bincount(cells, minlength=len(rows) * len(pool))
    if counts.size and counts.max() > 1:
        row, column = divmod(int(counts.argmax()), len(pool))
        raise InputError(
            f"the rewards hold {counts.max()} rows for prompt {list(rows)[row]} and teacher `{pool[column]}`, "
            f"one is needed; keep the selected response only"
        )
    matrix = np.full(len(rows) * len(pool), np.nan)
    matrix[cells] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return list(rows), matrix.reshape(len(rows), len(pool))


def reward_matrix(
    columns: Mapping[str, Sequence[Any]], pool: Sequence[str], alpha: float | None
) -> tuple[list[str], FloatArray]:
    """Columns of a rewards dataset -> prompts and matrix, combined with `alpha`; None takes the stored `reward`."""
    ids, teachers = columns["prompt_id"], columns["teacher"]
    if alpha is None:
        return to_matrix(ids, teachers, columns["reward"], pool)
    order, quality = to_matrix(ids, teachers, columns["quality_reward"], pool)
    _, learnability = to_matrix(ids, teachers, columns["learnability_reward"], pool)
    return order, combine(quality, learnability, alpha)
