"""Make bootstrap intervals over prompts or benchmark items. The generator is passed in, so a run can be repeated."""

from typing import NamedTuple

import numpy as np

from persyn_hf.core.arrays import FloatArray


RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and the bounds of its percentile bootstrap interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float


def means(columns: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean of each column over its finite entries, (N, M) -> (M,); NaN for a column without any.

    weights (N,): how often a row counts; default once.
    """
    totals = _weighed(columns, weights).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.divide(*np.split(totals, 2))


def bootstrap_means(
    columns: FloatArray, rng: np.random.Generator, resamples: int = RESAMPLES, weights: FloatArray | None = None
) -> FloatArray:
    """Return the column means of `resamples` samples of N rows, drawn with replacement: (N, M) -> (resamples, M).

    All columns share the draws, so differences and ratios of columns stay paired. NaN entries do not count. weights
    (N,): how often a row counts in a mean; default once.
    """
    num_rows, num_columns = columns.shape
    stacked = _weighed(columns, weights)
    block = max(1, 4_000_000 // max(num_rows, 1))  # draws held at a time: 32 MB
    parts = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = rng.integers(0, num_rows, size=(size, num_rows)) + num_rows * np.arange(size)[:, None]
        counts = np.bincount(draws.ravel(), minlength=size * num_rows).reshape(size, num_rows)
        parts.append(counts @ stacked)
    totals = np.concatenate(parts)
    with np.errstate(invalid="ignore"):
        return totals[:, :num_columns] / totals[:, num_columns:]


def _weighed(columns: FloatArray, weights: FloatArray | None) -> FloatArray:
    """Return what to add up for means, (N, 2M): the weighted entries, then their weights; both are 0 for NaN."""
    finite = np.isfinite(columns)
    stacked = np.hstack([np.where(finite, columns, 0.0), finite])
    return stacked if weights is None else stacked * weights[:, None]


def percentile_bounds(replicates: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds between which the middle share `level` of the finite replicates lies; NaN without any."""
    finite = replicates[np.isfinite(replicates)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
