"""References of users' tables: lists that are all of the answer or alternatives, spelt in every way."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persyn_hf.backends.grading.pool import Verifier
from persyn_hf.backends.references import (
    alternatives,
    any_of,
    cell_of,
    column_of,
    is_unclear,
    of_each,
    read_reference,
)


FOUR = '{"any": ["4", "four"]}'


@pytest.mark.parametrize(
    ("cell", "undecided", "every", "some"),
    [
        (["4", "four"], "4, four", "4, four", FOUR),
        ('["4", "four"]', '["4", "four"]', "4, four", FOUR),  # PopQA's column of text
        ("['4', 'four']", "['4', 'four']", "4, four", FOUR),  # a list that pandas has written to CSV
        ("['4' 'four']", "['4' 'four']", "4, four", FOUR),  # an array of numpy, likewise
        ([4, 4.0, 4], "4, 4.0, 4", "4, 4.0, 4", '{"any": ["4", "4.0"]}'),
        ([["1", "2"], ["3"]], "1, 2, 3", "1, 2, 3", '{"any": ["1, 2", "3"]}'),
        (["4", "4 ", ""], "4, 4", "4, 4", "4"),
        ("[1, 2]", "[1, 2]", "[1, 2]", "[1, 2]"),  # an interval
        ("4", "4", "4", "4"),
        (4, "4", "4", "4"),
        ([], None, None, None),
        (["", None], None, None, None),
        (float("nan"), None, None, None),
        ({"text": ["4"]}, None, None, None),
        ('["4"', '["4"', '["4"', '["4"'),
        ('["4", 5]', '["4", 5]', '["4", 5]', '["4", 5]'),
    ],
)
def test_a_list_is_read_as_the_setting_says(
    cell: Any, undecided: str | None, every: str | None, some: str | None
) -> None:
    assert [read_reference(cell, lists) for lists in (None, "all", "any")] == [undecided, every, some]


def test_cells_whose_meaning_depends_on_the_setting_are_told() -> None:
    assert [is_unclear(cell) for cell in (["4", "four"], '["4"]', [4, 5])] == [True] * 3
    assert [is_unclear(cell) for cell in (["4"], [4, 4], "[1, 2]", "4", 4, None, [])] == [False] * 7


@given(st.lists(st.text(min_size=1).filter(str.strip)))
@settings(max_examples=50)
def test_alternatives_come_back_as_they_were_stored(texts: list[str]) -> None:
    lines = [text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in texts]
    stored = read_reference(texts, "any")
    assert (alternatives(stored) if stored else []) == list(dict.fromkeys(lines))


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda x: json.dumps({"any": x})))
@settings(max_examples=50)
def test_any_text_is_one_reference_or_several(text: str) -> None:
    found = alternatives(text)
    assert found == [text] or found == json.loads(text)["any"]


def test_what_is_cut_out_of_a_reference_is_cut_out_of_each_alternative() -> None:
    assert of_each(FOUR, lambda text: text + "!") == '{"any": ["4!", "four!"]}'
    assert of_each(FOUR, lambda text: text if text == "4" else None) == "4"
    assert of_each(FOUR, lambda text: None) is None
    assert of_each("4", lambda text: "5") == "5"


def test_right_by_one_is_right_and_in_doubt_it_is_not_known() -> None:
    assert any_of([False, None, True]) is True
    assert any_of([False, None]) is None
    assert any_of([False, False]) is False


def test_a_field_of_a_struct_is_named_with_a_dot() -> None:
    row = {"answer": {"aliases": ["4"], "value": "4"}, "a.b": 1}
    assert (column_of("answer.aliases", ["answer"]), cell_of(row, "answer.aliases")) == ("answer", ["4"])
    assert (column_of("a.b", ["a.b", "a"]), cell_of(row, "a.b")) == ("a.b", 1)  # a column that is called so
    assert (column_of("no.field", ["answer"]), cell_of(row, "answer.no"), cell_of(row, "no.field")) == (
        "no.field",
        None,
        None,
    )


def test_an_answer_is_right_that_agrees_with_any_alternative() -> None:
    half = '{"any": ["4", "1/2"]}'
    pairs = [(half, "\\boxed{0.5}"), (half, "\\boxed{4}"), (half, "\\boxed{5}"), ("4", "\\boxed{4}")]
    doubtful = '{"any": ["4", "5 hundred"]}'  # the second cannot be used
    pairs += [(doubtful, "\\boxed{4}"), (doubtful, "\\boxed{500}")]
    with Verifier() as verifier:
        assert verifier.grade(pairs) == [True, True, False, True, True, None]
        assert verifier.parses([half, doubtful, '{"any": ["?", "5 hundred"]}', "4"]) == [True, True, False, True]
