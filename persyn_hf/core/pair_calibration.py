"""Measure how well a router's scores predict which of two teachers is better, and fit the temperature that mends it.

The score of i minus that of j, divided by the temperature, stands for the log-odds that i is preferred (paper Eq. 3).
So scores that are rewards predict preferences, too, once a temperature was fitted on other prompts. Example: rewards
0.8 and 0.7 at a temperature of 0.1 mean log-odds of 1, a probability of 0.731.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.confidence import reliability
from persyn_hf.core.pairs import TIE


BINS = 15
WIDEST = 100.0  # how far the root mean square of the log-odds may lie from 1, either way


class Pairs(NamedTuple):
    """All measured pairs of teachers, each in both orientations, as arrays of one length.

    difference: score of the first minus score of the second. preferred: 1 where the first is better, 0 where the
    second is, 0.5 for a tie.
    """

    difference: FloatArray
    preferred: FloatArray


def preference_pairs(scores: ArrayLike, rewards: ArrayLike) -> Pairs:
    """List the measured pairs of scores and rewards (N, n); a pair with a NaN reward is left out."""
    rewards = np.asarray(rewards, dtype=np.float64)
    scores = np.broadcast_to(np.asarray(scores, dtype=np.float64), rewards.shape)
    first, second = np.triu_indices(rewards.shape[1], k=1)
    gap = rewards[:, first] - rewards[:, second]
    measured = ~np.isnan(gap)
    difference, gap = (scores[:, first] - scores[:, second])[measured], gap[measured]
    preferred = np.where(np.abs(gap) <= TIE, 0.5, (gap > 0).astype(np.float64))
    return Pairs(np.concatenate([difference, -difference]), np.concatenate([preferred, 1 - preferred]))


def fit_temperature(pairs: Pairs) -> float | None:
    """Fit the temperature of least cross-entropy; None where nothing was measured or all scores are equal.

    The loss is convex in 1 / temperature, so bisection finds where its slope is 0. The search is bounded by `WIDEST`:
    scores that order every pair rightly ask for temperature 0, and scores that order them wrongly for infinity.
    """
    size = float(np.sqrt((pairs.difference**2).mean())) if len(pairs.difference) else 0.0
    if size == 0:
        return None
    low, high = -np.log(WIDEST), np.log(WIDEST)
    for _ in range(60):
        middle = (low + high) / 2
        slope = (pairs.difference * (_sigmoid(pairs.difference * np.exp(middle) / size) - pairs.preferred)).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(size / np.exp(middle))


def preference_bins(pairs: Pairs, temperature: float = 1.0) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error of pairs, and the bins that hold any.

    A bin has its mean prediction (`predicted`), the share that was preferred (`share`), and its number of `pairs`.
    """
    error, rows = reliability(_sigmoid(pairs.difference / temperature), pairs.preferred, BINS)
    return error, [{"predicted": row["predicted"], "share": row["found"], "pairs": row["prompts"]} for row in rows]


def _sigmoid(values: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-values)) without overflow."""
    return 1 / (1 + np.exp(-np.clip(values, -500, 500)))
