"""Tables that are printed, written as Markdown or as CSV."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from persyn_hf.core.cost import Cost
from persyn_hf.formats import UNKNOWN, Column, total_cell
from persyn_hf.text import one_line, readable


BOUNDS = ("", " low", " high")  # ends of the names of the columns that an interval takes in CSV


class Shown(str):
    """A cell as people read it, with the number behind it, or the number and its bounds; None: not known.

    Numbers are unrounded and without a unit's prefix: shares and accuracies from 0 to 1, seconds, FLOPs.
    """

    numbers: tuple[float | None, ...]

    def __new__(cls, text: str, *numbers: float | None) -> "Shown":
        cell = super().__new__(cls, text)
        cell.numbers = numbers
        return cell


def shown(form: str, value: float | None, low: float | None = None, high: float | None = None) -> Shown:
    """Return a number as a cell, with its bounds in brackets where there are any; `UNKNOWN` for None and NaN.

    Args:
        form: how `str.format` writes the number, such as "{:.2f}".
    """
    if value is None or value != value:
        return Shown(UNKNOWN, None)
    if low is None or high is None:
        return Shown(form.format(value), value)
    return Shown(f"{form} [{form}, {form}]".format(value, low, high), value, low, high)


def shown_metric(form: str, metric: Mapping[str, Any]) -> Shown:
    """Return a metric of a manifest, which has `value`, `low` and `high`, as a cell."""
    return shown(form, metric["value"], metric["low"], metric["high"])


def cost_cells(columns: Iterable[Column], cost: Cost, counted_here: bool = False) -> list[str]:
    """Return a cell per column of costs, marked by ~ where it rests on tokens that were counted here."""
    return [Shown(column.cell(cost, counted_here), getattr(cost, column.field)) for column in columns]


def total_cells(columns: Iterable[Column], costs: Sequence[Cost], counted_here: bool = False) -> list[str]:
    """Return the cells of a line of totals; what some costs do not know is marked (see `formats.total_cell`)."""
    return [Shown(*total_cell(column, costs, counted_here)) for column in columns]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, with a file name (`name`), what is shown (`header`, `rows`) and a line about how to read it (`note`).

    Names in it may come from anywhere: every form shows them through the filter of `persyn_hf.text`. In CSV, cells
    that are `Shown` stand as their numbers, and a column of them that has bounds anywhere becomes three.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown, with its title above and its note below."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(
            "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        return "\n\n".join(part for part in (f"## {one_line(self.title)}", body, readable(self.note)) if part)

    def csv(self) -> str:
        """Return the table as CSV, with plain numbers and with intervals in columns of their own."""
        rows = [list(map(_fields, row)) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] or [1] * len(self.header)
        columns = list(zip(self.header, widths, strict=True))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(f"{one_line(name)}{end}" for name, width in columns for end in BOUNDS[:width])
        for row in rows:
            padded = (fields + [None] * (width - len(fields)) for fields, width in zip(row, widths, strict=True))
            writer.writerow(itertools.chain.from_iterable(padded))
        return text.getvalue()

    def rich(self, width: int) -> Any:
        """Return the table for a terminal; columns that find no room follow below, next to the first one again.

        Args:
            width: characters of a line.
        """
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        parts = []
        for columns in self._fitting(width):
            part = RichTable(box=box.SIMPLE_HEAD)
            for number in columns:
                justify: Literal["left", "right"] = "right" if number else "left"
                part.add_column(
                    Text(one_line(self.header[number])), justify=justify, no_wrap=number > 0, overflow="fold"
                )
            for row in self.rows:
                part.add_row(*(Text(one_line(row[number])) for number in columns))
            parts.append(part)
        note = [Text(f"  {readable(self.note)}\n", style="dim")] if self.note else []
        return Group(Text(one_line(self.title), style="bold"), *parts, *note)

    def _fitting(self, width: int) -> Iterator[list[int]]:
        """Yield which columns stand next to one another, by their numbers.

        Each time these are the first column, which may fold to a third of the width, and the columns that fit beside
        it.
        """
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
    """Return what stands for a cell in CSV: its text, or its numbers, None for one that is not known."""
    if not isinstance(cell, Shown):
        return [one_line(cell)]
    numbers = (None if number is None or number != number else number for number in cell.numbers)
    return [int(number) if number is not None and float(number).is_integer() else number for number in numbers]
