"""Bradley-Terry strengths of a small tournament, against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.tournament import strengths


def test_two_answers_have_a_closed_form() -> None:
    assert strengths([[0, 2], [0, 0]]) == pytest.approx([np.log(5) / 2, -np.log(5) / 2])
    assert strengths([[0, 1.5], [0.5, 0]]) == pytest.approx([np.log(2) / 2, -np.log(2) / 2])  # a win and a tie
    assert strengths([[0, 20], [0, 0]])[0] > strengths([[0, 2], [0, 0]])[0], "more games weigh more"


def test_three_answers_of_which_each_beats_the_next() -> None:
    """A beats B and C, B beats C, twice each: by symmetry s, 0, -s, with 5 = 3 q(s) + 3 q(2s), q the sigmoid.

    A has won 4 and two halves, 5 of its 6 games; the expected number is 3 q(s) against B and 3 q(2s) against C.
    """
    found = strengths([[0, 2, 2], [0, 0, 2], [0, 0, 0]])
    assert found == pytest.approx([found[0], 0, -found[0]], abs=1e-9)
    chances = 1 / (1 + np.exp(-found[0] * np.array([1, 2])))
    assert 3 * chances.sum() == pytest.approx(5)


def test_ties_make_equals_and_so_does_a_circle() -> None:
    assert strengths([[0, 1], [1, 0]]) == pytest.approx([0, 0])
    assert strengths([[0, 2, 0], [0, 0, 2], [2, 0, 0]]) == pytest.approx([0, 0, 0])


def test_what_no_comparison_connects_has_no_strength() -> None:
    assert np.isnan(strengths([[0.0]])).all()
    assert np.isnan(strengths(np.zeros((0, 0)))).all()
    assert np.isnan(strengths(np.zeros((3, 3)))).all()
    apart = np.zeros((5, 5))
    apart[0, 1] = apart[1, 2] = apart[3, 4] = 2  # three are connected, and two others
    found = strengths(apart)
    assert np.isnan(found).tolist() == [False, False, False, True, True]
    assert found[0] > found[1] > found[2]
    apart[2, :] = apart[:, 2] = 0  # two pairs: neither is the larger
    assert np.isnan(strengths(apart)).all()


@given(st.integers(2, 8).flatmap(lambda n: st.lists(st.integers(0, 6), min_size=n * n, max_size=n * n)))
def test_the_expected_wins_are_the_wins(flat: list[int]) -> None:
    """At the most likely strengths every answer is expected to win as often as it did, the prior's ties included."""
    n = int(len(flat) ** 0.5)
    wins = np.array(flat, dtype=float).reshape(n, n)
    np.fill_diagonal(wins, 0)
    found = strengths(wins)
    known = np.flatnonzero(~np.isnan(found))
    if len(known):
        assert found[known].sum() == pytest.approx(0, abs=1e-6)
        part = wins[np.ix_(known, known)]
        part = part + 0.5 * (part + part.T > 0)
        chances = 1 / (1 + np.exp(found[known][None, :] - found[known][:, None]))
        expected = ((part + part.T) * chances).sum(axis=1)
        assert expected == pytest.approx(part.sum(axis=1), abs=1e-6)
