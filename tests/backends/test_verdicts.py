"""Verdicts of judges: a table of replies, and that nothing is ever guessed."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_replies import SCORES, WINNERS

from persyn_hf.backends.judging.verdicts import (
    MOST_REASON,
    WINNER_FORM,
    Form,
    Verdict,
    read_reason,
    read_verdict,
    score_form,
)
from persyn_hf.backends.thoughts import split_thoughts


ONE_TO_TEN = score_form(1, 10)


def read(reply: str, form: Form = ONE_TO_TEN, *, is_cut: bool = False) -> float | str | None:
    verdict = read_verdict(split_thoughts(reply)[0], form, is_cut=is_cut)
    assert (verdict.value is None) != (verdict.fault is None)
    return verdict.fault or verdict.value


@pytest.mark.parametrize(("reply", "stated"), SCORES)
def test_a_score_is_read_or_the_reason_is_said(reply: str, stated: float | str) -> None:
    assert read(reply) == stated


@pytest.mark.parametrize(("reply", "stated"), WINNERS)
def test_a_winner_is_read_or_the_reason_is_said(reply: str, stated: float | str) -> None:
    assert read(reply, WINNER_FORM) == stated


def test_the_table_is_large_enough_to_mean_something() -> None:
    assert len(SCORES) + len(WINNERS) > 130
    assert {stated for _, stated in SCORES if isinstance(stated, str)} == {
        "empty",
        "no_verdict",
        "off_scale",
        "several",
    }


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        ('{"reason": "Good.", "score": 8}', 8),  # a grammar that allows white space goes on with it to the limit
        ('{"reason": "Good.", "score": 8}\n\n   ', 8),
        ('```json\n{"score": 8}\n```', 8),
        ('{"reason": "Good, but', "cut"),
        ('{"score": 8}\n\nOn reflection', "cut"),
        ("Score: 8", "cut"),  # of 8.5, perhaps
        ("8", "cut"),
        ("", "cut"),
    ],
)
def test_a_reply_that_was_cut_counts_only_as_a_whole_object(reply: str, stated: float | str) -> None:
    assert read(reply, is_cut=True) == stated


def test_zero_is_a_score_where_the_scale_has_it() -> None:
    binary = score_form(0, 1)
    assert read('{"score": 0}', binary) == read("0", binary) == read("0/1", binary) == 0
    assert read('{"score": 2}', binary) == read("0/10", binary) == "off_scale"


@given(st.text())
def test_text_has_no_score_without_a_digit_and_none_outside_the_scale(text: str) -> None:
    for form in (ONE_TO_TEN, WINNER_FORM):
        for is_cut in (False, True):
            verdict = read_verdict(text, form, is_cut=is_cut)
            assert (verdict.value is None) != (verdict.fault is None)
    value = read_verdict(text, ONE_TO_TEN).value
    assert value is None or (1 <= value <= 10 and any(letter in "0123456789" for letter in text))


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="0123456789{}[]<"), max_size=40)


@given(WORDS, st.integers(1, 10), st.booleans(), WORDS)
def test_a_score_in_json_is_read_whatever_the_reason_says(reason: str, score: int, fenced: bool, before: str) -> None:
    body = json.dumps({"reason": reason, "score": score}, ensure_ascii=False)
    reply = f"```json\n{body}\n```" if fenced else body
    assert read_verdict(f"{before}\n{reply}", ONE_TO_TEN) == Verdict(value=score)


@given(st.integers(1, 10), st.integers(1, 10), st.sampled_from(['{{"score": {}}}', "Score: {}", "[[{}]]"]))
def test_two_scores_that_differ_are_none(first: int, second: int, form: str) -> None:
    found = read_verdict(f"{form.format(first)}\n\n{form.format(second)}", ONE_TO_TEN)
    assert found == (Verdict(value=first) if first == second else Verdict(fault="several"))


@pytest.mark.parametrize(
    "part", ["{", '{"a":', "[[", "Score: ", "\n", " ", "*", "<score>", "[RESULT]", '{"score": 8}']
)
def test_long_replies_take_no_time(part: str) -> None:
    begun = time.process_time()
    read_verdict(part * (150_000 // len(part)), ONE_TO_TEN)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('{"reason": " It is short. ", "score": 8}', "It is short."),
        ('Well: ```json\n{"score": 8, "Reason": "x"}\n```', "x"),
        ('{"score": 8}', '{"score": 8}'),
        ('{"reason": 7, "score": 8}', '{"reason": 7, "score": 8}'),
        ('{"reason": "cut o', '{"reason": "cut o'),
        ('{"reason": "a \\ud800 half", "score": 8}', "a ? half"),
        ("I like it.", "I like it."),
        ("", ""),
    ],
)
def test_a_reason_is_read_for_people(reply: str, reason: str) -> None:
    assert read_reason(reply) == reason


@given(st.text() | st.builds(lambda text: json.dumps({"reason": text, "score": 1}), st.text()))
def test_a_reason_can_be_stored_whatever_was_replied(reply: str) -> None:
    assert len(read_reason(reply).encode()) <= 4 * MOST_REASON
