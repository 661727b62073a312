"""Measure how far a judge's verdicts agree with verdicts that are known, with intervals over prompts.

All measures are ratios of sums over rows or pairs of rows, so a bootstrap sample is a weight per row: how often the
row was drawn. Rows of one prompt are drawn together.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.statistics import RESAMPLES, Interval, percentile_bounds


class Agreement(NamedTuple):
    """The agreement of a judge with known verdicts.

    ordered: the share of the pairs that are known to differ which the judge orders alike, ties as halves; where what
    is known is right or wrong, the area under the ROC curve. tau: Kendall's tau-b. Both are over all rows, or over
    rows of the same prompt. accuracy and kappa (Cohen's) are of right and wrong; None where these are not known.
    """

    rows: int
    ordered: Interval
    tau: Interval
    accuracy: Interval | None = None
    kappa: Interval | None = None


def verdict_agreement(
    known: ArrayLike,
    judged: ArrayLike,
    prompts: ArrayLike,
    rng: np.random.Generator,
    *,
    within: bool,
    middle: float | None = None,
) -> Agreement:
    """Measure the agreement of N rows.

    Args:
        known: (N,) higher is better.
        judged: (N,) the judge's; no NaN.
        prompts: (N,) the number of each row's prompt.
        rng: of the bootstrap.
        within: only rows of the same prompt are compared.
        middle: what the judge calls right is above it, wrong below; rows at it count in neither. None: right and wrong
            are not known.
    """
    truth, values = np.asarray(known, dtype=np.float64), np.asarray(judged, dtype=np.float64)
    names, place = np.unique(np.asarray(prompts), return_inverse=True)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES) if len(names) else None
    weights = np.ones((1, len(truth))) if draws is None else np.vstack([np.ones(len(truth)), draws[:, place]])
    pairs = (place[:, None] == place[None, :]) if within else np.ones((len(truth), len(truth)), dtype=bool)
    ordered, tau = orders(truth, values, pairs, weights)
    accuracy, kappa = None, None
    if middle is not None:
        decided = values != middle
        both = right_or_wrong(truth[decided] > 0, values[decided] > middle, weights[:, decided])
        accuracy, kappa = map(_interval, both)
    return Agreement(len(truth), _interval(ordered), _interval(tau), accuracy, kappa)


def orders(
    known: FloatArray, judged: FloatArray, pairs: NDArray[np.bool_], weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the share of pairs that are ordered alike, and tau-b, for each row of weights: (R, N) -> (R,), (R,).

    Example: known (1, 2, 3), judged (5, 5, 9): of three pairs two are ordered alike and one ties in what is judged, so
    the share is 2.5 / 3, and tau-b is 2 / sqrt(3 * 2) = 0.816.
    """
    first, second = (np.sign(np.subtract.outer(each, each)) * pairs for each in (known, judged))
    agreed = _over_pairs(first * second, weights)
    differ = _over_pairs(np.abs(first), weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (agreed + differ) / 2 / differ, agreed / np.sqrt(differ * _over_pairs(np.abs(second), weights))


def _over_pairs(matrix: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted sum of a matrix over its pairs, for each row of weights."""
    total: FloatArray = np.einsum("rn,rn->r", weights @ matrix, weights)
    return total


def right_or_wrong(
    known: NDArray[np.bool_], judged: NDArray[np.bool_], weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return accuracy and Cohen's kappa for each row of weights: (R, N) -> (R,), (R,).

    Example: known (1, 1, 0, 0), judged (1, 0, 0, 0): accuracy 3/4; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2, so kappa is
    (3/4 - 1/2) / (1/2) = 1/2.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        same = weights @ (known == judged) / total
        right, called = weights @ known / total, weights @ judged / total
        chance = right * called + (1 - right) * (1 - called)
        return same, np.where(chance < 1, (same - chance) / (1 - chance), np.nan)


def _interval(values: FloatArray) -> Interval:
    """Return the first value, which is of the rows themselves, with the bounds of the others, which are of samples."""
    return Interval(float(values[0]), *percentile_bounds(values[1:]))
