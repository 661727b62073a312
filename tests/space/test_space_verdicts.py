"""The intervals of the first screen against scipy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from persyn_hf.space.verdicts import interval


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_the_interval_of_a_share_is_wilsons(whole: int, share: float) -> None:
    part = round(share * whole)
    found = binomtest(part, whole).proportion_ci(method="wilson")
    assert interval(part, whole) == pytest.approx((found.low, found.high), abs=1e-12)
