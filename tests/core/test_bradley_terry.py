"""The grouped loss is the paper's loss over pairs, value and gradient."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import grouped_loss, pair_loss, two_hot, win_probability

from persyn_hf.core.bradley_terry import preference_losses, preferences
from persyn_hf.core.pairs import compare_teachers
from persyn_hf.core.pairs import preferences as preferences_of_pairs


def test_two_hot_has_plus_one_at_b_and_minus_one_at_a():
    assert two_hot(torch.tensor([0, 2]), torch.tensor([1, 0]), 3).tolist() == [[-1, 1, 0], [1, 0, -1]]


def test_win_probability_by_hand():
    """Eq. 3: sigmoid(o_B - o_A) = sigmoid(log 3) = 3/4."""
    z = two_hot(torch.tensor([0]), torch.tensor([1]), 2)
    assert win_probability(z, torch.tensor([[0.0, math.log(3)]])).tolist() == pytest.approx([0.75])


def test_pair_loss_by_hand():
    z = two_hot(torch.tensor([0, 0]), torch.tensor([1, 1]), 2)
    scores = torch.tensor([[0.0, math.log(3)]] * 2)
    expected = (-math.log(0.75) - math.log(0.25)) / 2
    assert float(pair_loss(scores, z, torch.tensor([1.0, 0.0]))) == pytest.approx(expected)


def test_grouped_loss_by_hand():
    """Three teachers, o = 0: every pair costs log 2, whatever the rewards."""
    assert float(grouped_loss(torch.zeros(2, 3), torch.tensor([[1.0, 2, 3], [1, 1, 1]]))) == pytest.approx(math.log(2))


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_grouped_gradient_equals_the_gradient_over_the_pairs_dataset(num_teachers, num_prompts, seed):
    """Complete rows with ties: mean over prompts of means over pairs is the mean over all pairs, Eq. 4."""
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 4, size=(num_prompts, num_teachers)) / 3
    pool = [f"t{i}" for i in range(num_teachers)]
    found = compare_teachers([str(i) for i in range(num_prompts)], pool, rewards)
    scores = torch.tensor(rng.normal(size=rewards.shape) * 3, dtype=torch.float64, requires_grad=True)
    grouped = grouped_loss(scores, torch.tensor(rewards))
    (by_group,) = torch.autograd.grad(grouped, scores)
    z = two_hot(torch.tensor(found.a), torch.tensor(found.b), num_teachers)
    paired = pair_loss(scores[torch.tensor(found.prompt)], z, torch.tensor(found.label))
    (by_pair,) = torch.autograd.grad(paired, scores)
    assert float(grouped.detach()) == pytest.approx(float(paired.detach()), abs=1e-12)
    assert torch.allclose(by_group, by_pair, atol=1e-12, rtol=0)


@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_pairs_alone_say_what_the_rewards_say_of_each_two_teachers(num_teachers, num_prompts, seed):
    """With ties and missing cells; what pairs and rewards prefer is equal, so losses and gradients are."""
    rng = np.random.default_rng(seed)
    rewards = np.where(
        rng.random((num_prompts, num_teachers)) < 0.2, np.nan, rng.integers(0, 4, size=(num_prompts, 1))
    )
    rewards += rng.integers(0, 3, size=rewards.shape) / 3
    pool, ids = [f"t{i}" for i in range(num_teachers)], [str(i) for i in range(num_prompts)]
    found = compare_teachers(ids, pool, rewards)
    columns = {
        "prompt_id": [ids[row] for row in found.prompt],
        "teacher_a": [pool[column] for column in found.a],
        "teacher_b": [pool[column] for column in found.b],
        "label": found.label,
    }
    kept, preferred = preferences_of_pairs(columns, pool)
    wanted = preferences(torch.tensor(rewards))[[int(row) for row in kept]].triu(1)
    assert torch.equal(torch.tensor(preferred).triu(1).nan_to_num(-1), wanted.nan_to_num(-1))
    scores = torch.tensor(rng.normal(size=(len(kept), num_teachers)))
    by_pairs = preference_losses(scores, torch.tensor(preferred)).sum() / max(len(kept), 1)
    usable = torch.tensor(rewards)[[int(row) for row in kept]]
    assert float(by_pairs) == float(grouped_loss(scores, usable))


def test_missing_cells_take_part_in_no_pair():
    rewards = torch.tensor([[0.0, 1.0, math.nan], [math.nan, 0.5, math.nan]], dtype=torch.float64)
    scores = torch.tensor([[0.3, -0.2, 9.0], [1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    loss = grouped_loss(scores, rewards)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(1 / (1 + math.exp(0.5))))
    assert scores.grad[:, 2].tolist() == [0, 0] and scores.grad[1].tolist() == [0, 0, 0]


def test_no_pair_at_all_costs_nothing_and_has_a_gradient():
    scores = torch.zeros(1, 2, requires_grad=True)
    loss = grouped_loss(scores, torch.full((1, 2), math.nan))
    loss.backward()
    assert float(loss.detach()) == 0 and scores.grad.tolist() == [[0, 0]]


def test_soft_targets_are_met_by_rewards_over_tau():
    """Soft-BT is least exactly at o = r / tau + const."""
    rewards = torch.tensor([[0.0, 0.3, 0.5, 1.0]], dtype=torch.float64)
    scores = (rewards / 0.1 + 7).requires_grad_()
    grouped_loss(scores, rewards, "soft_bt", tau=0.1).backward()
    assert scores.grad.abs().max() < 1e-12


@given(st.permutations(range(4)))
def test_permuting_teachers_changes_nothing(order):
    generator = torch.Generator().manual_seed(0)
    scores, rewards = torch.randn(3, 4, generator=generator), torch.rand(3, 4, generator=generator)
    expected = float(grouped_loss(scores, rewards))
    assert float(grouped_loss(scores[:, order], rewards[:, order])) == pytest.approx(expected)
