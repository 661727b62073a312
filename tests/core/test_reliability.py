"""Krippendorff's alpha against the numbers that he published, and against its definition."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.reliability import Level, krippendorff_alpha


NONE = np.nan
# Computing Krippendorff's Alpha-Reliability (2011), section D: four observers, twelve units, values missing.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_example(level: Level, alpha: float) -> None:
    assert krippendorff_alpha(PUBLISHED, level) == pytest.approx(alpha, abs=5e-4)


def test_worked_by_hand() -> None:
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 4]]) == pytest.approx(36 / 41)
    assert krippendorff_alpha([[1, 5, 9], [1, 5, 9]]) == 1
    # Two units, each 1 and 2: observed 1; expected 2 * 2 * 2 / (4 * 3) = 2/3.
    assert krippendorff_alpha([[1, 2], [2, 1]]) == pytest.approx(1 - 1 / (2 / 3))


@pytest.mark.parametrize("table", [[[]], [[1, 2, 3]], [[1, NONE], [NONE, 2]], [[3, 3], [3, 3]], [[NONE], [NONE]]])
def test_it_is_not_defined_without_two_verdicts_on_a_unit_or_without_any_difference(table: list[list[float]]) -> None:
    assert np.isnan(krippendorff_alpha(table))


def naive(table: list[list[float]]) -> float:
    """Alpha by its definition: the mean squared difference within units, over that between all verdicts."""
    units = [[value for value in unit if value == value] for unit in zip(*table, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    everything = [value for unit in units for value in unit]
    within = sum(sum((a - b) ** 2 for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    between = sum((a - b) ** 2 for a, b in permutations(everything, 2)) / max(1, len(everything) - 1)
    return 1 - within / between if between else NONE


@given(st.lists(st.lists(st.one_of(st.integers(1, 5), st.none()), min_size=3, max_size=3), min_size=1, max_size=8))
def test_it_is_its_definition(units: list[list[int | None]]) -> None:
    table = [[NONE if value is None else float(value) for value in judge] for judge in zip(*units, strict=True)]
    assert krippendorff_alpha(table) == pytest.approx(naive(table), nan_ok=True)
