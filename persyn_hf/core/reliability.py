"""Measure how far judges agree: Krippendorff's alpha (Computing Krippendorff's Alpha-Reliability, 2011).

Alpha is 1 - observed / expected disagreement: 1 where judges always agree, 0 where they agree as values drawn from all
of theirs would. It takes any number of judges, and verdicts may be missing.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import FloatArray


Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(verdicts: ArrayLike, level: Level = "interval") -> float:
    """Return alpha of a table of verdicts (judges, units), NaN where one is missing; NaN where it is not defined.

    It is not defined where no unit has two verdicts, or all verdicts are the same. `level` says how far two values are
    apart: as squares of their difference (interval), by how many verdicts lie between them (ordinal), or not at all.

    Example: judges that say (1, 2, 3) and (1, 2, 4) of three units. Observed: the one pair that differs, by 1, counts
    twice over 6 verdicts, 2/6. Expected: the squared differences of all 30 ordered pairs of 1, 1, 2, 2, 3, 4 sum up to
    82, so 82/30. Alpha is 1 - (1/3) / (41/15) = 36/41 = 0.878.
    """
    table = np.asarray(verdicts, dtype=np.float64)
    told = ~np.isnan(table)
    table = table[:, told.sum(axis=0) > 1]
    values, codes = np.unique(table[~np.isnan(table)], return_inverse=True)
    if len(values) < 2:
        return np.nan
    coincidences = np.zeros((len(values), len(values)))
    places = np.full(table.shape, -1)
    places[~np.isnan(table)] = codes
    for unit in places.T:
        counts = np.bincount(unit[unit >= 0], minlength=len(values))
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    totals = coincidences.sum(axis=1)
    apart = _distances(values, totals, level)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return float(1 - (coincidences * apart).sum() / (expected * apart).sum())


def _distances(values: FloatArray, totals: FloatArray, level: Level) -> FloatArray:
    """Return the squared distances of values, (V, V)."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.subtract.outer(values, values) ** 2
    middle = np.cumsum(totals) - totals / 2  # between two values lie those between, and half of each of the two
    return np.subtract.outer(middle, middle) ** 2
