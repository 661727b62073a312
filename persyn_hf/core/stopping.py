"""Decide whether another round of calibration pays, by what the cells so far have brought.

A router learns less from each further cell (diminishing returns). So what a further cell brings is at most what a cell
has brought so far on average: the gain over the best single teacher, divided by the cells. The gain is that on prompts
which the router has not seen, and its upper limit counts: few prompts say little, and a stop is for good. It is summed
over the pool's prompts and compared with `price`, the reward that an answer is worth elsewhere.
"""

from typing import NamedTuple

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.probe import FEWEST, corrected_interval
from persyn_hf.core.statistics import Interval


class Outlook(NamedTuple):
    """What another round promises."""

    gain: Interval  # of the router over the best single teacher, in reward per prompt; of 90 %
    per_cell: float  # reward, summed over the pool, that a further cell brings at most
    stop: bool


def look_ahead(gains: FloatArray, folds: int, unseen: float, cells: int, pool: int, price: float) -> Outlook | None:
    """Weigh a further cell against its price; None where too few prompts say anything.

    Args:
        gains: (M,) of the router over the best single teacher on prompts that it was not trained on.
        folds: of the cross-validation that made them.
        unseen: the reward that a perfect router gains, see `corrected_interval`.
        cells: the number that is paid for so far.
        pool: the number of prompts that the router will send to a teacher.
        price: the reward, summed over the pool, that a cell must bring.

    Example: a gain of 0.09 from 0.05 to 0.13 after 700 cells, 1,000 pool prompts: a further cell brings
    0.13 * 1000 / 700 = 0.19 at most. With a price of 0.05 calibration goes on. A gain of 0.00 from -0.02 to 0.02 gives
    0.03, and calibration ends.
    """
    if len(gains) < FEWEST:
        return None
    gain = corrected_interval(gains, folds, unseen)
    per_cell = max(0.0, gain.high) * pool / cells
    return Outlook(gain, per_cell, per_cell < price)


def perfect_gain(rewards: FloatArray) -> float:
    """Return what the best measured teacher of each prompt has over the one of the best mean, (N, n), on average."""
    best = rewards[:, int(np.nanmean(rewards, axis=0).argmax())]
    known = ~np.isnan(best)
    return float((np.nanmax(rewards[known], axis=1) - best[known]).mean()) if known.any() else 0.0
