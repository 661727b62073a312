"""The agreement of a judge with known verdicts, by numbers worked by hand and against other implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from persyn_hf.core.verdict_agreement import orders, right_or_wrong, verdict_agreement


def everything(number: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((number, number), dtype=bool), np.ones((1, number))


def test_orders_by_hand() -> None:
    """Of (1, 2), (1, 3), (2, 3) the judge ties the first and orders the others alike."""
    share, tau = orders(np.array([1.0, 2, 3]), np.array([5.0, 5, 9]), *everything(3))
    assert share[0] == pytest.approx(2.5 / 3)
    assert tau[0] == pytest.approx(2 / 6**0.5)


def test_right_or_wrong_by_hand() -> None:
    known, judged = np.array([True, True, False, False]), np.array([True, False, False, False])
    accuracy, kappa = right_or_wrong(known, judged, np.array([[1.0, 1, 1, 1], [2, 0, 1, 1]]))
    assert accuracy.tolist() == [0.75, 1]
    assert kappa.tolist() == [0.5, 1]


def test_only_answers_to_one_prompt_are_compared_within() -> None:
    known, judged, prompts = [1, 0, 1, 0], [0.2, 0.1, 9.2, 9.1], ["p", "p", "q", "q"]
    rng = np.random.default_rng(0)
    assert verdict_agreement(known, judged, prompts, rng, within=True).ordered.value == 1
    assert verdict_agreement(known, judged, prompts, rng, within=False).ordered.value == 0.75


def test_intervals_hold_the_value_and_rows_in_the_middle_are_left_out() -> None:
    rng = np.random.default_rng(1)
    known = rng.integers(0, 2, 100)
    judged = np.where(rng.random(100) < 0.2, 1 - known, known).astype(float)
    found = verdict_agreement(known, judged, np.arange(100), rng, within=False, middle=0.5)
    assert found.accuracy is not None
    assert found.kappa is not None
    assert found.accuracy.value == pytest.approx((known == judged).mean())
    for interval in (found.accuracy, found.kappa, found.ordered, found.tau):
        assert interval.low < interval.value < interval.high
    undecided = np.where(np.arange(100) < 90, 0.5, judged)
    few = verdict_agreement(known, undecided, np.arange(100), rng, within=False, middle=0.5)
    assert few.accuracy is not None
    assert few.accuracy.value == pytest.approx((known == judged)[90:].mean())


def test_nothing_is_known_of_nothing() -> None:
    found = verdict_agreement([], [], [], np.random.default_rng(0), within=False, middle=0.5)
    assert found.rows == 0
    assert np.isnan(found.ordered.value)
    assert found.kappa is not None
    assert np.isnan(found.kappa.value)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_tau_is_that_of_scipy(rows: list[tuple[int, int]]) -> None:
    known, judged = np.array(rows, dtype=float).T
    _, tau = orders(known, judged, *everything(len(rows)))
    assert tau[0] == pytest.approx(kendalltau(known, judged).statistic, nan_ok=True)
