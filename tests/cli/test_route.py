"""`persyn route` says for each prompt of a file which teacher is to answer it, as `load_router` does in Python."""

import json
from pathlib import Path
from typing import Any

import pytest
from rows import write_lines

import persyn_hf
from persyn_hf.cli.main import main


ROUTER = "tiny/smoke-router-qwen-student@v1"
QUESTIONS = ["What is 12 + 5?", "Tom has 5 apples and buys 7 more. How many apples does Tom have?", "3 * 4 = ?"]


@pytest.fixture
def store(finished: tuple[Path, float]) -> str:
    return str(finished[0])


def routed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_rows_are_those_of_python_and_the_best_score_wins(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "q.jsonl"
    write_lines(file, [{"question": question, "n": place} for place, question in enumerate(QUESTIONS)])
    assert main(["route", ROUTER, str(file), "--store", store]) == 0
    said = capsys.readouterr()
    rows = routed(said.out)
    router = persyn_hf.load_router(ROUTER, store=store)
    expected = [dict(row) for row in router.predict(QUESTIONS)]
    assert [row["prompt"] for row in rows] == QUESTIONS
    for row, known in zip(rows, expected, strict=True):
        assert row["scores"] == dict(zip(router.teachers, known["scores"], strict=True))
        assert row["teacher"] == known["teacher"] == max(row["scores"], key=row["scores"].get)
        assert (row["prompt_id"], row["margin"]) == (known["prompt_id"], known["margin"])
    assert said.err.startswith("3 prompts: ")
    assert "confidence is null" in said.err, "six dev prompts do not say how sure it is"


def test_a_row_without_a_prompt_keeps_its_place(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": "17"}]
    write_lines(tmp_path / "q.jsonl", [{"messages": turns}, {"messages": ""}, {"messages": 7}, {"messages": "x"}])
    out = tmp_path / "routed.jsonl"
    assert main(["route", ROUTER, str(tmp_path / "q.jsonl"), "--store", store, "--out", str(out)]) == 0
    said = capsys.readouterr()
    first, empty, number, last = routed(out.read_text())
    assert first["teacher"] and last["teacher"] and first["prompt"] == turns
    assert empty["teacher"] is None and empty["error"] == "no prompt: empty"
    assert number["teacher"] is None and number["error"] == "no prompt"
    assert said.out == "" and "2 rows hold no prompt and have no teacher" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.jsonl", "routed.jsonl"]


@pytest.mark.parametrize(
    ("ref", "more", "told"),
    [
        (ROUTER, ["--column", "qestion"], "has no column `qestion`, did you mean `question`?"),
        (ROUTER, [], "has no column prompt or messages"),
        ("tiny/smoke-prompts@v1", ["--column", "question_"], "is of kind `prompts`, needed is a router"),
        (ROUTER, ["--column", "question_", "--out", "/no/such/folder/x"], "/no/such/folder cannot be written"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    ref: str, more: list[str], told: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "question_" if "question_" in more else "question" if more else "frage"
    write_lines(tmp_path / "q.jsonl", [{name: QUESTIONS[0]}])
    assert main(["route", ref, str(tmp_path / "q.jsonl"), "--store", store, *more]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") == 1
