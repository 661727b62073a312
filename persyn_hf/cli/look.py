"""A look at a user's table: which of its columns is what, how many prompts it has, which teachers answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from persyn_hf.backends.source_cells import USUAL
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import nearest


ROWS = 200_000  # that are looked at
MANY = 100  # teachers


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
        InputError: it cannot be read, has no column of prompts that is known, or not a named one.
    """
    from persyn_hf.backends.source_rows import rows_of_file

    columns: dict[str, str] = {}
    known: list[str] = []

    def choose(present: Any) -> list[str]:
        for name in given.values():
            if name not in present:
                raise InputError(f"{path} has no column `{name}`{nearest(name, present)}")
        left = [name for name in present if name not in given.values()]
        found = {key: next((name for name in usual if name in left), None) for key, usual in USUAL.items()}
        known[:] = present
        columns.clear()
        columns.update({key: name for key, name in (found | dict(given)).items() if name is not None})
        if "prompt" not in columns:
            raise InputError(
                f"{path} has the columns {', '.join(present)}, and none of them is known to hold prompts; name it: "
                "--columns prompt=NAME"
            )
        return list(columns.values())

    prompts: set[Any] = set()
    teachers: dict[str, None] = {}
    marks: list[bool] = []
    number = 0
    for row in islice(rows_of_file(path, "prompts", choose), ROWS):
        number += 1
        prompts.add(hash(str(row.get(columns["prompt"]))))
        if "teacher" in columns and len(teachers) <= MANY:
            teachers[str(row.get(columns["teacher"]))] = None
        if "reference" in columns and len(marks) < MANY:
            marks.append("####" in str(row.get(columns["reference"])))
    return Seen(
        columns=columns,
        unused=[name for name in known if name not in columns.values()],
        number=len(prompts) if number < ROWS else None,
        teachers=list(teachers)[:MANY],
        marked=bool(marks) and all(marks),
    )
