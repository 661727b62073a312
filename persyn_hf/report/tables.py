"""A table that is printed, written as markdown or as CSV."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from persyn_hf.core.cost import Cost
from persyn_hf.formats import UNKNOWN, Column


BOUNDS = ("", " low", " high")  # ends of the names of the columns that an interval takes in CSV


class Shown(str):
    """A cell as people read it, with the number behind it, or the number and its bounds; null: not known.

    Numbers are unrounded and without a unit's prefix: shares and accuracies from 0 to 1, seconds, FLOPs.
    """

    numbers: tuple[float | None, ...]

    def __new__(cls, text: str, *numbers: float | None) -> "Shown":
        cell = super().__new__(cls, text)
        cell.numbers = numbers
        return cell


def shown(form: str, value: float | None, low: float | None = None, high: float | None = None) -> Shown:
    """`form` is that of `str.format`; bounds follow in brackets where there are any."""
    if value is None or value != value:
        return Shown(UNKNOWN, None)
    if low is None or high is None:
        return Shown(form.format(value), value)
    return Shown(f"{form} [{form}, {form}]".format(value, low, high), value, low, high)


def shown_metric(form: str, metric: Mapping[str, Any]) -> Shown:
    """Of `value`, `low` and `high`, as the metrics of manifests have them."""
    return shown(form, metric["value"], metric["low"], metric["high"])


def cost_cells(columns: Iterable[Column], cost: Cost) -> list[str]:
    """A cell per column of costs."""
    return [Shown(column.cell(cost), getattr(cost, column.field)) for column in columns]


@dataclass(frozen=True, kw_only=True)
class Table:
    """`name` is the file name; `header` and `rows` hold what is shown, `note` one line about how to read it.

    In CSV, cells that are `Shown` stand as their numbers, and a column of them that has bounds anywhere becomes three.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return "\n\n".join(part for part in (f"## {self.title}", body, self.note) if part)

    def csv(self) -> str:
        rows = [list(map(_fields, row)) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] or [1] * len(self.header)
        columns = list(zip(self.header, widths, strict=True))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(f"{name}{end}" for name, width in columns for end in BOUNDS[:width])
        for row in rows:
            padded = (fields + [None] * (width - len(fields)) for fields, width in zip(row, widths, strict=True))
            writer.writerow(itertools.chain.from_iterable(padded))
        return text.getvalue()

    def rich(self, width: int) -> Any:
        """For a terminal of `width` characters: columns that find no room follow below, beside the first one again."""
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        parts = []
        for columns in self._fitting(width):
            part = RichTable(box=box.SIMPLE_HEAD)
            for number in columns:
                justify: Literal["left", "right"] = "right" if number else "left"
                part.add_column(self.header[number], justify=justify, no_wrap=number > 0, overflow="fold")
            for row in self.rows:
                part.add_row(*(Text(row[number]) for number in columns))
            parts.append(part)
        note = [Text(f"  {self.note}\n", style="dim")] if self.note else []
        return Group(Text(self.title, style="bold"), *parts, *note)

    def _fitting(self, width: int) -> Iterator[list[int]]:
        """Columns by their places: the first one, which may fold to a third of the width, and what fits beside it."""
        from rich.cells import cell_len

        texts = zip(self.header, *self.rows, strict=True)
        first, *others = (max(map(cell_len, column)) + 3 for column in texts)  # with its padding and a line
        room = width - 1 - min(first, width // 3)
        columns, left = [0], room
        for number, needed in enumerate(others, start=1):
            if needed > left and len(columns) > 1:
                yield columns
                columns, left = [0], room
            columns.append(number)
            left -= needed
        yield columns


def _fields(cell: str) -> list[Any]:
    """What stands for a cell in CSV: nothing for a number that is not known."""
    if not isinstance(cell, Shown):
        return [cell]
    known = (None if number is None or number != number else number for number in cell.numbers)
    return [int(number) if number is not None and float(number).is_integer() else number for number in known]
