"""The splits as JSONL files, from which the rest of the project reads the questions."""

import json
from pathlib import Path

from persyn_hf.tiny.questions import Question


SPLITS_BY_FILE = {
    "prompts.jsonl": ("calibration", "dev", "pool"),
    "validation.jsonl": ("validation",),
    "test.jsonl": ("test",),
}


def write_splits(splits: dict[str, list[Question]], directory: Path) -> None:
    """Write the files of `SPLITS_BY_FILE` into a folder."""
    for name, kept in SPLITS_BY_FILE.items():
        lines = [json.dumps(to_row(question, split)) for split in kept for question in splits[split]]
        (directory / name).write_text("\n".join(lines) + "\n")


def to_row(question: Question, split: str) -> dict[str, str | int]:
    """Return a question as a row of its file."""
    return {
        "question": question.question,
        "answer": question.answer,
        "skill": question.skill,
        "level": question.level,
        "split": split,
    }
