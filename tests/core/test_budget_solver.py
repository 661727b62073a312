"""Assignments within a budget: against brute force, by properties, and at a size that needs the prices of a sample."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persyn_hf.core import budget_solver as core
from persyn_hf.core.linear_programs import Bounds
from persyn_hf.errors import RecipeError


def value_of(rewards, teacher) -> float:
    return float(rewards[np.arange(len(rewards)), teacher].sum())


def within(teacher, bounds) -> bool:
    counts = np.bincount(teacher, minlength=len(bounds.low))
    quotas = (bounds.low <= counts).all() and (counts <= bounds.high).all()
    return bool(quotas and counts @ bounds.cost <= bounds.total * (1 + 1e-12) + 1e-9)


def brute_force(rewards, bounds) -> float:
    number, width = rewards.shape
    every = (np.array(teacher) for teacher in itertools.product(range(width), repeat=number))
    return max((value_of(rewards, teacher) for teacher in every if within(teacher, bounds)), default=-np.inf)


@st.composite
def cases(draw):
    """Up to 5 prompts and 3 teachers, continuous rewards or ones that tie, with quotas and with or without a total."""
    number, width = draw(st.integers(1, 5)), draw(st.integers(2, 3))
    levels = st.sampled_from([0.0, 0.5, 1.0]) if draw(st.booleans()) else st.floats(-1, 1, width=32)
    rewards = np.array(draw(st.lists(levels, min_size=number * width, max_size=number * width)))
    low = [draw(st.integers(0, number // 2)) for _ in range(width)]
    high = [draw(st.integers(least, number)) for least in low]
    cost = [draw(st.integers(1, 9)) for _ in range(width)]
    total = draw(st.one_of(st.just(np.inf), st.integers(1, 9 * number)))
    return rewards.reshape(number, width), Bounds(*(np.array(x, dtype=float) for x in (low, high, cost)), float(total))


@settings(deadline=None, max_examples=120)
@given(cases())
def test_it_is_the_best_of_all_assignments_within_the_bounds(case):
    rewards, bounds = case
    best = brute_force(rewards, bounds)
    if best == -np.inf:
        return
    found = core.allocate(rewards, bounds)
    assert within(found.teacher, bounds)
    assert found.value == pytest.approx(best, abs=1e-6) == value_of(rewards, found.teacher)
    assert found.gap == pytest.approx(0, abs=1e-6)


def pool(number=300, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((number, width)) + np.linspace(0, 0.5, width), np.array([1.0, 2, 4, 8, 16])[:width]


def test_quotas_are_met_exactly():
    """The argmax would give the last teacher most; min 30 % and max 25 % leave 75 and 90 of 300."""
    rewards, _ = pool()
    found = core.allocate(rewards, core.bounds_of(300, [0.3, 0, 0, 0, 0], [1, 1, 1, 1, 0.25]))
    counts = np.bincount(found.teacher)
    assert counts[0] == 90 and counts[4] == 75 and counts.sum() == 300 and found.gap == 0


def test_without_bounds_it_is_the_argmax_and_the_given_choice_between_equals():
    rewards, cost = pool()
    open_ = core.bounds_of(300, np.zeros(5), np.ones(5), cost)
    assert (core.allocate(rewards, open_).teacher == rewards.argmax(axis=1)).all()
    equal = np.zeros((4, 2))
    two = core.bounds_of(4, [0, 0], [1, 1])
    assert core.allocate(equal, two).teacher.tolist() == [0, 0, 0, 0]
    assert core.allocate(equal, two, first=np.array([1, 0, 1, 1])).teacher.tolist() == [1, 0, 1, 1]


def test_equal_prompts_get_their_teachers_in_order():
    found = core.allocate(np.tile([1.0, 0.5], (6, 1)), core.bounds_of(6, [0, 0], [0.5, 1]))
    assert found.teacher.tolist() == [0, 0, 0, 1, 1, 1] and found.value == 4.5


def test_more_money_never_buys_less():
    rewards, cost = pool(60)
    least = core.least_cost(60, core.bounds_of(60, np.zeros(5), np.ones(5), cost))
    assert least == 60
    totals = np.linspace(least, 60 * 9.0, 12)
    found = [core.allocate(rewards, core.bounds_of(60, np.zeros(5), np.ones(5), cost, total)) for total in totals]
    values = [one.value + one.gap for one in found]
    assert all(one.gap <= 1e-3 for one in found)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(values))
    assert all(cost[one.teacher].sum() <= total for one, total in zip(found, totals, strict=True))
    assert found[0].price > found[-1].price >= 0


def test_the_order_of_prompts_and_teachers_does_not_matter():
    rewards, cost = pool(200)
    low, high = np.array([0.1, 0, 0.2, 0, 0]), np.array([1, 1, 1, 0.3, 0.2])
    found = core.allocate(rewards, core.bounds_of(200, low, high, cost, 900)).teacher
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(200), rng.permutation(5)
    bounds = core.bounds_of(200, low[columns], high[columns], cost[columns], 900)
    again = core.allocate(rewards[rows][:, columns], bounds).teacher
    assert (columns[again] == found[rows]).all()


@pytest.mark.parametrize("kind", ["continuous", "clusters", "same"])
def test_many_prompts_by_the_prices_of_a_sample(kind):
    """The certificate says optimal; the linear programme over everything agrees."""
    rewards, cost = pool(6000)
    if kind != "continuous":
        rewards = rewards[np.random.default_rng(2).integers(0, 12 if kind == "clusters" else 1, 6000)]
    quotas = core.bounds_of(6000, [0.05] * 5, [1, 1, 1, 0.3, 0.2], cost)
    found = core.allocate(rewards, quotas)
    assert within(found.teacher, quotas) and found.gap == 0
    both = quotas._replace(total=6000 * 4.0)
    tight = core.allocate(rewards, both)
    assert within(tight.teacher, both) and tight.value <= found.value and tight.gap <= 1e-4 * tight.value
    assert (core.allocate(rewards, both).teacher == tight.teacher).all(), "the same again"


def test_the_dual_certificate_agrees_with_the_whole_programme(monkeypatch):
    rewards, cost = pool(2500)
    bounds = core.bounds_of(2500, [0.1] * 5, [0.25] * 5, cost)
    fast = core.allocate(rewards, bounds)
    monkeypatch.setattr(core, "SMALL", 2500)
    assert core.allocate(rewards, bounds).value == pytest.approx(fast.value, abs=1e-6)


def test_the_frontier_rises_with_its_cost():
    rewards, cost = pool(400)
    points = core.frontier(rewards, core.bounds_of(400, np.zeros(5), np.ones(5), cost))
    costs, means = [point.cost for point in points], [point.reward for point in points]
    assert costs == sorted(costs) and means == sorted(means) and len(points) == 9
    assert costs[0] == 1 and means[-1] == pytest.approx(rewards.max(axis=1).mean()) and points[-1].price == 0
    flat = core.frontier(rewards, core.bounds_of(400, np.zeros(5), np.ones(5), np.ones(5)))
    assert len(flat) == 1, "where all cost the same there is nothing to trade"


@pytest.mark.parametrize(
    ("low", "high", "total", "message"),
    [
        ([0.6, 0.6], [1, 1], None, "`budget.min` asks for 12 prompts in all, there are 10; lower a share"),
        ([0, 0], [0.4, 0.3], None, "`budget.max` leaves room for 7 prompts in all, there are 10; raise a share"),
        (
            [0, 0.5],
            [1, 1],
            20,
            "`budget.total` is 20, the cheapest assignment that `min` and `max` allow costs 55; "
            "raise the total or change the shares",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_is_named(low, high, total, message):
    with pytest.raises(RecipeError) as caught:
        core.bounds_of(10, low, high, [1.0, 10.0], total)
    assert str(caught.value) == message
