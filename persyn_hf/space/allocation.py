"""The allocation of prompts: counts by teacher, of several assignments next to one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from persyn_hf.core.metrics import effective_teachers, total_variation
from persyn_hf.errors import check
from persyn_hf.recipe.roles import Teacher
from persyn_hf.space.collection import teachers_of
from persyn_hf.space.database import Database
from persyn_hf.store.stored import Stored


By = Literal["all", "split", "topic", "origin", "source"]
MANY = 30  # groups that are shown
COLUMNS = {"split": "a.split", "topic": "p.topic", "origin": "p.source", "source": "a.source"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The prompts of one split, topic or source, per assignment and teacher: (num_assignments, num_teachers)."""

    name: str
    counts: Any

    @property
    def shares(self) -> Any:
        """The share of each teacher within its assignment, in the shape of `counts`."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The allocation of several assignments; groups by size. `left_out`: how many more groups there are."""

    refs: list[str]
    teachers: list[Teacher]
    groups: list[Group]
    left_out: int = 0

    @property
    def names(self) -> list[str]:
        return [teacher.name for teacher in self.teachers]


def splits(database: Database, assignments: Sequence[Stored]) -> list[str]:
    """Return the splits that any of the assignments holds, sorted."""
    return sorted({split for item in assignments for rows in item.manifest.rows.values() for split in rows})


def allocate(database: Database, assignments: Sequence[Stored], by: By = "all", split: str = "") -> Allocation:
    """Count the rows of each assignment by teacher.

    Args:
        by: what the rows are grouped by; `all` is one group.
        split: count the rows of this split only; "" is all of them.

    Raises:
        RecipeError: `by` is no way to group.
    """
    check(by in get_args(By), "by", by, f"one of {', '.join(get_args(By))}")
    teachers = list({t.name: t for item in assignments for t in teachers_of(item)}.values())
    places = {teacher.name: number for number, teacher in enumerate(teachers)}
    counts: dict[str, Any] = {}
    for number, item in enumerate(assignments):
        for group, teacher, rows in database.rows(_count(database, item, by), [split]):
            name = "none" if group is None else group
            matrix = counts.setdefault(name, np.zeros((len(assignments), len(teachers)), dtype=np.int64))
            matrix[number, places[teacher]] += rows
    groups = [Group(name=name, counts=matrix) for name, matrix in counts.items()]
    groups.sort(key=lambda group: (-int(group.counts.sum()), group.name))
    left_out = max(len(groups) - MANY, 0)
    return Allocation(
        refs=[item.ref for item in assignments], teachers=teachers, groups=groups[:MANY], left_out=left_out
    )


def _count(database: Database, item: Stored, by: By) -> str:
    """Return the SQL that counts the rows of an assignment by group and teacher; its parameter is the split."""
    prompts = database.shelf.input(item, "prompts")
    column = COLUMNS.get(by, "''")
    joined = f" JOIN {database.view(prompts)} p USING (prompt_id)" if prompts and column.startswith("p.") else ""
    if column.startswith("p.") and not joined:
        column = "NULL"
    return (
        f"SELECT {column}, a.teacher, count(*) FROM {database.view(item)} a{joined} "
        "WHERE $1 IN ('', a.split) GROUP BY ALL"
    )


def summary(shares: Any) -> list[tuple[float, float]]:
    """Return, per assignment, how many even teachers its shares amount to, and the share moved from the first."""
    return [(float(effective_teachers(row)), float(total_variation(row, shares[0]))) for row in shares]


def harmless(value: Any) -> Any:
    """Return a value as it is, but quote a text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
