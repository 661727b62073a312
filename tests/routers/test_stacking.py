"""The head `stacking`: its sum by scikit-learn's parts, its weights, rewards that no prompt tells anything of."""

import numpy as np
import pytest
from corpora import TEACHERS, corpus
from scipy.optimize import nnls
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load
from persyn_hf.backends.routers.heads import Split, folds_of
from persyn_hf.backends.routers.stacking import (
    CELLS,
    FOLDS,
    MOST,
    Stacked,
    _in_proportion,
    fit_stacking,
    unseen_gains,
)


SETTINGS = RouterSettings(kind="stacking", ridge_l2=(1e-1, 1e-2), neighbours=(3, 9))


def world(number=60, noise=0.3, seed=0):
    """Points on a sphere and rewards of three teachers that go by the first two coordinates, with noise."""
    chance = np.random.default_rng(seed)
    points = chance.normal(size=(number, 4))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rewards = np.column_stack([points[:, 0], points[:, 1], np.full(number, 0.1)])
    return points, rewards + noise * chance.normal(size=rewards.shape)


def members(points, rewards, asked):
    """What scikit-learn's two ridges and two neighbourhoods predict, less the means: (4, asked, teachers)."""
    means = rewards.mean(axis=0)
    ridges = [Ridge(alpha=l2 * len(points), tol=1e-10).fit(points, rewards) for l2 in (1e-1, 1e-2)]
    near = [KNeighborsRegressor(k, metric="cosine").fit(points, rewards) for k in (9, 3)]
    return np.stack([model.predict(asked) - means for model in (*ridges, *near)])


def test_scores_are_the_weighted_sum_of_what_scikit_learn_predicts():
    points, rewards = world()
    asked = world(20, seed=9)[0]
    head, record = fit_stacking(SETTINGS, Split(points, rewards), None, seed=0)
    weights = np.array([member["weight"] for member in record["members"]])
    assert [list(member)[0] for member in record["members"]] == ["ridge", "ridge", "knn", "knn"]
    expected = rewards.mean(axis=0) + np.tensordot(weights, members(points, rewards, asked), 1)
    assert head.scores(asked) == pytest.approx(expected, abs=1e-6)


def test_weights_are_least_squares_over_prompts_that_a_member_has_not_seen():
    points, rewards = world()
    record = fit_stacking(SETTINGS, Split(points, rewards), None, seed=5)[1]
    chance = np.random.default_rng(5)
    predicted, wanted = [], []
    assert min(MOST, -(-CELLS // rewards.size)) == MOST
    for _ in range(MOST):
        for inside, outside in folds_of(len(points), FOLDS, chance):
            predicted.append(members(points[inside], rewards[inside], points[outside]).reshape(4, -1).T)
            wanted.append((rewards[outside] - rewards[inside].mean(axis=0)).ravel())
    expected = record["share"] * nnls(np.concatenate(predicted), np.concatenate(wanted))[0]
    assert record["share"] > 0
    assert [member["weight"] for member in record["members"]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_where_prompts_tell_nothing_it_stays_with_the_best_teacher():
    stays, shares = [], []
    for seed in range(5):
        points, rewards = world(100, noise=1.0, seed=seed)
        shuffled = rewards[np.random.default_rng(seed).permutation(100)] + [0.0, 0.0, 0.5]
        head, record = fit_stacking(SETTINGS, Split(points, shuffled), None, seed=0)
        shares.append(record["share"])
        stays.append((head.scores(world(200, seed=50)[0]).argmax(axis=1) == shuffled.mean(axis=0).argmax()).mean())
    assert np.mean(stays) > 0.95 and shares.count(0.0) >= 3


def test_cells_in_part_and_a_teacher_measured_on_one_prompt():
    points, rewards = world()
    rewards[np.random.default_rng(1).random(rewards.shape) < 0.4] = np.nan
    rewards[1:, 2] = np.nan  # in four of five folds it is only to be predicted, or not there at all
    rewards[0, 2] = 0.3
    head, _ = fit_stacking(SETTINGS, Split(points, rewards), None, seed=0)
    assert np.isfinite(head.scores(points)).all()
    again = Stacked.from_arrays(head.arrays(), "reward")
    assert (again.scores(points) == head.scores(points)).all()


def test_validation_prompts_are_learnt_from_as_folds_take_their_place(tmp_path):
    parts = corpus(30, 1), corpus(30, 2)
    together = Labelled(
        [*parts[0].conversations, *parts[1].conversations], np.concatenate([part.rewards for part in parts])
    )
    fit(RouterSettings(kind="stacking"), TEACHERS, *parts, tmp_path / "apart", seed=0)
    fit(RouterSettings(kind="stacking"), TEACHERS, together, together.take([]), tmp_path / "whole", seed=0)
    asked = corpus(50, 3).conversations
    assert (load(tmp_path / "apart").scores(asked) == load(tmp_path / "whole").scores(asked)).all()


def test_gains_on_unseen_prompts_are_those_of_the_choices_where_both_teachers_are_measured():
    """The first teacher is the better one on two prompts of three; on the third the second one gains 0.8 over it."""
    points = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]] * 20)
    rewards = np.where(points > 0, 0.9, 0.1)
    assert unseen_gains(SETTINGS, Split(points, rewards), 0).tolist() == pytest.approx([0.0, 0.0, 0.8] * 20)
    rewards[2::6, 0] = np.nan  # the first teacher, on every other of those that leave it
    gains = unseen_gains(SETTINGS, Split(points, rewards), 0)
    assert set(np.round(gains, 9)) == {0.0, 1.6} and gains.mean() == pytest.approx(0.8 / 3)


def test_known_gains_stand_for_those_that_are_not():
    """Ten prompts, 4 leave, 2 of these are known: 0.3 and -0.1 stand for two each."""
    leaves = np.array([[True] * 4 + [False] * 6])
    gains = np.array([[0.3, -0.1, np.nan, np.nan, *[0.0] * 6]])
    assert _in_proportion(gains, leaves).tolist() == pytest.approx([0.6, -0.2, *[0.0] * 8])
    assert _in_proportion(np.full((1, 10), np.nan), leaves).shape == (0,)
    assert _in_proportion(np.full((1, 10), np.nan), ~leaves & False).tolist() == [0.0] * 10


def test_a_prior_that_is_right_adds_members_and_helps_on_prompts_that_nobody_measured():
    """Twenty of 200 prompts are measured, and another student's rewards of all are known."""
    points, rewards = world(200, noise=0.5)
    prior = 10 * world(200, noise=0.5, seed=0)[1] + 3  # another scale
    measured = rewards.copy()
    measured[20:] = np.nan
    asked = world(400, noise=0.0, seed=7)
    best = np.array([head.scores(asked[0]).argmax(axis=1) for head in (
        fit_stacking(SETTINGS, Split(points, measured, prior), None, seed=0)[0],
        fit_stacking(SETTINGS, Split(points[:20], measured[:20]), None, seed=0)[0],
    )])  # fmt: skip
    helped, alone = asked[1][np.arange(400), best].mean(axis=1)
    assert helped > alone + 0.02


def test_with_a_prior_neighbourhoods_are_half_of_the_measured_prompts_at_most():
    """In a fold of which 60 or 40 prompts are measured, 50 neighbours would be some or all of them."""
    points, rewards = world(200)
    measured = rewards.copy()
    measured[60:] = np.nan
    settings = SETTINGS.model_copy(update={"neighbours": (3, 50)})
    record = fit_stacking(settings, Split(points, measured, rewards), None, seed=0)[1]
    assert [member["knn"] for member in record["members"] if "knn" in member] == [30, 3]
    assert [member["ridge"] for member in record["members"] if member.get("prior")] == [0.1, 0.01]


def test_a_prior_that_the_rewards_do_not_bear_out_leaves_the_router_as_it_was():
    points, rewards = world(60, noise=0.1)
    measured = rewards.copy()
    measured[40:] = np.nan
    head, record = fit_stacking(SETTINGS, Split(points, measured, -rewards), None, seed=3)
    plain, without = fit_stacking(SETTINGS, Split(points[:40], rewards[:40]), None, seed=3)
    assert record["prior"] == {"slope": 0.0, "count": [0.0, 0.0, 0.0]} and record["members"] == without["members"]
    assert (head.scores(points) == plain.scores(points)).all()
