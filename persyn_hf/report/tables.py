"""A table that is printed, written as markdown or as CSV."""

import csv
import io
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Table:
    """`name` is the file name; `header` and `rows` hold what is shown, `note` one line about how to read it."""

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
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def rich(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD)
        for number, name in enumerate(self.header):
            table.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        note = [Text(f"  {self.note}\n", style="dim")] if self.note else []
        return Group(Text(self.title, style="bold"), table, *note)
