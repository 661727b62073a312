"""A look at a user's table: which of its columns is what, how many prompts it has, which teachers answered."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from persyn_hf.backends.source_cells import USUAL, as_text, as_turns, messages_in, read_prompt
from persyn_hf.backends.source_rows import rows_of_file
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import nearest
from persyn_hf.text import one_line


ROWS = 200_000  # that are looked at
WIDE = 1_000  # rows of a parquet file that are read with all of their columns, which may be pictures
CELLS = 100  # of a column
MANY = 100  # teachers
LISTED = 10  # files of a folder that are named
SAMPLE = 60  # characters
NO_ROWS = "holds no rows; a recipe needs prompts"
ENDINGS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".gz")


class NoColumn(InputError):
    """A table has no column for `what`, such as `prompt`, that is known or that was named."""

    def __init__(self, found: str, what: str) -> None:
        super().__init__(f"{found}; name it: --columns {what}=NAME")
        self.found, self.what = found, what


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a table holds. Columns are by what they are; `number` of prompts is None where not all were looked at."""

    columns: dict[str, str]
    unused: list[str]  # the other columns
    number: int | None
    teachers: list[str]
    marked: bool  # every reference has `####` before its answer


def look_at(path: Path, given: Mapping[str, str]) -> Seen:
    """Look at a file; `given` are columns that the user has named, by what they are.

    Raises:
        InputError: it cannot be read, or holds no rows.
        NoColumn: it has no column of prompts that is known and can be read, or not a named one.
    """
    columns: dict[str, str] = {}
    known: list[str] = []

    def choose(present: Any) -> list[str]:
        for what, name in given.items():
            if name not in present:
                raise NoColumn(f"{path} has no column `{name}`{nearest(name, present)}", what)
        left = [name for name in present if name not in given.values()]
        found = {key: next((name for name in usual if name in left), None) for key, usual in USUAL.items()}
        known[:] = present
        columns.clear()
        columns.update({key: name for key, name in (found | dict(given)).items() if name is not None})
        if "prompt" not in columns:
            there = f"{path} has the columns {', '.join(present)}"
            raise NoColumn(f"{there}, and none of them is known to hold prompts", "prompt")
        return list(columns.values())

    _check_file(path)
    prompts: set[Any] = set()
    teachers: dict[str, None] = {}
    marks: list[bool] = []
    number, is_readable = 0, False
    for row in islice(rows_of_file(path, "prompts", choose), ROWS):
        number += 1
        cell = row.get(columns["prompt"])
        if cell not in (None, ""):
            prompts.add(hash(str(cell)))
        is_readable = is_readable or can_hold("prompt", [cell])
        teacher = row.get(columns["teacher"]) if "teacher" in columns else None
        if teacher is not None and len(teachers) <= MANY:
            teachers[str(teacher)] = None
        if "reference" in columns and len(marks) < MANY:
            marks.append("####" in str(row.get(columns["reference"])))
    if not number:
        raise InputError(f"{path} {NO_ROWS}")
    if not is_readable:
        found = f"{path}: its column `{columns['prompt']}` holds no prompts, which are text or messages"
        raise NoColumn(found, "prompt")
    return Seen(
        columns=columns,
        unused=[name for name in known if name not in columns.values()],
        number=len(prompts) if number < ROWS else None,
        teachers=list(teachers)[:MANY],
        marked=bool(marks) and all(marks),
    )


def cells_of(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a file that have a name, each with its first cells that are not empty.

    Raises:
        InputError: the file cannot be read, or holds no rows.
    """
    cells: dict[str, list[Any]] = {}
    for row in islice(rows_of_file(path, "prompts", list), WIDE if path.suffix == ".parquet" else ROWS):
        for name, cell in row.items():
            held = cells.setdefault(name, []) if name.strip() else None
            if held is not None and len(held) < CELLS and cell not in (None, "") and cell == cell:
                held.append(cell)
    if not cells:
        raise InputError(f"{path} {NO_ROWS}")
    return cells


def sample(cells: list[Any]) -> str:
    """Return what is shown of a column: the beginning of its first cell."""
    if not cells:
        return "(empty)"
    turns = as_turns(messages_in(cells[0]) if isinstance(cells[0], str) else cells[0])
    text = as_text(cells[0]) or json.dumps(cells[0], default=str, ensure_ascii=False)
    line = one_line(" | ".join(f"{turn['role']}: {turn['content']}" for turn in turns) if turns else text)
    return line if len(line) <= SAMPLE else f"{line[: SAMPLE - 3]}..."


def can_hold(what: str, cells: list[Any]) -> bool:
    """Tell whether a column with such cells can be the `prompt`, or another one: text, or messages."""
    if what == "prompt":
        return any(not isinstance(read_prompt({"it": cell}, "it"), str) for cell in cells)
    return any(as_text(cell) or (what == "response" and as_turns(cell)) for cell in cells)


def _check_file(path: Path) -> None:
    """Refuse a folder and a file that is not there, by naming what was probably meant."""
    try:
        if path.is_dir():
            files = sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS)[:LISTED]
            raise InputError(f"{path} is a folder; name a file" + (f" in it: {', '.join(files)}" if files else ""))
        if not path.exists():
            near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
            alike = difflib.get_close_matches(path.name, near, 1)
            meant = f", did you mean `{path.parent / alike[0]}`?" if alike else ""
            raise InputError(f"{path} does not exist{meant or '; name a file that is there'}")
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
