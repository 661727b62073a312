"""Which answers are preferred to which, by verdicts and rewards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.preferences import Candidate, labels_of, pairs_of


A = Candidate("a", "right and liked", True, 0.9)
B = Candidate("b", "wrong and liked", False, 0.8)
C = Candidate("c", "right", True, 0.5)
D = Candidate("d", "wrong", False, 0.1)
E = Candidate("e", "nobody judged", None, 0.7)


def names(pairs):
    return [pair.chosen.teacher + pair.rejected.teacher for pair in pairs]


def test_the_example_of_the_docstring():
    found = pairs_of([A, B, C], most=9)
    assert names(found) == ["ab", "cb", "ac"]
    assert [pair.margin for pair in found] == pytest.approx([0.1, -0.3, 0.4])


def test_right_against_wrong_comes_first_and_of_two_wrong_neither_is_preferred():
    assert names(pairs_of([A, B, C, D], most=9)) == ["ad", "cd", "ab", "cb", "ac"]
    assert pairs_of([B, D], most=9) == []


def test_an_unjudged_answer_is_preferred_by_reward_but_never_to_a_right_one():
    assert names(pairs_of([E, C], most=9)) == []
    assert names(pairs_of([E, D], most=9)) == ["ed"]
    assert names(pairs_of([A, E], most=9)) == ["ae"]


def test_a_margin_is_for_what_verdicts_do_not_decide():
    assert names(pairs_of([A, B, C], most=9, margin=0.4)) == ["ab", "cb"]
    assert names(pairs_of([A, C], most=9, margin=0.39)) == ["ac"]


def test_equal_texts_and_answers_of_one_teacher_are_no_pair():
    again = Candidate("b", " right and liked ", False, 0.0)
    assert pairs_of([A, again]) == []
    other = Candidate("a", "wrong this time", False)
    assert pairs_of([A, other]) == []
    assert [pair.margin for pair in pairs_of([A, other], same_teacher=True)] == [None]


def test_two_teachers_that_say_the_same_make_one_pair():
    again = Candidate("z", "right and liked", True, 0.85)
    assert names(pairs_of([A, again, B], most=9)) == ["ab"]


def test_labels():
    """The median of 0.9, 0.7 and 0.2 is 0.7."""
    unjudged = [Candidate("a", "x", None, reward) for reward in (0.9, 0.7, 0.2)]
    assert labels_of(unjudged) == [True, None, False]
    assert labels_of(unjudged, margin=0.3) == [None, None, False]
    assert labels_of([A, B, Candidate("z", "no reward", None)]) == [True, False, None]
    assert labels_of([]) == []


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        teacher=st.sampled_from("abc"),
        text=st.sampled_from(["", "x", "y", "z "]),
        is_correct=st.sampled_from([True, False, None]),
        reward=st.none() | st.floats(-1, 1),
    ),
    max_size=7,
)


@given(CANDIDATES, st.integers(1, 5), st.floats(0, 1), st.booleans())
def test_no_pair_prefers_what_is_worse(candidates, most, margin, same):
    found = pairs_of(candidates, most=most, margin=margin, same_teacher=same)
    assert len(found) <= most
    for pair in found:
        assert pair.chosen.is_correct is not False and (same or pair.chosen.teacher != pair.rejected.teacher)
        assert not (pair.rejected.is_correct and not pair.chosen.is_correct)
        decided = (pair.chosen.is_correct, pair.rejected.is_correct) == (True, False)
        assert decided or pair.margin > margin
    whole = pairs_of(candidates, most=99, margin=margin, same_teacher=same)
    assert whole[:most] == found
    one_way = {(id(pair.chosen), id(pair.rejected)) for pair in whole}
    assert not one_way & {(b, a) for a, b in one_way}
