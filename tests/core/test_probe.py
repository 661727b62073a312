"""Is routing worth it? Numbers worked by hand, and how often chance alone would say so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persyn_hf.core import probe as core
from persyn_hf.core.statistics import Interval


NAN = np.nan
EVERY = np.array([True, True])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("gain", "chance", "prompts", "verdict"),
    [
        ((0.056, -0.004, 0.116), 0.001, 48, "route"),
        ((0.056, -0.004, 0.116), 0.001, 29, "unknown"),  # too few prompts
        ((0.056, 0.010, 0.116), 0.011, 48, "unknown"),  # the prompts may tell nothing
        ((0.024, -0.004, 0.052), 0.001, 48, "unknown"),  # less than half of what is worth it
        ((0.002, -0.012, 0.016), 0.3, 48, "one teacher"),
        ((0.002, -0.012, 0.050), 0.3, 48, "unknown"),  # the interval reaches what is worth it
        ((0.002, -0.012, 0.030), 0.3, 48, "one teacher"),
        ((0.002, -0.012, 0.030), 0.001, 48, "unknown"),  # a router with something to learn may yet gain more
        ((0.002, -0.012, 0.024), 0.001, 48, "one teacher"),
        ((-0.1, -0.2, -0.05), 0.3, 29, "unknown"),
    ],
)
def test_the_rule(gain: tuple[float, float, float], chance: float, prompts: int, verdict: str) -> None:
    assert core.decide(Interval(*gain), chance, prompts, 0.05) == verdict


def test_gains_are_over_the_best_teacher_prompt_by_prompt() -> None:
    rewards = np.array([[1.0, 0.0], [0.0, 1.0]])
    scores = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert core.router_gains(scores, rewards, 0).tolist() == [0.0, 0.5]


def test_the_interval_allows_for_shared_prompts_and_for_what_was_not_seen() -> None:
    found = core.corrected_interval(np.array([0.2, 0.0, 0.2, 0.0]), 2, 0.1)
    half = 1.6449 * np.sqrt(0.006)  # squares 6 * 0.01, over 5 and over 6, times 1 + 2
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    still = core.corrected_interval(np.zeros(38), 10, 0.2)
    assert still.value == 0 and still.high == pytest.approx(1.6449 * np.sqrt(0.08 / 39 / 40 * (1 + 10 / 9)))


def test_chance_of_a_link_is_exact() -> None:
    """8 of the 24 orders of four prompts, alike in pairs, keep the pairs together."""
    similarity = np.kron(np.eye(2), np.ones((2, 2)))
    rewards = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert core.chance_of_link(similarity, rewards, rng(), 2000) == pytest.approx(1 / 3, abs=0.04)
    assert core.chance_of_link(similarity, np.ones((4, 2)), rng(), 19) == 1.0  # nobody is better on anything
    eight = np.kron(np.eye(2), np.ones((20, 20)))
    assert core.chance_of_link(eight, np.repeat(rewards, 10, axis=0), rng(), 99) == 0.01


def test_where_prompts_tell_nothing_a_small_chance_is_as_rare_as_it_says() -> None:
    """Of 200 draws without a link about 20 find a chance up to 0.1; a teacher that is better everywhere is no link."""
    draw = rng()
    found = []
    for _ in range(200):
        points = draw.normal(size=(30, 5))
        rewards = draw.normal(size=(30, 4)) + np.array([2.0, 0.0, 0.0, -1.0])
        found.append(core.chance_of_link(points @ points.T, rewards, draw, 39))
    assert 8 <= sum(chance <= 0.1 for chance in found) <= 34  # within three standard errors


def test_a_perfect_router_gains_what_dropped_teachers_add_too() -> None:
    """Kept are 0 and 1: 0.4 on every second prompt. The dropped one was asked the first four: 0.1 more on one."""
    rewards = np.array([[0.6, 1.0, NAN], [0.6, 0.2, NAN]] * 10)
    rewards[:4, 2] = [1.1, 0.0, 0.0, 0.0]
    found = core.oracle_gain(rewards, np.array([True, True, False]), 0, rng())
    assert found.value == pytest.approx(0.2 + 0.1 / 4)
    assert found.low < 0.2 < found.high
    rewards[:4, 0] = NAN  # no prompt that everybody answered
    assert core.oracle_gain(rewards, np.array([True, True, False]), 0, rng()).value == pytest.approx(0.2)


def test_the_best_of_equal_teachers_is_not_flattered() -> None:
    """Twelve teachers of mean 0.5: the best mean of 40 prompts is 0.07 above that, what is told much less."""
    draw = rng()
    told, best = [], []
    for _ in range(12):
        rewards = (draw.random((40, 12)) < 0.5).astype(float)
        kept = np.ones(12, dtype=bool)
        found = core.probe(rewards, kept, np.zeros((1, 40, 12)), np.eye(40), 10, 0.05, draw)
        told.append(found.reward.value)
        best.append(rewards.mean(axis=0).max())
    assert np.mean(best) > 0.6
    assert abs(np.mean(told) - 0.5) < (np.mean(best) - 0.5) / 2


def test_the_findings_of_a_pool_worked_by_hand() -> None:
    """Two kinds of prompts, alike within; each of two teachers is right on one kind only, a third was dropped."""
    rewards = np.full((40, 3), NAN)
    rewards[:, :2] = np.repeat([[1.0, 0.0], [0.0, 1.0]], [24, 16], axis=0)
    rewards[:10, 2] = 0.0
    kept = np.array([True, True, False])
    similarity = np.kron(np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones((20, 20)))
    found = core.probe(rewards, kept, rewards[None, :, :2], similarity, 10, 0.05, rng())
    assert (found.verdict, found.best, found.prompts, found.chance) == ("route", 0, 40, 0.001)
    assert found.router_gain.value == found.oracle_gain.value == found.leaves == pytest.approx(0.4)
    assert [behind.value for behind in found.behind] == pytest.approx([0.0, 0.2, 1.0])
    half = (found.router_gain.high - found.router_gain.low) / 2
    assert found.enough == int(np.ceil(90 * (half / 0.025) ** 2))  # 90 cells were asked


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_any_rewards_are_judged(seed: int, number: int, teachers: int) -> None:
    draw = np.random.default_rng(seed)
    rewards = draw.integers(0, 2, size=(number, teachers)).astype(float)
    rewards[draw.random((number, teachers)) < 0.1] = NAN
    kept = np.ones(teachers, dtype=bool)
    kept[2:] = draw.random(teachers - 2) < 0.5
    rows = core.complete(rewards, kept)
    if rows.sum() < 2:
        return
    scores = draw.random((2, int(rows.sum()), int(kept.sum())))
    found = core.probe(rewards, kept, scores, np.eye(int(rows.sum())), 10, 0.05, draw)
    assert found.verdict == "unknown"  # too few prompts
    assert kept[found.best] and found.router_gain.value <= found.oracle_gain.value + 1e-9
    assert found.oracle_gain.value >= 0 and found.enough >= (~np.isnan(rewards)).sum() and 0 <= found.leaves <= 1
