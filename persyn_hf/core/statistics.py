"""Bootstrap intervals over prompts or benchmark items. The generator is passed in, so a run can be repeated."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.rewards import FloatArray


RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and the bounds of its percentile bootstrap interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Mean difference of two paired samples, its interval and the two-sided bootstrap p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def means(columns: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean of each column over its finite entries: (N, M) -> (M,); NaN for a column without any."""
    totals = _weighed(columns, weights).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.divide(*np.split(totals, 2))


def bootstrap_means(
    columns: FloatArray, rng: np.random.Generator, resamples: int = RESAMPLES, weights: FloatArray | None = None
) -> FloatArray:
    """Column means of `resamples` samples of the rows, drawn with replacement: (N, M) -> (resamples, M).

    All columns share the draws, so differences and ratios of columns stay paired. NaN entries do not count; `weights`
    (N,): how often a row counts in a mean, once by default.
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
    """What to add up for a mean: (N, 2M), the weighted entries and beside them their weights; 0 for NaN."""
    finite = np.isfinite(columns)
    stacked = np.hstack([np.where(finite, columns, 0.0), finite])
    return stacked if weights is None else stacked * weights[:, None]


def percentile_bounds(replicates: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper bound that hold `level` of the finite replicates."""
    finite = replicates[np.isfinite(replicates)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    values: ArrayLike, rng: np.random.Generator, *, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Mean of `values` (N,), NaN left out, with its percentile bootstrap interval."""
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    return Interval(float(sample.mean()), *percentile_bounds(bootstrap_means(sample[:, None], rng, resamples), level))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, rng: np.random.Generator, *, level: float = 0.95, resamples: int = RESAMPLES
) -> Comparison:
    """Mean of a - b over the same items (N,), (N,), with interval and p-value; pairs with a NaN are left out."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return Comparison(float("nan"), float("nan"), float("nan"), float("nan"))
    replicates = bootstrap_means(difference[:, None], rng, resamples)
    beyond = min((replicates <= 0).sum(), (replicates >= 0).sum())
    p_value = min(1.0, 2 * float(beyond + 1) / (resamples + 1))
    return Comparison(float(difference.mean()), *percentile_bounds(replicates, level), p_value)
