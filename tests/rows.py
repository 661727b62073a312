"""Rows of the datasets, of which a test says only what matters to it.

The schema gives the rest: null where a cell may be null, else empty, zero or false, or the word of USUAL.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from persyn_hf import schemas
from persyn_hf.contract import Column, Schema
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, SFT


EMPTY: dict[str, Any] = {"string": "", "int64": 0, "float64": 0.0, "bool": False}  # lists are empty lists
USUAL: dict[str, Any] = {
    "source": "test",
    "split": "pool",
    "finish_reason": "stop",
    "selected": True,
    "status": "ok",
}


def row(schema: Schema, **values: Any) -> dict[str, Any]:
    """A whole row of `schema`; a value for a column that it does not have is a slip of the test."""
    unknown = sorted(values.keys() - set(schema.names))
    assert not unknown, f"a row of `{schema.kind}` has no {unknown}"
    return {column.name: values.get(column.name, _usual(column)) for column in schema.columns}


def _usual(column: Column) -> Any:
    return None if column.nullable else USUAL.get(column.name, EMPTY.get(column.dtype, []))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def prompt(text: str, prompt_id: str | None = None, **values: Any) -> dict[str, Any]:
    """A prompt of one user turn, named by it where no name is given."""
    messages = values.pop("messages", user(text))
    return row(PROMPTS, prompt_id=prompt_id or schemas.prompt_id(messages), messages=messages, **values)


def assignment(prompt_id: str, teacher: str, **values: Any) -> dict[str, Any]:
    return row(ASSIGNMENTS, prompt_id=prompt_id, teacher=teacher, **{"source": "rule"} | values)


def response(prompt_id: str, teacher: str, text: str = "", **values: Any) -> dict[str, Any]:
    return row(RESPONSES, prompt_id=prompt_id, teacher=teacher, response=text, **values)


def reward(prompt_id: str, teacher: str, value: float | None = None, **values: Any) -> dict[str, Any]:
    return row(REWARDS, prompt_id=prompt_id, teacher=teacher, reward=value, **values)


def example(question: str, answer: str, prompt_id: str | None = None, **values: Any) -> dict[str, Any]:
    """A training example of teacher `t`, named by its question where no name is given."""
    turns, said = user(question), [{"role": "assistant", "content": answer}]
    named = {"prompt_id": prompt_id or schemas.prompt_id(turns), "teacher": "t"} | values
    return row(SFT, prompt=turns, completion=said, **named)


def sums(numbers: Iterable[int]) -> list[dict[str, str]]:
    """Questions whose third word is the number, with their answers."""
    return [{"question": f"What is {number} + 2?", "answer": str(number + 2)} for number in numbers]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
