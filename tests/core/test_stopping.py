"""When another round of calibration pays: the rule by hand, and what it takes for a perfect router's gain."""

import numpy as np
import pytest

from persyn_hf.core.probe import FEWEST
from persyn_hf.core.stopping import look_ahead, perfect_gain


def test_a_further_cell_brings_at_most_what_a_cell_has_brought_so_far():
    """30 gains of 0.2 and 30 of 0 in 2 folds, a perfect router gains 0.1: mean 0.1, squares 60 * 0.01 + 2 * 0.01 =
    0.62, variance 0.62 / 61 / 62 * (1 + 2) = 0.0004918, upper end 0.1 + 1.6449 * 0.022176 = 0.13648. After 400 cells
    and before 1,000 pool prompts a cell brings 0.13648 * 1000 / 400 = 0.3412."""
    gains = np.repeat([0.2, 0.0], 30)
    found = look_ahead(gains, 2, 0.1, cells=400, pool=1000, price=0.3)
    assert found.gain.value == pytest.approx(0.1) and found.gain.high == pytest.approx(0.13648, abs=1e-5)
    assert found.per_cell == pytest.approx(0.3412, abs=1e-4) and not found.stop
    assert look_ahead(gains, 2, 0.1, cells=400, pool=1000, price=0.35).stop
    assert look_ahead(gains, 2, 0.1, cells=400, pool=2000, price=0.35).stop is False  # twice the pool, twice the worth


def test_a_router_that_never_left_the_best_teacher_has_tried_little():
    """40 zeros in 5 folds, a perfect router gains 0.2: squares 2 * 0.04, variance 0.08 / 41 / 42 * 2.25."""
    found = look_ahead(np.zeros(40), 5, 0.2, cells=480, pool=400, price=0.05)
    assert found.gain.high == pytest.approx(1.6449 * np.sqrt(0.08 / 41 / 42 * 2.25))
    assert found.per_cell == pytest.approx(found.gain.high * 400 / 480) and found.stop


def test_a_loss_brings_nothing_and_few_prompts_say_nothing():
    assert look_ahead(np.full(200, -0.5), 5, 0.1, cells=100, pool=400, price=1e-6).per_cell == 0
    assert look_ahead(np.zeros(FEWEST - 1), 5, 0.1, cells=100, pool=400, price=1e6) is None


def test_a_perfect_router_takes_the_best_measured_teacher():
    """The first teacher has the best mean, 0.7. Where it is measured, the best has 0 and 0.6 more: 0.3 on average."""
    rewards = np.array([[1.0, 0.2, np.nan], [0.4, 1.0, 0.0], [np.nan, 0.5, 0.5]])
    assert perfect_gain(rewards) == pytest.approx(0.3)
