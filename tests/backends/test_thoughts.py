"""Answers and thoughts are told apart, whatever tags a model has for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends.thoughts import TAGS, split_thoughts


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_all_known_tags_are_read_in_every_place(opening: str, closing: str) -> None:
    assert split_thoughts(f"{opening}2 + 2{closing}\nIt is 4.") == ("It is 4.", "2 + 2")
    assert split_thoughts(f"2 + 2{closing}It is 4.") == ("It is 4.", "2 + 2")
    assert split_thoughts(f"2 + 2{closing}It is 4.", prompt=f"... {opening}\n") == ("It is 4.", "2 + 2")
    assert split_thoughts(f" {opening}2 + 2, hm") == ("", "2 + 2, hm")
    assert split_thoughts("2 + 2, hm", prompt=opening) == ("", "2 + 2, hm")
    assert split_thoughts(f"It is 4.{opening}or 5?{closing}") == ("It is 4.", "or 5?")
    assert split_thoughts(f"Sure!\n{opening}2 + 2{closing}\nIt is 4.") == ("Sure!\n\nIt is 4.", "2 + 2")
    assert split_thoughts(f"{opening}a{closing}first{closing}\nIt is 4.") == ("It is 4.", "a\nfirst")


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [
        ("It is 4.", "It is 4.", None),
        (" It is 4. \n", " It is 4. \n", None),
        ("Write <think> before your thoughts.", "Write <think> before your thoughts.", None),
        (
            "<|begin_of_thought|>hm<|end_of_thought|>\n\n<|begin_of_solution|>\nIt is 4.\n<|end_of_solution|>",
            "It is 4.",
            "hm",
        ),
        ("<think>hm</think>", "", "hm"),
        ("", "", None),
    ],
)
def test_an_answer_without_thoughts_stays_as_it_is(text: str, answer: str, thoughts: str | None) -> None:
    assert split_thoughts(text) == (answer, thoughts)


def test_a_recipe_may_name_more_tags() -> None:
    assert split_thoughts("<r>hm</r>It is 4.", more=[("<r>", "</r>")]) == ("It is 4.", "hm")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "[THINK]", "[/THINK]", "a", "\n", " "]), max_size=8),
    st.booleans(),
)
def test_nothing_of_the_text_is_lost_but_the_tags(parts: list[str], opened: bool) -> None:
    answer, thoughts = split_thoughts("".join(parts), "<think>" if opened else "")
    assert (answer + (thoughts or "")).count("a") == parts.count("a")
