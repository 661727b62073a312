"""Cells as published sets have them: whose roles and keys are read, and what is no conversation."""

from typing import Any

import pytest

from persyn_hf.backends.source_cells import as_text, as_turns, last_answers, read_prompt


ASKED = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    "cell",
    [
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],  # Tulu 3, UltraChat 200k
        [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],  # ShareGPT, Magpie
        [{"from": "user", "value": "Why?"}, {"from": "chatgpt", "value": "So."}],
        [{"from": "human", "value": "Why?", "weight": None}, {"from": "bard", "value": "So.", "weight": 1.0}],
        [{"role": "prompter", "text": "Why?"}, {"role": "assistant", "text": "So."}],  # OpenAssistant
        [{"role": "User", "content": "Why?"}, {"role": "Bing", "content": "So."}],
        [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],  # parts of content
        {"role": ["user", "assistant"], "content": ["Why?", "So."]},  # a sequence of structs
        {"from": ["human"], "value": ["Why?"]},
        [{"role": None, "from": "human", "content": None, "value": "Why?"}],  # structs made one by Arrow
        '[{"role": "user", "content": "Why?"}]',
        "[{'from': 'human', 'value': 'Why?'}]",
        "\r\nWhy?\r\n",
    ],
)
def test_the_words_of_published_sets_are_one_prompt(cell: Any) -> None:
    assert read_prompt({"p": cell}, "p") == ASKED


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([{"role": "user", "content": "Why?"}, {"role": "tool", "content": "7"}], "not_text"),  # ends with a tool's
        ([{"role": "narrator", "content": "Why?"}], "not_text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "not_text"),
        ([{"role": "user", "content": None}], "not_text"),
        ([{"role": "user"}], "not_text"),
        (["Why?", "So."], "not_text"),  # texts without roles
        ({"role": ["user"], "content": []}, "not_text"),
        (7, "not_text"),
        ([], "empty"),
        (" \r\n", "empty"),
        (None, "empty"),
        (float("nan"), "empty"),
    ],
)
def test_what_is_no_prompt_has_a_reason(cell: Any, reason: str) -> None:
    assert read_prompt({"p": cell}, "p") == reason


def test_lines_end_alike_in_texts_and_in_turns() -> None:
    turns = [{"from": "system", "value": "a\r\nb"}, {"from": "human", "value": "c\rd\r\n"}]
    expected = [{"role": "system", "content": "a\nb"}, {"role": "user", "content": "c\nd"}]
    assert read_prompt({"p": turns}, "p") == expected
    assert read_prompt({"p": "c\r\nd\n"}, "p") == [{"role": "user", "content": "c\nd"}]


def test_a_text_that_is_only_like_messages_stays_a_text() -> None:
    for text in ("[1, 2]", "[{'a': 1}]", '[{"role": "user"', "[x] is what?", "[" * 3000, "[]"):
        assert read_prompt({"p": text}, "p") == [{"role": "user", "content": text}]


def test_tool_turns_are_kept_in_the_middle() -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "observation", "value": "b"}, {"from": "human", "value": "c"}]
    prompt = read_prompt({"p": turns}, "p")
    assert [turn["role"] for turn in prompt if isinstance(turn, dict)] == ["user", "tool", "user"]


def test_the_last_answers_are_those_behind_the_last_question() -> None:
    turns = as_turns([{"role": role, "content": text} for role, text in zip("uabuc", "12345", strict=True)])
    assert turns is None
    names = {"u": "user", "a": "assistant"}
    for order, found in (("uaua", ["4"]), ("uaa", ["2", "3"]), ("aaa", ["1", "2", "3"]), ("u", []), ("uau", ["2"])):
        cells = [{"role": names[role], "content": str(at)} for at, role in enumerate(order, start=1)]
        assert last_answers(as_turns(cells) or []) == found


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (["2", None, float("nan"), [3, "4"]], "2, 3, 4"),
        (1.5, "1.5"),
        (True, "True"),
        ({"a": 1}, ""),
        ("a\r\nb ", "a\nb"),
    ],
)
def test_a_cell_as_text(cell: Any, text: str) -> None:
    assert as_text(cell) == text


def test_a_cell_nested_deeply_is_no_text() -> None:
    cell: Any = "x"
    for _ in range(5000):
        cell = [cell]
    assert as_text(cell) == ""
    assert read_prompt({"p": cell}, "p") == "not_text"
