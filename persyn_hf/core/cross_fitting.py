"""Estimate what a router gains over the best single teacher, without prompts that are set apart to judge it.

The calibration prompts are dealt into folds. A router that is trained on the others scores each fold, and the best
single teacher is the best by mean reward of the others (cross-fitting). A prompt on which the router takes that
teacher gains 0. One on which it leaves it is known where both are measured. Known ones stand for those that are not,
by inverse propensity: the prompts that leave are sorted by how far the router's scores are apart into `STRATA` of
equal size, and in each the known ones count in proportion (post-stratification). That allows for cells that were
chosen by what a router expects, as in a calibration in part.

The interval is that of `core.probe.corrected_interval`, as routers of two folds share most of their prompts.
"""

import numpy as np

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.probe import corrected_interval
from persyn_hf.core.statistics import Interval


STRATA, FEWEST = 4, 10  # strata at most; known prompts in each at least
WIDTH = 1.96  # half-width of an interval of 95 % in standard errors


def cross_fitted_gain(
    scores: FloatArray, means: FloatArray, rewards: FloatArray, folds: int | None
) -> Interval | None:
    """Return what the router gains over the best single teacher in reward per prompt; None: no prompt says anything.

    Args:
        scores: (N, n) of routers that have not seen the prompt.
        means: (N, n), each teacher's mean reward over the prompts that this router has seen.
        rewards: (N, n), NaN where unmeasured.
        folds: of the cross-fitting; None: the one router that is judged has scored all of them.
    """
    values = gain_values(scores, means, rewards)
    if not len(values):
        return None
    best = rewards[np.arange(len(rewards)), means.argmax(axis=1)]
    known = ~np.isnan(best)
    unseen = float((np.nanmax(rewards[known], axis=1) - best[known]).mean()) if known.any() else 0.0
    return corrected_interval(values, folds, unseen, WIDTH)


def gain_values(scores: FloatArray, means: FloatArray, rewards: FloatArray) -> FloatArray:
    """Return a value for each prompt whose mean is the estimate, (N,); (0,) where the router's choices are not known.

    Example: of ten prompts the router leaves the best teacher on four. Two of these are known, with gains of 0.3 and
    -0.1, in one stratum of mean 0.1. The others count as 0.1, the known ones as 0.1 + 2 * 0.2 = 0.5 and 0.1 - 2 * 0.2
    = -0.3, and the six that stay as 0: a mean of 0.04.
    """
    rows, chosen, best = np.arange(len(rewards)), scores.argmax(axis=1), means.argmax(axis=1)
    gains = rewards[rows, chosen] - rewards[rows, best]
    leaves = np.flatnonzero(chosen != best)
    known = np.isfinite(gains[leaves])
    if len(leaves) and not known.any():
        return np.zeros(0)
    values = np.zeros(len(rewards))
    apart = scores[rows, chosen] - scores[rows, best]
    for stratum in _strata(apart[leaves], known):
        inside, there = leaves[stratum], known[stratum]
        mean = gains[inside[there]].mean()
        values[inside] = mean
        values[inside[there]] += (gains[inside[there]] - mean) * (len(inside) / there.sum())
    return values


def _strata(apart: FloatArray, known: FloatArray) -> list[IntArray]:
    """Deal prompts by how far scores are `apart` (M,) into strata that hold `FEWEST` known ones each, or into one."""
    order = np.argsort(apart, kind="stable")
    for number in range(STRATA, 1, -1):
        parts = np.array_split(order, number)
        if all(known[part].sum() >= FEWEST for part in parts):
            return parts
    return [order] if len(order) else []
