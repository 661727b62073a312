"""Cheap routers judged on prompts that they were not trained on."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.cross_validation import REPEATS, coordinates, cross_validated, simplest
from persyn_hf.core.metrics import routed_reward


SMALL = RouterSettings(kind="ridge", ridge_l2=(1.0, 1e-2), neighbours=(5,))


def gain(points, rewards, seed=0):
    scores = cross_validated(points, rewards, SMALL, np.random.default_rng(seed))
    assert scores.shape == (REPEATS, *rewards.shape)
    best = rewards[:, rewards.mean(axis=0).argmax()]
    return float(np.mean([routed_reward(repeat, rewards) for repeat in scores]) - best.mean())


def test_coordinates_keep_every_product():
    words = csr_matrix(np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 1.0, 0.0]]))
    found = coordinates(words)
    assert found.shape == (3, 1)  # of the two prompts with words one is a multiple of the other
    assert found @ found.T == pytest.approx((words @ words.T).toarray())
    assert coordinates(np.zeros((2, 5))).tolist() == [[0.0], [0.0]]


def test_the_simplest_within_one_standard_error_is_taken():
    assert simplest([[1, 1, 4], [1, 1, 1]]) == 0
    assert simplest([[2, 2, 2], [1, 1, 1]]) == 1
    assert simplest([[1, 1, 1], [1, 1, 1]]) == 0


def test_a_router_gains_where_prompts_tell_who_is_better():
    """Two kinds of prompts, each with its own right teacher; the better single teacher is right on 24 of 40."""
    kind = np.repeat([0, 1], [24, 16])
    assert gain(np.eye(2)[kind], np.eye(2)[kind]) == pytest.approx(0.4)


def test_a_router_gains_nothing_where_prompts_tell_nothing():
    """No prompt is seen before it is routed: learnt by heart, these rewards would gain 0.275."""
    draw = np.random.default_rng(1)
    points, rewards = draw.normal(size=(40, 30)), (draw.random((40, 3)) < 0.5).astype(float)
    assert rewards.max(axis=1).mean() - rewards.mean(axis=0).max() > 0.27
    assert gain(points, rewards) < 0.05


def test_prompts_without_any_words_go_to_the_best_teacher():
    rewards = np.repeat([[1.0, 0.0], [0.0, 1.0]], [24, 16], axis=0)
    assert gain(coordinates(csr_matrix((40, 7))), rewards) == pytest.approx(0.0)
