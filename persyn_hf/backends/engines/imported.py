"""Read responses that exist already, from a table in one of three forms.

    long       one row per prompt and teacher
    wide       one column per teacher (Magpie-Zoo)
    configs    a config of a dataset per teacher (PerSyn-Math)

Tables are read as streams; only responses that are asked for are kept, in a file, as there may be millions.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from persyn_hf.backends.answers import Entry
from persyn_hf.backends.dataset_rows import Grouped, NameIndex, Rows
from persyn_hf.backends.engines.imported_cells import Imported, excerpt, id_of_prompt
from persyn_hf.backends.engines.imported_forms import Columns, Form, Long, Wide, named
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.source_rows import Choose, RaggedRows, configs_of_dataset, rows_of_dataset, rows_of_file
from persyn_hf.backends.thoughts import Tags, split_thoughts
from persyn_hf.contract import Column, Schema
from persyn_hf.core.arrays import BoolArray, IntArray
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import Strict, nearest


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
ThinkTag = Annotated[str, Field(min_length=1)]
ThinkTags = Annotated[tuple[ThinkTag, ThinkTag], Field(strict=False)]  # a recipe has lists


class ImportSettings(Strict):
    """The place of imported responses, and the tags that tell their thoughts from their answers."""

    path: str | None = Field(
        default=None,
        description="Of `engine: import`: the file of the answers: .parquet, .jsonl, .json, .csv or .tsv, text also "
        "as .gz.",
    )
    dataset: str | None = Field(
        default=None, description="Of `engine: import`: the data set of the answers, a Hub id or a local folder."
    )
    config: str | None = Field(
        default=None, description="The config of the data set. Null takes its default, or its only one."
    )
    configs: dict[str, str | None] | None = Field(
        default=None,
        description="The config of each teacher, where a data set has one per teacher. "
        "Null for a teacher: named like it or its model.",
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the data set on the Hub. Null takes the newest."
    )
    source_split: str = Field(default="train", description="The split of the data set to read.")
    columns: Columns = Field(default=Columns(), description="The columns of the imported table.")
    ragged_rows: RaggedRows = Field(
        default="refuse",
        description="What becomes of a CSV's rows that do not fit its header: the run refuses them, or skips and "
        "counts them.",
    )
    think_tags: tuple[ThinkTags, ...] = Field(
        default=(),
        strict=False,
        description="More pairs of what teachers write before and behind their thoughts. Those of most models are "
        "known.",
    )

    @model_validator(mode="after")
    def _own_configs(self) -> "ImportSettings":
        for key in ("config", "revision"):
            if self.dataset is None and getattr(self, key) is not None:
                raise ValueError(f"`{key}` is of a `dataset`, and none is read; take it out")
        if self.ragged_rows == "skip" and self.path is None:
            raise ValueError("`ragged_rows` is of a CSV in `path`, and none is read; take it out")
        if self.configs is None:
            return self
        if self.dataset is None:
            raise ValueError("`configs` are those of a `dataset`, and there is none; name it")
        given = {"config": self.config, "columns.responses": self.columns.responses}
        other = [name for name, value in given.items() if value is not None]
        other += ["columns.teacher"] if "teacher" in self.columns.model_fields_set else []
        if other:
            raise ValueError(
                f"`configs` gives each teacher a config of its own, so `{other[0]}` has no meaning; keep one of them"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One table: its name for messages, its rows, and the teachers whose responses are looked for in it."""

    source: str
    form: Form
    rows: Iterator[dict[str, Any]]
    teachers: Sequence[str]


class Responses:
    """The responses of cells, in the order of the table; the file at `path` holds them.

    Several responses of one cell are its samples. Empty ones are left out, and a cell with none but these is empty.
    """

    def __init__(self, path: Path, reader: "_Reader") -> None:
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


def read_responses(
    settings: ImportSettings,
    teachers: Sequence[Teacher],
    prompts: "Dataset",
    index: NameIndex,
    cells: Cells,
    path: Path,
    skipped: Callable[[], None] = lambda: None,
) -> Responses:
    """Read the responses of `cells`, in the order of the table, into the file `path`.

    A prompt is named as in the `prompts` stage, so the texts must be the same. `index` has the names of the prompts.
    `skipped` is called for each row that `ragged_rows: skip` leaves out. Raises `InputError` where the table cannot be
    read, has none of the prompts, or has no response of a teacher.
    """
    asked = [teacher for teacher in teachers if len(cells.get(teacher.name, ()))]
    reader = _Reader(prompts, index, cells)
    with KEPT.writer(path) as writer:
        for table in _tables(settings, asked, skipped) if asked else ():
            reader.read(table, settings.columns.prompt, writer)
    return Responses(path, reader)


def check_columns(settings: ImportSettings, teachers: Sequence[Teacher]) -> None:
    """Look for the columns in a file of answers, by its first rows. Raises `InputError` as `read_responses` does."""
    if settings.path is not None:
        for table in _tables(settings, teachers, lambda: None):
            next(table.rows, None)


class _Reader:
    """The reader of tables, and the cell of each response that it has kept, and of each empty one."""

    def __init__(self, prompts: "Dataset", index: NameIndex, cells: Cells) -> None:
        self._prompts, self._index, self._asked = prompts, index, cells
        self._teachers = list(cells)
        self.cells, self.empty = array("q"), array("q")

    def cell(self, teacher: str, rows: Any) -> Any:
        """Return the number of the cell of a teacher and a prompt, given by its row, or of each of several."""
        return rows + self._teachers.index(teacher) * len(self._prompts)

    def read(self, table: _Table, prompt: str | list[str], writer: Any) -> None:
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
        table: _Table,
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


def _tables(settings: ImportSettings, teachers: Sequence[Teacher], skipped: Callable[[], None]) -> Iterator[_Table]:
    source, columns = settings.path or str(settings.dataset), settings.columns
    if settings.configs is None:
        form: Form = Long(source, columns, teachers) if columns.responses is None else Wide(source, columns, teachers)
        rows = _rows(settings, settings.config, form.choose, skipped)
        yield _Table(source=source, form=form, rows=rows, teachers=[teacher.name for teacher in teachers])
        return
    configs = configs_of_dataset(source, settings.revision, "generate")
    chosen = [named(settings.configs, teacher, configs, "generate.configs", "config") for teacher in teachers]
    for teacher, config in zip(teachers, chosen, strict=True):  # all of them, before any is read
        if config not in configs:
            hint = nearest(config, configs)
            raise InputError(f"{source} has no config `{config}` for `configs.{teacher.name}`{hint}")
    for teacher, config in zip(teachers, chosen, strict=True):
        table = f"{source}, config {config}"
        form = Long(table, columns, [teacher], only=teacher.name)
        yield _Table(
            source=table, form=form, rows=_rows(settings, config, form.choose, skipped), teachers=[teacher.name]
        )


def _rows(
    settings: ImportSettings, config: str | None, choose: Choose, skipped: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    if settings.path is not None:
        skip = skipped if settings.ragged_rows == "skip" else None
        return rows_of_file(Path(settings.path), "generate", choose, skip)
    return rows_of_dataset(str(settings.dataset), config, settings.revision, settings.source_split, "generate", choose)


def to_samples(
    imported: Iterable[Sequence[Imported | None]], prompts: Iterable[Mapping[str, Any]], think_tags: Tags = ()
) -> list[Sample]:
    """Make samples of a teacher's responses to prompts; a cell that has none becomes a sample with an error."""
    samples = []
    for prompt, found in zip(prompts, imported, strict=True):
        given = [one for one in found if one is not None]
        missing = EMPTY if found else ABSENT
        for index, one in enumerate(given or [None]):
            error, text = (missing, "") if one is None else (None, one.response)
            response, reasoning = split_thoughts(text, more=think_tags)
            finish_reason, tokens = ("error", 0) if error else ("imported", None)
            entry = Entry(
                text=text,
                finish_reason=finish_reason,
                num_prompt_tokens=tokens,
                num_tokens=tokens,
                error=error,
                attempt=0,
            )
            quality, is_correct = (one.quality, one.is_correct) if one else (None, None)
            samples.append(
                Sample(
                    prompt=prompt,
                    index=index,
                    entry=entry,
                    response=response,
                    reasoning=reasoning,
                    quality=quality,
                    is_correct=is_correct,
                )
            )
    return samples
