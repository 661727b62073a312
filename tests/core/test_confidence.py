"""How sure a router is: the curve of its margin, and what its scores are worth."""

import numpy as np
import pytest

from persyn_hf.core import confidence as core


NAN = np.nan


def drawn(number, intercept=-0.5, slope=3.0, seed=0):
    rng = np.random.default_rng(seed)
    margin = rng.exponential(0.5, number)
    return margin, (rng.random(number) < core.Curve(intercept, slope)(margin)).astype(float)


def test_near_the_best_by_hand():
    rewards = [[0.9, 1.0, 0.0], [0.9, 1.0, 0.0], [NAN, 0.3, 0.2], [0.5, NAN, 0.5]]
    assert core.near_best([0, 2, 1, 1], rewards, 0.1) == pytest.approx([1, 0, 1, NAN], nan_ok=True)
    assert core.near_best([0, 1, 2, 0], rewards, 0.05).tolist() == [0, 1, 0, 1]


def test_the_curve_is_found_again():
    found = core.fit_curve(*drawn(20_000))
    assert found.intercept == pytest.approx(-0.5, abs=0.1) and found.slope == pytest.approx(3.0, abs=0.2)


def test_the_scale_of_the_scores_does_not_matter():
    margin, near = drawn(200)
    assert core.fit_curve(40 * margin, near)(40 * margin) == pytest.approx(core.fit_curve(margin, near)(margin))


def test_a_margin_that_says_nothing_gives_the_share():
    margin = np.linspace(0, 1, 100)
    falling = core.fit_curve(margin, (margin < 0.6).astype(float))
    assert falling.slope == 0 and falling(0.2) == pytest.approx(0.6, abs=0.01)
    equal = core.fit_curve(np.zeros(30), np.array([1.0, 0, 1] * 10))
    assert equal.slope == 0 and equal(0.0) == pytest.approx(2 / 3, abs=0.02)


def test_certainty_is_never_claimed():
    assert core.fit_curve(np.linspace(0, 1, 30), np.ones(30))(1.0) == pytest.approx(31 / 32)
    assert np.isfinite(core.fit_curve([0.0, 1.0] * 20, [0.0, 1.0] * 20)).all()


def test_held_out_prompts_are_calibrated_and_plain_softmax_is_not():
    margin, near = drawn(3000)
    error, bins = core.reliability(core.held_out(margin, near), near)
    scores = np.column_stack([margin, np.zeros((len(margin), 9))])
    assert error < 0.03 < 0.2 < core.reliability(core.top_softmax(scores), near)[0]
    assert sum(row["prompts"] for row in bins) == 3000
    assert all(abs(row["predicted"] - row["found"]) < 0.1 for row in bins if row["prompts"] > 100)


def test_each_fold_is_judged_by_the_others():
    """Fold 0 holds the only successes: the other folds have none, so they cannot know of them."""
    near = (np.arange(50) % core.FOLDS == 0).astype(float)
    assert core.held_out(np.zeros(50), near)[0] < 0.05


def test_reliability_by_hand():
    error, bins = core.reliability([0.15, 0.15, 0.85, 1.0], [0, 1, 1, 1])
    assert error == pytest.approx((0.7 + 0.15 + 0.0) / 4)
    assert [row["prompts"] for row in bins] == [2, 1, 1]
    assert bins[0] == {
        "from": 0.1,
        "predicted": 0.15,
        "found": 0.5,
        "prompts": 2,
    }


def test_what_a_score_is_worth():
    """Rewards are a tenth of the scores and a level per prompt, which scores do not tell."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 4))
    rewards = 0.1 * scores + rng.random((50, 1))
    rewards[rng.random((50, 4)) < 0.2] = NAN
    found = core.worth(scores, rewards)
    assert found.scale == pytest.approx(0.1)
    assert found.level == pytest.approx(np.nanmean(rewards[(~np.isnan(rewards)).sum(axis=1) > 1], axis=1).mean())
    assert core.worth(-scores, rewards) is None
    assert core.worth(scores, np.full((50, 4), NAN)) is None
