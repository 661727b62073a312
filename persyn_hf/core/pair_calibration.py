"""How well the scores of a router predict which of two teachers is better, and the temperature that mends it.

The score of i minus that of j, divided by the temperature, stands for the log-odds that i is preferred (paper Eq. 3);
so scores that are rewards predict preferences, too, once a temperature was fitted on other prompts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.confidence import reliability
from persyn_hf.core.pairs import TIE
from persyn_hf.core.rewards import FloatArray


BINS = 15
WIDEST = 100.0  # how far the root mean square of the log-odds may lie from 1, either way


class Pairs(NamedTuple):
    """Of all measured pairs, in both orientations: difference of the scores; 1: the first is better, 0.5: a tie."""

    difference: FloatArray
    preferred: FloatArray


def preference_pairs(scores: ArrayLike, rewards: ArrayLike) -> Pairs:
    """Scores and rewards (N, n), NaN rewards left out."""
    rewards = np.asarray(rewards, dtype=np.float64)
    scores = np.broadcast_to(np.asarray(scores, dtype=np.float64), rewards.shape)
    first, second = np.triu_indices(rewards.shape[1], k=1)
    gap = rewards[:, first] - rewards[:, second]
    measured = ~np.isnan(gap)
    difference, gap = (scores[:, first] - scores[:, second])[measured], gap[measured]
    preferred = np.where(np.abs(gap) <= TIE, 0.5, (gap > 0).astype(np.float64))
    return Pairs(np.concatenate([difference, -difference]), np.concatenate([preferred, 1 - preferred]))


def fit_temperature(pairs: Pairs) -> float | None:
    """The temperature of least cross-entropy; None where nothing was measured or all scores are equal.

    The loss is convex in 1 / temperature, so its slope is followed to 0 by bisection, within `WIDEST`: scores that
    order everything rightly ask for temperature 0, those that order it wrongly for none at all.
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
    """Expected calibration error, and the bins that hold pairs: mean prediction, share that was preferred, pairs."""
    error, rows = reliability(_sigmoid(pairs.difference / temperature), pairs.preferred, BINS)
    return error, [{"predicted": row["predicted"], "share": row["found"], "pairs": row["prompts"]} for row in rows]


def _sigmoid(values: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-np.clip(values, -500, 500)))
