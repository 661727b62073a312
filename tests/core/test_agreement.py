"""Agreement of two students, worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from persyn_hf.core.agreement import agreement, reward_agreement


NAN = np.nan


def test_agreement_by_hand() -> None:
    """Allocations 3/4, 1/4 and 1/2, 1/2: chance is 3/8 + 1/8, and 3 of 4 agree."""
    found = agreement([0, 0, 0, 1], [0, 0, 1, 1], 3)
    assert found == pytest.approx((4, 0.75, 0.5, 0.5, 0.25))
    assert agreement([0, 1], [1, 0], 2) == pytest.approx((2, 0, 0.5, -1, 0))


def test_agreement_where_kappa_or_everything_is_undefined() -> None:
    assert agreement([1, 1], [1, 1], 2) == pytest.approx((2, 1, 1, NAN, 0), nan_ok=True)
    assert agreement([], [], 2) == pytest.approx((0, NAN, NAN, NAN, NAN), nan_ok=True)


def test_kappa_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    other[:90] = one[:90]
    assert agreement(one, other, 7).kappa == pytest.approx(cohen_kappa_score(one, other))


def test_reward_agreement_by_hand() -> None:
    """The same order; two of three pairs turned round; c is out, as one lacks it; all equal for one; nothing shared.

    Tau of the second is (1 - 2) / 3, of the third -1; the fourth has none. The best are a, b, b, and where all are
    equal b, which has the highest mean, against a, a, a, a.
    """
    one = [[0.9, 0.5, 0.1], [0.5, 0.9, 0.1], [0.1, 0.9, NAN], [0.5, 0.5, 0.5], [NAN, 0.1, 0.2]]
    other = [[0.8, 0.4, 0.2], [0.9, 0.1, 0.5], [0.9, 0.1, 1.0], [1.0, 0.0, 0.0], [0.3, NAN, NAN]]
    found, tau = reward_agreement(one, other)
    assert tau == pytest.approx((1 - 1 / 3 - 1) / 3)
    assert found == pytest.approx((4, 0.25, 0.25, 0, 0.75))
    nothing, tau = reward_agreement(np.empty((0, 2)), np.empty((0, 2)))
    assert nothing.prompts == 0 and np.isnan(tau)
