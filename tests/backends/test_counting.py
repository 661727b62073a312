"""Tokens of answers whose server sends no usage, counted by a tokenizer that is at hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_samples import answer, request

from persyn_hf.backends.answers import Answer, Entry, Listed, Request
from persyn_hf.backends.engines import ask
from persyn_hf.backends.engines.counting import Counter, fill, fill_answers, open_counter
from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import ServerSettings
from persyn_hf.backends.journal import Journal, read_spent
from persyn_hf.backends.journal_spent import Count
from persyn_hf.errors import BudgetReached, InputError
from persyn_hf.stage import Limits, Silent


class Words:
    """A tokenizer whose tokens are words."""

    def __init__(self, chat_template: str | None = None) -> None:
        self.chat_template = chat_template

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0}

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [0] * len(text.split())}

    def apply_chat_template(self, messages: list[Any], **options: Any) -> str:
        if len(messages) > 1:
            raise ValueError("no system turn")
        return f"BEGIN {messages[0]['content']} END ANSWER"


def served(name: str, *contents: str) -> Request:
    turns = tuple({"role": "user", "content": content} for content in contents or ("one two three",))
    return replace(request(name), prompt=replace(request().prompt, num_tokens=0, messages=turns))


def counter(template: str | None = "t") -> Counter:
    return Counter(Words(template))  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "j.sqlite", recipe="r") as opened:
        yield opened


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Count(6, 3)),  # BEGIN one two three END ANSWER; and the end of the answer
        ({"finish_reason": "length"}, Count(6, 2)),
        ({"reasoning": "let me see"}, Count(6, 6)),
        ({"text": "", "finish_reason": "length"}, None),  # thoughts that nobody sees are not 0 tokens
        ({"num_prompt_tokens": 50}, Count(0, 3)),  # what the server counts is not counted again
    ],
)
def test_what_the_server_does_not_count_is_counted(said: dict[str, Any], expected: Count | None) -> None:
    to = served("a")
    assert counter().count(to, answer(to, **{"text": "It is.", "num_tokens": None, **said})) == expected


def test_a_conversation_that_the_template_refuses_is_counted_without_it() -> None:
    for by, to in ((counter(), served("a", "one two", "three")), (counter(None), served("a"))):
        assert by.count(to, answer(to, num_tokens=None)) == Count(3, 2)


def test_counts_stand_beside_what_the_server_said(journal: Journal) -> None:
    """The answers stay as they were; the sums of the recipe know the counts, and a reader, too."""
    answers = [
        answer(served("a"), "It is.", num_tokens=None),
        answer(served("b"), "It is.", num_tokens=7, num_prompt_tokens=None),
        answer(served("c"), "It is.", num_tokens=None, num_prompt_tokens=9),
        answer(request("d")),
        answer(served("e"), "", error="HTTP 500", num_tokens=0),
    ]
    journal.write(answers, teacher="t")
    assert journal.spent("r")["t"].uncounted == 3
    filled = fill_answers(counter(), journal, answers)
    numbers = [(each.num_prompt_tokens, each.num_tokens, each.counted_here) for each in filled]
    assert numbers == [(6, 3, True), (6, 7, True), (9, 3, True), (None, 2, False), (None, 0, False)]
    spent = journal.spent("r")["t"]
    assert (spent.requests, spent.prompt_tokens, spent.completion_tokens) == (5, 6 + 6 + 9 + 3, 3 + 7 + 3 + 2)
    assert (spent.uncounted, spent.counted_here) == (0, 3)
    assert read_spent(journal.path, "r")["t"] == spent
    entries = journal.read([answers[0].request.key])
    assert entries[answers[0].request.key].num_tokens is None, "what the server said"


def test_an_answer_is_counted_once_by_each_tokenizer_and_the_last_one_counts(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = served("a")
    journal.write([answer(to, "It is.", num_tokens=None)], teacher="t")

    def read(by: Counter) -> Entry:
        return fill(by, journal, {to.key: to}, journal.read([to.key]))[to.key]

    assert (read(counter()).num_prompt_tokens, read(counter()).num_tokens) == (6, 3)
    assert read(counter(None)).num_prompt_tokens == 3
    assert journal.spent("r")["t"].prompt_tokens == 3
    monkeypatch.setattr(Counter, "count", None)  # it would fail
    assert read(counter(None)).counted_here
    with pytest.raises(TypeError):
        read(counter())


def test_a_journal_of_an_earlier_version_gets_its_tables(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "j.sqlite"
    with Journal(path, recipe="r") as journal:
        journal.write([answer(served("a"), num_tokens=None)], teacher="t")
    db = sqlite3.connect(path)
    for name in ("counts", "counted"):
        db.execute(f"DROP TABLE {name}")
    db.commit()
    db.close()
    assert read_spent(path, "r")["t"].uncounted == 1
    with Journal(path, recipe="r") as journal:
        fill_answers(counter(), journal, [answer(served("a"), num_tokens=None)])
    assert (read_spent(path, "r")["t"].uncounted, read_spent(path, "r")["t"].counted_here) == (0, 1)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.sampled_from("tu"), st.booleans()), max_size=30)
)
@settings(max_examples=30, deadline=None)
def test_sums_are_those_of_the_answers_whatever_is_counted_when(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool, str, bool]]
) -> None:
    expected: dict[str, Answer] = {}
    with Journal(tmp_path_factory.mktemp("j") / "j.sqlite", recipe="r") as journal:
        for name, is_counted, template, later in steps:
            said = answer(
                served(name), num_prompt_tokens=5 if is_counted else None, num_tokens=2 if is_counted else None
            )
            first = expected.setdefault(name, said)
            journal.write([said], teacher="t")
            if not later:
                expected[name] = fill_answers(counter(None if template == "t" else "u"), journal, [first])[0]
        if expected:
            spent = journal.spent("r")["t"]
            assert spent.prompt_tokens == sum(said.num_prompt_tokens or 0 for said in expected.values())
            assert spent.completion_tokens == sum(said.num_tokens or 0 for said in expected.values())
            assert spent.counted_here == sum(said.counted_here for said in expected.values())
            assert spent.uncounted == sum(not said.num_tokens for said in expected.values())


def test_a_limit_on_money_is_kept_by_what_is_counted_here(journal: Journal) -> None:
    """Answers of 6 and 2 tokens at 1 per token; the bound of a request is its bytes and `max_tokens`: 3 and 16."""

    class Served(ServerEngine):
        counter = counter()  # type: ignore[assignment]

        def generate(self, batches: Any) -> Any:
            for batch in batches:
                yield [answer(each, num_tokens=None) for each in batch]

    budget = Budget(
        Limits(max_cost=30), generations=0, cost=0.0, money=lambda teacher, prompt, tokens, seconds: prompt + tokens
    )
    engine = Served("m", ServerSettings(urls=("http://127.0.0.1:1",)))
    tally = ask.Tally(teacher="t", progress=Silent(), total=9)
    options = {"batch_tokens": 1, "max_error_rate": 0.5, "rerun_errors": False, "arrived": lambda answers: None}
    with pytest.raises(BudgetReached, match=r"this recipe has spent 16"):
        ask.answer(Listed(served(name) for name in "abcdefghi"), engine, journal, budget, tally, **options)
    assert (journal.spent("r")["t"].requests, journal.spent("r")["t"].counted_here) == (2, 2)


def test_a_tokenizer_is_that_which_is_named_else_that_of_a_folder(zoo: Path, tmp_path: Path) -> None:
    folder = str(zoo / "qwen-student")
    of_model, named = open_counter(folder, None), open_counter("gpt-5", folder)
    assert of_model is not None and named is not None and of_model.name == named.name
    assert open_counter("org/model", None) is None  # nothing is asked of the Hub
    (tmp_path / "tokenizer.json").write_text("{")
    assert open_counter(str(tmp_path), None) is None
    with pytest.raises(InputError, match=r"the tokenizer of `.*` cannot be loaded"):
        open_counter("gpt-5", str(tmp_path))


def test_the_count_of_a_real_tokenizer_is_that_of_its_template(zoo: Path) -> None:
    """Against the tokenizer's own tokens of the whole conversation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(zoo / "qwen-student")
    to = served("a", "What is 2 + 2?")
    count = Counter(tokenizer).count(to, answer(to, "It is 4.", num_tokens=None))
    assert count is not None
    messages = [dict(turn) for turn in to.prompt.messages]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert count.prompt == len(asked)
    assert count.generated == len(tokenizer("It is 4.", add_special_tokens=False)["input_ids"]) + 1
