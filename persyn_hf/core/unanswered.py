"""Measure what a teacher has not answered: as badly as the worst answer to the same prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.arrays import FloatArray


def unanswered(columns: Mapping[str, Sequence[Any]]) -> FloatArray:
    """Return 1 for each row of a teacher that did not answer, else 0, (num_responses,)."""
    tokens = columns.get("num_tokens", ())
    none = np.array([number is None for number in tokens], dtype=np.float64)
    return none if len(none) and not none.all() else np.zeros(len(columns["prompt_id"]))


def as_the_worst(matrix: FloatArray, cells: NDArray[np.bool_]) -> FloatArray:
    """Give these cells the least of their prompt, or, where nothing of it is measured, of all."""
    if not cells.any() or np.isnan(matrix).all():
        return matrix
    lowest = np.fmin.reduce(matrix, axis=1, keepdims=True)
    return np.where(cells, np.where(np.isnan(lowest), np.nanmin(matrix), lowest), matrix)
