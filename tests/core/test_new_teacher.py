"""A new column on a router's scores: worked by hand on both scales, shifts that mean nothing, missing cells."""

import numpy as np
import pytest

from persyn_hf.core.new_teacher import join


NAN = np.nan


def world(number=120, seed=0):
    """Two kinds of prompts; the old teachers are good at one each, the new one is a little better at the second."""
    rng = np.random.default_rng(seed)
    kind = np.arange(number) % 2
    scores = np.where(kind[:, None] == [0, 1], 0.9, 0.3)
    old = scores + rng.normal(size=scores.shape) * 0.05
    new = np.where(kind == 1, 1.1, 0.1) + rng.normal(size=number) * 0.05
    return new[:, None], old, scores, kind


@pytest.mark.parametrize("scale", ["reward", "log_odds"])
def test_the_new_teacher_wins_where_it_is_best(scale):
    new, old, scores, kind = world()
    scores = scores if scale == "reward" else 8 * scores
    found = join(new, old, scores, scale).scores(scores)[:, 0]
    assert (found[kind == 1] > scores[kind == 1].max(axis=1)).all()
    assert (found[kind == 0] < scores[kind == 0].max(axis=1)).all()


def test_a_reward_keeps_its_unit():
    new, old, scores, kind = world()
    found = join(new, old, scores, "reward").scores(scores)[:, 0]
    assert found[kind == 1].mean() == pytest.approx(1.1, abs=0.05)
    assert found[kind == 0].mean() == pytest.approx(0.1, abs=0.05)


def test_scores_that_say_nothing_of_the_prompt_leave_the_mean_lead():
    """Rewards 0.5 above the one old teacher and 0.2 above the other: 0.35 above their mean of 0.45."""
    scores = np.tile([0.3, 0.6], (50, 1))
    found = join(scores[:, :1] + 0.5, scores, scores, "reward").scores(scores)
    assert found[:, 0] == pytest.approx(np.full(50, 0.8))


def test_log_odds_of_a_share_of_wins():
    """Against one old teacher with score 0, won on 3 of 4 prompts: log 3."""
    old = np.zeros((80, 1))
    new = np.where(np.arange(80) % 4 == 0, -1.0, 1.0)[:, None]
    assert join(new, old, old, "log_odds").bias[0] == pytest.approx(np.log(3), abs=1e-3)


@pytest.mark.parametrize("scale", ["reward", "log_odds"])
def test_only_differences_of_scores_count(scale):
    new, old, scores, _ = world()
    shifted = scores + np.random.default_rng(1).normal(size=(len(scores), 1)) * 5
    plain, moved = (join(new, old, of, scale).scores(of)[:, 0] - of[:, 0] for of in (scores, shifted))
    assert moved == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("scale", ["reward", "log_odds"])
def test_prompts_without_a_comparison_do_not_count(scale):
    new, old, scores, _ = world()
    known = join(new[:60], old[:60], scores[:60], scale)
    new[60:90], old[90:] = NAN, NAN
    found = join(new, old, scores, scale)
    assert (found.weights == known.weights).all() and (found.bias == known.bias).all()
