"""Router metrics: worked numbers, scipy and sklearn as second opinion, and the random router's exact expectation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import expected_calibration_error
from scipy.spatial.distance import jensenshannon
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score

from persyn_hf.core import metrics as m
from persyn_hf.core.router_table import router_table


NAN = np.nan
REWARDS = np.array([[0.1, 0.9, 0.5], [0.8, 0.2, 0.3]])
SCORES = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])


def draw(seed, levels=None, shape=(20, 6)):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return values if levels is None else np.floor(rng.random(shape) * levels) / levels


def test_routing_by_hand():
    """Prompt 0 goes to teacher 2 (0.5 of 0.9), prompt 1 to teacher 0, its best."""
    assert m.routed_reward(SCORES, REWARDS).tolist() == [0.5, 0.8]
    assert m.regret(SCORES, REWARDS) == pytest.approx([0.4, 0])
    assert m.hit_at_k(SCORES, REWARDS, 1).tolist() == [0, 1]
    assert m.hit_at_k(SCORES, REWARDS, 2).tolist() == [1, 1]
    assert m.pair_accuracy(SCORES, REWARDS) == pytest.approx([2 / 3, 1])
    assert m.kendall_tau(SCORES, REWARDS) == pytest.approx([1 / 3, 1])


def test_a_tie_at_the_threshold_is_a_hit():
    assert m.hit_at_k([[0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0]], 1).tolist() == [1]
    assert m.hit_at_k([[0.0, 0.0, 1.0]], [[1.0, 1.0, 0.0]], 2).tolist() == [0]
    assert m.hit_at_k([[0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]], 1).tolist() == [1]


def test_only_measured_cells_count():
    rewards = [[NAN, 0.2, 0.7], [NAN, NAN, NAN]]
    scores = [[9.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    assert m.routed_reward(scores, rewards) == pytest.approx([0.2, NAN], nan_ok=True)
    assert m.hit_at_k(scores, rewards, 3) == pytest.approx([1, NAN], nan_ok=True)
    for metric in (m.kendall_tau, m.ndcg_at_k, m.pair_accuracy, m.regret):
        partial = metric(np.array([[2.0, 1.0]]), np.array([[0.2, 0.7]]))[0]
        assert metric(np.array(scores), np.array(rewards)) == pytest.approx([partial, NAN], nan_ok=True)


def test_scores_may_not_be_missing_where_rewards_are_not():
    with pytest.raises(ValueError, match="scores hold NaN where a reward was measured"):
        m.hit_at_k([[NAN, 1.0]], [[0.0, 1.0]], 1)


@given(st.integers(0, 10**6), st.sampled_from([None, 2, 4]))
def test_kendall_tau_agrees_with_scipy(seed, levels):
    scores, rewards = draw(seed, levels), draw(seed + 1, levels)
    expected = [kendalltau(a, b).statistic for a, b in zip(scores, rewards, strict=True)]
    assert m.kendall_tau(scores, rewards) == pytest.approx(np.array(expected), nan_ok=True)


@given(st.integers(0, 10**6), st.sampled_from([None, 3]), st.integers(1, 6))
def test_ndcg_agrees_with_sklearn(seed, levels, k):
    scores, rewards = draw(seed, levels), draw(seed + 1)
    gains = rewards - rewards.min(axis=1, keepdims=True)
    expected = [ndcg_score(g[None], s[None], k=k) for g, s in zip(gains, scores, strict=True)]
    assert m.ndcg_at_k(scores, rewards, k) == pytest.approx(np.array(expected))


def test_ndcg_by_hand():
    """Gains 0, 0.8, 0.4 in the order 0.4, 0.8, 0 against the ideal 0.8, 0.4, 0."""
    second = 1 / np.log2(3)
    assert m.ndcg_at_k(SCORES, REWARDS)[0] == pytest.approx((0.4 + 0.8 * second) / (0.8 + 0.4 * second))


@pytest.mark.parametrize("n", [3, 5, 19])
def test_constant_scores_are_the_random_router(n):
    rewards = draw(n, shape=(50, n))
    for k in (1, 3, 5):
        assert m.hit_at_k(np.zeros(n), rewards, k).mean() == pytest.approx(min(k, n) / n)
    assert m.routed_reward(np.zeros(n), rewards) == pytest.approx(rewards.mean(axis=1))
    assert m.pair_accuracy(np.zeros(n), rewards) == pytest.approx(np.full(50, 0.5))


def test_the_expectation_is_what_random_choices_give():
    rewards = draw(0, levels=3, shape=(40, 4))
    rng = np.random.default_rng(0)
    orders = [rng.random((40, 4)) for _ in range(4000)]
    for metric in (lambda s, r: m.hit_at_k(s, r, 1), m.regret, m.ndcg_at_k):
        drawn = np.mean([np.nanmean(metric(order, rewards)) for order in orders])
        assert np.nanmean(metric(np.zeros(4), rewards)) == pytest.approx(drawn, abs=0.005)


@given(st.permutations(range(6)), st.integers(0, 1000))
def test_permuting_teachers_changes_no_metric(order, seed):
    scores, rewards = draw(seed, levels=4), draw(seed + 1, levels=4)
    for metric in (m.regret, m.kendall_tau, m.ndcg_at_k, m.pair_accuracy, expected_calibration_error):
        found, expected = metric(scores[:, order], rewards[:, order]), metric(scores, rewards)
        assert found == pytest.approx(expected, nan_ok=True)


def test_calibration_error_by_hand():
    """One pair at logit log 3: predicted 0.75 (and 0.25 the other way round), true 1 (and 0): the gap is 0.25."""
    assert expected_calibration_error([[np.log(3), 0.0]], [[1.0, 0.0]]) == pytest.approx(0.25)
    right = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert expected_calibration_error([[np.log(3), 0.0]] * 4, right) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error([[1e4, 0.0]], [[1.0, 0.0]]) == pytest.approx(0)


def test_allocation_measures():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    assert float(m.total_variation(p, q)) == 0.5
    assert float(m.jensen_shannon(p, q)) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert float(m.jensen_shannon([1.0, 0.0], [0.0, 1.0])) == 1
    assert float(m.effective_teachers(p)) == pytest.approx(2)
    assert float(m.effective_teachers([1.0, 0.0])) == 1


def test_gap_closed():
    assert float(m.gap_closed(0.75, 0.5, 1.0)) == 0.5
    assert np.isnan(m.gap_closed(1.0, 1.0, 1.0))


def table(scores, rewards, best, **options):
    return router_table(scores, rewards, {"global_best": best}, np.random.default_rng(0), **options)


def test_table_has_its_ends_where_they_belong():
    rewards = draw(0, shape=(200, 5))
    scores = rewards + draw(1, shape=(200, 5))
    found = table(scores, rewards, rewards.mean(axis=0))
    assert list(found) == ["router", "random", "global_best", "oracle"]
    assert found["global_best"]["gap_closed"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["oracle"]["gap_closed"]["value"] == pytest.approx(1.0)
    assert found["oracle"]["hit_at_1"]["value"] == found["oracle"]["kendall_tau"]["value"] == 1.0
    assert found["oracle"]["allocation_js"]["value"] == pytest.approx(0)
    assert found["random"]["hit_at_3"]["value"] == pytest.approx(3 / 5)
    assert found["random"]["kendall_tau"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["random"]["effective_teachers"]["value"] == pytest.approx(5)
    assert found["random"]["calibration_error"]["value"] is None
    router = found["router"]
    assert router["hit_at_1"]["value"] == pytest.approx(m.hit_at_k(scores, rewards, 1).mean())
    assert router["calibration_error"]["value"] == pytest.approx(expected_calibration_error(scores, rewards))
    assert router["hit_at_1"]["low"] < router["hit_at_1"]["value"] < router["hit_at_1"]["high"]
    assert table(scores, rewards, rewards.mean(axis=0)) == found


def test_table_holds_plain_json_and_none_for_the_undefined():
    found = table(np.zeros((4, 2)), np.ones((4, 2)), np.zeros(2), resamples=50)
    cells = [cell for row in found.values() for metric in row.values() for cell in metric.values()]
    assert all(cell is None or type(cell) is float for cell in cells)
    assert found["router"]["gap_closed"]["value"] is None
    assert found["router"]["ndcg_at_3"]["value"] is None


def test_table_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(100):
        rewards = draw(seed, shape=(80, 4))
        cell = table(draw(seed + 1000, shape=(80, 4)), rewards, np.arange(4.0), resamples=300)["router"]["hit_at_1"]
        hits += cell["low"] <= 0.25 <= cell["high"]
    assert 88 <= hits <= 100


def test_table_needs_its_baseline():
    with pytest.raises(ValueError, match="baselines must hold `global_best`"):
        router_table(SCORES, REWARDS, {}, np.random.default_rng(0))
