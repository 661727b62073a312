"""Comparisons: all of them once, balanced, and the same whatever the order of the pool."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.pairs import compare_teachers, preferences, win_shares
from persyn_hf.errors import InputError


def rows(found, ids, pool):
    cells = zip(found.prompt, found.a, found.b, found.label, found.margin, strict=True)
    return {(ids[p], pool[a], pool[b], label, round(margin, 9)) for p, a, b, label, margin in cells}


@given(st.integers(2, 20))
def test_n_teachers_give_half_n_times_n_minus_one_comparisons(n):
    found = compare_teachers(["p", "q"], [f"t{i}" for i in range(n)], np.random.default_rng(n).random((2, n)))
    assert len(found.label) == 2 * n * (n - 1) // 2
    pairs = {(p, *sorted((a, b))) for p, a, b in zip(found.prompt, found.a, found.b, strict=True)}
    assert len(pairs) == len(found.label)


def test_nineteen_teachers_give_171_not_190():
    assert len(compare_teachers(["p"], [str(i) for i in range(19)], np.arange(19.0)[None]).label) == 171


def test_the_label_says_whether_b_is_preferred():
    found = compare_teachers(["p"], ["a", "b"], [[0.2, 0.9]])
    assert found.label.tolist() == ([1.0] if found.b[0] == 1 else [0.0])
    assert found.margin.tolist() == pytest.approx([0.7] if found.b[0] == 1 else [-0.7])


def test_ties_and_missing_cells_are_counted():
    found = compare_teachers(["p", "q"], ["a", "b", "c"], [[0.5, 0.5 + 5e-7, 0.1], [np.nan, 1.0, 0.0]])
    assert (found.ties, found.missing_cells, found.skipped) == (1, 1, 2)
    assert sorted(found.label.tolist())[1:-1].count(0.5) == 1
    assert len(found.label) == 4


def test_labels_are_balanced_even_when_the_pool_is_sorted_by_reward():
    ids = [f"prompt-{i}" for i in range(500)]
    found = compare_teachers(ids, [f"t{i}" for i in range(10)], np.tile(np.arange(10.0), (500, 1)))
    assert abs(found.label.mean() - 0.5) < 3 * 0.5 / len(found.label) ** 0.5
    first = found.label[(found.a + found.b == 1)]  # one pair over all prompts is balanced too
    assert 0.4 < first.mean() < 0.6


@given(st.permutations(range(5)))
def test_the_order_of_the_pool_does_not_matter(order):
    ids, pool = ["p", "q", "r"], ["e", "a", "d", "b", "c"]
    rewards = np.random.default_rng(0).random((3, 5))
    expected = rows(compare_teachers(ids, pool, rewards), ids, pool)
    shuffled = [pool[i] for i in order]
    assert rows(compare_teachers(ids, shuffled, rewards[:, order]), ids, shuffled) == expected


def test_nothing_gives_nothing():
    assert len(compare_teachers([], ["a", "b"], np.zeros((0, 2))).label) == 0


def test_a_part_of_the_prompts_gives_its_part_of_the_comparisons():
    ids, pool, rewards = list("pqrst"), ["a", "b", "c"], np.random.default_rng(0).random((5, 3))
    parts = [compare_teachers(ids[part], pool, rewards[part]) for part in (slice(0, 2), slice(2, 5))]
    found = set.union(
        *(rows(one, ids[part], pool) for one, part in zip(parts, (slice(0, 2), slice(2, 5)), strict=True))
    )
    assert found == rows(compare_teachers(ids, pool, rewards), ids, pool)


def columns(*cells: tuple[str, str, str, float]) -> dict[str, list]:
    names = ("prompt_id", "teacher_a", "teacher_b", "label")
    return {name: list(values) for name, values in zip(names, zip(*cells, strict=True), strict=True)}


def test_preferences_and_won_shares_by_hand():
    """b beats a on p, twice against once; c was compared to nobody there; on q a and c are equal."""
    given = columns(("p", "a", "b", 1.0), ("p", "b", "a", 0.0), ("p", "a", "b", 0.0), ("q", "c", "a", 0.5))
    ids, preferred = preferences(given, ["a", "b", "c"])
    nan = np.nan
    assert ids == ["p", "q"]
    np.testing.assert_allclose(preferred[0], [[nan, 1 / 3, nan], [2 / 3, nan, nan], [nan, nan, nan]])
    np.testing.assert_allclose(preferred[1], [[nan, nan, 0.5], [nan, nan, nan], [0.5, nan, nan]])
    np.testing.assert_allclose(win_shares(preferred), [[1 / 3, 2 / 3, nan], [0.5, nan, 0.5]])


def test_won_shares_order_teachers_as_their_rewards_do():
    rewards, pool = np.random.default_rng(1).random((20, 6)), list("abcdef")
    found = compare_teachers([str(i) for i in range(20)], pool, rewards)
    given = {
        "prompt_id": [str(i) for i in found.prompt],
        "teacher_a": [pool[i] for i in found.a],
        "teacher_b": [pool[i] for i in found.b],
        "label": found.label,
    }
    shares = win_shares(preferences(given, pool)[1])
    assert (np.argsort(shares, axis=1) == np.argsort(rewards, axis=1)).all()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            ("p", "a", "z", 1.0),
            "the pairs name the teacher `z`, the pool holds a, b; add it to `teachers`",
        ),
        (
            ("p", "a", "b", 2.0),
            "the pairs hold the label 2.0 for prompt p, a number from 0 (A preferred) to 1 (B preferred) is needed; "
            "mend that row or leave it out",
        ),
    ],
)
def test_pairs_that_cannot_be_used(cell, message):
    with pytest.raises(InputError) as caught:
        preferences(columns(cell), ["a", "b"])
    assert str(caught.value) == message
