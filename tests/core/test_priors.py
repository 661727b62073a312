"""What a prior counts for: its scale and counts by hand, and that data overrule it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persyn_hf.core.partial_calibration import contend, predict, survivors
from persyn_hf.core.priors import MOST, Fitted, filled, fit_prior, means_with


A_B = np.array([[0.0, 1.0]] * 4)
REWARDS = np.array([[0.1, 0.7], [0.3, 0.5], [0.1, 0.7], [0.3, 0.5]])


def test_a_prior_is_put_on_the_scale_of_the_rewards():
    """B is ahead by 0.6, 0.2, 0.6, 0.2: slope 0.4, of which each prompt departs by 0.1 on either side. Its variance is
    0.08 / (8 - 4 - 1) / 2 = 0.01333, t^2 = 0.16 / 0.01333 = 12, and the slope 0.4 * 11 / 12."""
    fitted = fit_prior(A_B, REWARDS)
    assert fitted.slope == pytest.approx(0.4 * 11 / 12)
    assert fitted.expected[0] == pytest.approx([0.4 - 0.36667 / 2, 0.4 + 0.36667 / 2], abs=1e-5)
    assert fitted.counts == pytest.approx([MOST * 11 / 12] * 2)  # the means lie where they are expected
    other_scale = fit_prior(1000 * A_B - 70, REWARDS)
    assert other_scale.expected == pytest.approx(fitted.expected) and other_scale.slope * 1000 == pytest.approx(
        fitted.slope
    )


def test_the_count_is_the_variance_of_rewards_over_that_of_means_around_the_prior():
    """What is left of rewards has within each of three teachers a variance (two prompts 0.2 above, two 0.2
    below its mean: 0.16 / 3 = 0.0533) and the means 0.3, 0, -0.3, of variance 0.09. By chance alone means of four
    would have 0.0533 / 4: the count is 0.0533 / (0.09 - 0.0133) = 0.6957."""
    from persyn_hf.core.priors import _pseudo_count

    left = np.array([0.2, 0.2, -0.2, -0.2])[:, None] + np.array([0.3, 0.0, -0.3])
    assert _pseudo_count(left) == pytest.approx((0.16 / 3) / (0.09 - 0.16 / 12))
    assert _pseudo_count(left * 0.0) == MOST and _pseudo_count(left[:, :1]) == 0.0


def test_a_mean_is_moved_by_what_is_measured_as_if_the_prior_were_some_of_it():
    """Expected is 0.5 and the prior counts 20: twenty rewards of 0.6 give 0.55, 180 of them 0.59."""
    for number, mean in ((0, 0.5), (20, 0.55), (180, 0.59)):
        rewards = np.full((200, 1), np.nan)
        rewards[:number] = 0.6
        fitted = Fitted(np.full((200, 1), 0.5), np.array([20.0]), np.ones(200, dtype=bool), 1.0)
        assert means_with(fitted, rewards) == pytest.approx([mean])


def test_a_prior_that_is_wrong_counts_for_nothing():
    """It says A where B is ahead: the slope would be below 0. So each mean is that of the rewards, 0.2 and 0.6."""
    fitted = fit_prior(1 - A_B, REWARDS)
    assert fitted.slope == 0 and fitted.counts.tolist() == [0, 0]
    assert means_with(fitted, REWARDS) == pytest.approx([0.2, 0.6])
    points = np.eye(4)
    for with_prior, without in zip(predict(REWARDS, points, 1 - A_B), predict(REWARDS, points), strict=True):
        assert with_prior.tolist() == without.tolist()


def test_a_prior_that_only_knows_hard_prompts_says_nothing_of_teachers():
    chance = np.random.default_rng(0)
    hard = chance.normal(size=(50, 1))
    rewards = hard + 0.1 * chance.normal(size=(50, 3))
    fitted = fit_prior(np.tile(hard, 3), rewards)
    assert fitted.slope == 0 and fitted.counts.tolist() == [0, 0, 0]


def test_what_a_prior_does_not_know_is_a_mean():
    prior = np.array([[1.0, np.nan, np.nan], [3.0, 6.0, np.nan], [np.nan, np.nan, np.nan]])
    assert filled(prior).tolist() == [[1, 6, 10 / 3], [3, 6, 10 / 3], [2, 6, 10 / 3]]
    fitted = fit_prior(np.tile(np.append(A_B[0], np.nan), (4, 1)), np.hstack([REWARDS, REWARDS[:, :1]]))
    assert fitted.counts[2] == 0 < fitted.counts[0] and fitted.known.all()


def test_cells_are_asked_where_the_prior_puts_the_best_teacher():
    """Teachers 0 and 1 were asked on eight prompts, each best on every other one, as the prior says. On the other
    prompts features tell nothing, so only the prior says whom to ask."""
    prior = np.tile([[1.0, 0.0, 0.2], [0.0, 1.0, 0.2]], (8, 1))
    rewards = np.full((16, 3), np.nan)
    rewards[:8] = prior[:8] * 0.5 + 0.02 * np.random.default_rng(1).normal(size=(8, 3))
    asked = ~np.isnan(rewards)
    mean = predict(rewards, np.eye(16), prior)[0]
    assert mean[8:].argmax(axis=1).tolist() == [0, 1] * 4
    added = contend(asked, 16, rewards, np.eye(16), prior=prior) & ~asked
    assert added[8:][prior[8:] == 1].all()
    without = predict(rewards, np.eye(16))[0][8:]
    assert np.ptp(without, axis=0) == pytest.approx([0, 0, 0])


def test_teachers_that_the_prior_knows_to_be_good_survive():
    """Two rewards each put teacher 2 last by chance; over 200 prompts the prior has it first."""
    chance = np.random.default_rng(3)
    prior = np.array([0.2, 0.5, 0.8, 0.1]) + 0.3 * chance.normal(size=(200, 4))
    rewards = np.full((200, 4), np.nan)
    unlucky = np.argsort(prior[:, 2] - prior[:, [0, 1, 3]].mean(axis=1))[:10]
    rewards[unlucky] = prior[unlucky] + 0.02 * chance.normal(size=(10, 4))
    costs = np.zeros(4)
    assert survivors(rewards, costs, 1, prior)[2]
    assert means_with(fit_prior(prior, rewards), rewards).argmax() == 2 != np.nanmean(rewards, axis=0).argmax()


cells = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))


@given(arrays(np.float64, (6, 3), elements=cells), arrays(np.float64, (6, 3), elements=cells))
def test_any_prior_gives_finite_expectations(prior, rewards):
    if np.isnan(prior).all() or np.isnan(rewards).all():
        return
    fitted = fit_prior(prior, rewards)
    assert np.isfinite(fitted.expected).all() and ((fitted.counts >= 0) & (fitted.counts <= MOST)).all()
    assert fitted.slope >= 0
