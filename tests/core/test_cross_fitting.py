"""What a router gains without dev prompts: by hand, and with cells that were chosen."""

import numpy as np
import pytest

from persyn_hf.core.cross_fitting import cross_fitted_gain, gain_values


def test_known_prompts_stand_for_those_that_are_not():
    """Ten prompts, teacher 0 the best by mean. Four leave it for teacher 1, two of them known with 0.3 and -0.1."""
    scores = np.tile([1.0, 0.0], (10, 1))
    scores[:4] = [0.0, 1.0]
    rewards = np.full((10, 2), 0.5)
    rewards[:4] = [[0.5, 0.8], [0.5, 0.4], [np.nan, 0.9], [0.2, np.nan]]
    values = gain_values(scores, np.tile([0.6, 0.4], (10, 1)), rewards)
    assert values == pytest.approx([0.5, -0.3, 0.1, 0.1, *[0.0] * 6]) and values.mean() == pytest.approx(0.04)


def test_strata_count_for_the_prompts_in_them():
    """40 prompts leave by little and gain 0, 40 by much and gain 1. Of the first 30 are known, of the second 10: the
    mean is 1 / 2, where known ones alone would say 10 / 40."""
    apart = np.repeat([0.1, 1.0], 40)
    scores = np.column_stack([np.zeros(80), apart])
    rewards = np.column_stack([np.zeros(80), np.repeat([0.0, 1.0], 40)])
    rewards[30:70, 0] = np.nan
    values = gain_values(scores, np.tile([1.0, 0.0], (80, 1)), rewards)
    assert values.mean() == pytest.approx(0.5)


def test_nothing_is_said_where_no_choice_is_known():
    scores, rewards = np.array([[0.0, 1.0]] * 12), np.array([[0.5, np.nan]] * 12)
    assert cross_fitted_gain(scores, np.array([[1.0, 0.0]] * 12), rewards, 5) is None


def test_a_router_that_never_leaves_the_best_teacher_gains_nothing_and_is_not_sure_of_it():
    """20 zeros and a perfect gain of 0.5: squares 2 * 0.25, variance 0.5 / 21 / 22 * 2.25."""
    scores, rewards = np.array([[1.0, 0.0]] * 20), np.array([[0.0, 0.5]] * 20)
    gain = cross_fitted_gain(scores, np.array([[1.0, 0.0]] * 20), rewards, 5)
    assert gain is not None and gain.value == 0
    assert gain.high == pytest.approx(1.96 * np.sqrt(0.5 / 21 / 22 * 2.25)) == -gain.low
    once = cross_fitted_gain(scores, np.array([[1.0, 0.0]] * 20), rewards, None)
    assert once is not None and once.high == pytest.approx(1.96 * np.sqrt(0.5 / 21 / 22))


def test_intervals_hold_the_truth():
    """Scores that know half of each reward, and cells that were chosen by the scores: the better of two predictions is
    measured always, the worse four times of ten. The truth is the mean over many prompts."""

    def draw(number, chance):
        known, noise = (chance.normal(size=(number, 2)) for _ in range(2))
        scores = 0.5 * known + [0.2, 0.0]
        return scores, scores + 0.5 * noise

    chance, means = np.random.default_rng(0), np.array([[0.2, 0.0]])
    scores, rewards = draw(200_000, chance)
    truth = (rewards[np.arange(len(rewards)), scores.argmax(axis=1)] - rewards[:, 0]).mean()
    held = []
    for _ in range(200):
        scores, rewards = draw(300, chance)
        seen = (scores == scores.max(axis=1, keepdims=True)) | (chance.random(scores.shape) < 0.4)
        gain = cross_fitted_gain(scores, np.tile(means, (300, 1)), np.where(seen, rewards, np.nan), None)
        assert gain is not None
        held.append(gain.low <= truth <= gain.high)
    assert np.mean(held) > 0.9
