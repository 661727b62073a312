"""Keep the responses of a table in a file, and find those of a cell: there may be millions."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.dataset_rows import Grouped, NameIndex, Rows
from persyn_hf.backends.engines.imported_cells import Imported, excerpt, id_of_prompt
from persyn_hf.backends.engines.imported_forms import Form
from persyn_hf.contract import Column, Schema
from persyn_hf.core.arrays import BoolArray, IntArray
from persyn_hf.errors import InputError


if TYPE_CHECKING:
    from datasets import Dataset

Cells = Mapping[str, IntArray]  # teacher -> numbers of the rows of its prompts
ABSENT, EMPTY = "no imported response", "the imported response is empty"  # why a cell has none
AT_A_TIME = 256  # rows of the table that are in memory
KEPT = Schema(
    kind="imported",
    row="one response, as the table gives it",
    key=(),
    columns=(
        Column(name="response", dtype="string", meaning="its text"),
        Column(name="quality", dtype="float64", meaning="its quality", nullable=True),
        Column(name="is_correct", dtype="bool", meaning="whether it is right", nullable=True),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: its name for messages, its rows, and the teachers whose responses are looked for in it."""

    source: str
    form: Form
    rows: Iterator[dict[str, Any]]
    teachers: Sequence[str]


class Responses:
    """The responses of cells, in the order of the table; the file at `path` holds them.

    Several responses of one cell are its samples. Empty ones are left out, and a cell with none but these is empty.
    """

    def __init__(self, path: Path, reader: "Reader") -> None:
        from datasets import Dataset

        self._reader = reader
        self._kept = Grouped(Rows(Dataset.from_file(str(path))), np.array(reader.cells, dtype=np.int64))
        self._empty = np.array(reader.empty, dtype=np.int64)

    def of(self, teacher: str, rows: IntArray) -> Iterator[list[Imported | None]]:
        """Yield the responses of a teacher to each prompt, given by their rows: none, or [None] where it is empty."""
        cells = self._reader.cell(teacher, rows)
        for found, empty in zip(self._kept.of(cells), np.isin(cells, self._empty).tolist(), strict=True):
            yield [Imported(**kept) for kept in found] or ([None] if empty else [])

    def missing(self, teacher: str, rows: IntArray) -> tuple[Counter[str], int]:
        """Return the number of cells of a teacher without a response, by the reason, and that of all its samples."""
        cells = self._reader.cell(teacher, rows)
        sizes = self._kept.sizes(cells)
        empty = int(np.isin(cells[sizes == 0], self._empty).sum())
        absent = int((sizes == 0).sum()) - empty
        return +Counter({ABSENT: absent, EMPTY: empty}), int(np.maximum(sizes, 1).sum())


class Reader:
    """The reader of tables, and the cell of each response that it has kept, and of each empty one."""

    def __init__(self, prompts: "Dataset", index: NameIndex, cells: Cells) -> None:
        self._prompts, self._index, self._asked = prompts, index, cells
        self._teachers = list(cells)
        self.cells, self.empty = array("q"), array("q")

    def cell(self, teacher: str, rows: Any) -> Any:
        """Return the number of the cell of a teacher and a prompt, given by its row, or of each of several."""
        return rows + self._teachers.index(teacher) * len(self._prompts)

    def read(self, table: Table, prompt: str | list[str], writer: Any) -> None:
        columns = [prompt] if isinstance(prompt, str) else prompt
        wanted = {name: np.zeros(len(self._prompts), dtype=bool) for name in table.teachers}
        for name, mask in wanted.items():
            mask[self._asked[name]] = True
        first, number, matched, answered = None, 0, 0, set[str]()
        while rows := list(islice(table.rows, AT_A_TIME)):
            first = first or next((cell for row in rows if (cell := row.get(columns[0]))), None)
            places = [f"{table.source}, row {place}" for place in range(number + 1, number + len(rows) + 1)]
            names = [id_of_prompt(row, columns, where) for row, where in zip(rows, places, strict=True)]
            found = self._index.rows(["" if name is None else name for name in names])
            for row, where, prompt_row in zip(rows, places, found.tolist(), strict=True):
                if prompt_row >= 0 and any(mask[prompt_row] for mask in wanted.values()):
                    matched += 1
                    for teacher, imported in table.form.responses(row, where):
                        if wanted[teacher][prompt_row]:
                            if imported is None:
                                self.empty.append(self.cell(teacher, prompt_row))
                                continue
                            writer.write(vars(imported))
                            self.cells.append(self.cell(teacher, prompt_row))
                            answered.add(teacher)
            number += len(rows)
        self._check(table, columns[0], first, number, matched, answered, wanted)

    def _check(
        self,
        table: Table,
        column: str,
        first: object,
        number: int,
        matched: int,
        answered: Set[str],
        wanted: Mapping[str, BoolArray],
    ) -> None:
        """Refuse a table that has none of the prompts, or no response of a teacher."""
        if not matched:
            example = self._prompts[int(self._asked[table.teachers[0]][0])]["messages"]
            asked = int(np.logical_or.reduce(list(wanted.values())).sum())
            raise InputError(
                f"{table.source}: of {number} rows none has one of the {asked} prompts that are asked for; the "
                f"texts must be the same, found in `{column}` {excerpt(first)}, needed for example {excerpt(example)}"
            )
        for name in table.teachers:
            if name not in answered:
                raise InputError(
                    f"{table.source}: of {number} rows {matched} have a prompt that is asked for, but none has a "
                    f"response of the teacher `{name}` to one of its {int(wanted[name].sum())} prompts; "
                    f"{table.form.hint(name)}"
                )
