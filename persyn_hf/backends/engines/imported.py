"""Read responses that exist already, from a table in one of three forms.

    long       one row per prompt and teacher
    wide       one column per teacher (Magpie-Zoo)
    configs    a config of a dataset per teacher (PerSyn-Math)

Tables are read as streams; only responses that are asked for are kept.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, model_validator

from persyn_hf.backends.answers import Entry
from persyn_hf.backends.engines.imported_cells import NOWHERE, Fields, Imported, excerpt, id_of_prompt, read_cell
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.source_rows import Choose, configs_of_dataset, rows_of_dataset, rows_of_file
from persyn_hf.backends.thoughts import Tags, split_thoughts
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import MANY, Strict, nearest


Cells = Mapping[str, Sequence[Mapping[str, Any]]]  # teacher -> rows of the prompts dataset
MISSING, EMPTY = "no imported response", "the imported response is empty"  # reasons of error rows
CONTENT = "content"  # field of a struct that holds the text, where nothing else is said
ThinkTag = Annotated[str, Field(min_length=1)]


class Columns(Strict):
    """The columns of an imported table: which holds what."""

    prompt: str = "prompt"  # text, or a list of {role, content}: the same as in the prompts
    teacher: str = "teacher"  # long form: the teacher's name or its model
    response: str = "response"  # wide form: field of the text, where cells are structs
    responses: dict[str, str | None] | None = None  # wide form: teacher -> column; null: named like it or its model
    quality: str | None = None  # a number; wide form: field of the cells
    is_correct: str | None = None  # true or false; likewise

    @model_validator(mode="after")
    def _one_form(self) -> "Columns":
        if self.responses is not None and "teacher" in self.model_fields_set:
            raise ValueError(
                "`responses` gives each teacher a column of its own, so `teacher` has no meaning; keep one of them"
            )
        return self


class ImportSettings(Strict):
    """The place of imported responses, and the tags that tell their thoughts from their answers."""

    path: str | None = None  # .parquet, .jsonl, .json or .csv
    dataset: str | None = None  # Hub id, or a local folder
    config: str | None = None
    configs: dict[str, str | None] | None = None  # teacher -> its config; null: named like it or its model
    revision: str | None = None
    source_split: str = "train"
    columns: Columns = Columns()
    # more pairs of what teachers write before and behind their thoughts; those of most models are known
    think_tags: tuple[tuple[ThinkTag, ThinkTag], ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _own_configs(self) -> "ImportSettings":
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


class _Form(Protocol):
    """The form of a table: which columns it needs and where in a row the responses are."""

    def choose(self, known: Sequence[str]) -> set[str]: ...

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported]]: ...

    def hint(self, teacher: str) -> str: ...


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One table: its name for messages, its rows, and the teachers whose responses are looked for in it."""

    source: str
    form: _Form
    rows: Iterator[dict[str, Any]]
    teachers: Sequence[str]


def read_responses(
    settings: ImportSettings, teachers: Sequence[Teacher], cells: Cells
) -> dict[tuple[str, str], list[Imported]]:
    """Read the responses of `cells` by (prompt_id, name of the teacher), in the order of the table.

    A prompt is named as in the `prompts` stage, so the texts must be the same. Several responses of one cell are its
    samples; empty ones are left out, and a cell that has no others has an empty list. Raises `InputError` where the
    table cannot be read, has none of the prompts, or has no response of a teacher.
    """
    asked = [teacher for teacher in teachers if cells.get(teacher.name)]
    responses: dict[tuple[str, str], list[Imported]] = {}
    for table in _tables(settings, asked) if asked else ():
        _read_table(table, settings.columns.prompt, cells, responses)
    return responses


def _read_table(table: _Table, column: str, cells: Cells, responses: dict[tuple[str, str], list[Imported]]) -> None:
    wanted = {name: {row["prompt_id"] for row in cells[name]} for name in table.teachers}
    prompts = set().union(*wanted.values())
    first, number, matched, answered = None, 0, 0, set()
    for number, row in enumerate(table.rows, start=1):
        where, prompt = f"{table.source}, row {number}", row.get(column)
        first = first or prompt
        name = id_of_prompt(prompt, f"{where}: `{column}`")
        if name is not None and name in prompts:
            matched += 1
            for teacher, imported in table.form.responses(row, where):
                if name in wanted[teacher]:
                    cell = responses.setdefault((name, teacher), [])
                    if imported.response.strip():
                        cell.append(imported)
                        answered.add(teacher)
    if not matched:
        example = cells[table.teachers[0]][0]["messages"]
        raise InputError(
            f"{table.source}: of {number} rows none has one of the {len(prompts)} prompts that are asked for; the "
            f"texts must be the same, found in `{column}` {excerpt(first)}, needed for example {excerpt(example)}"
        )
    for name in table.teachers:
        if name not in answered:
            raise InputError(
                f"{table.source}: of {number} rows {matched} have a prompt that is asked for, but none has a response "
                f"of the teacher `{name}` to one of its {len(wanted[name])} prompts; {table.form.hint(name)}"
            )


def _tables(settings: ImportSettings, teachers: Sequence[Teacher]) -> Iterator[_Table]:
    source, columns = settings.path or str(settings.dataset), settings.columns
    if settings.configs is None:
        form: _Form = (
            _Long(source, columns, teachers) if columns.responses is None else _Wide(source, columns, teachers)
        )
        rows = _rows(settings, settings.config, form.choose)
        yield _Table(source=source, form=form, rows=rows, teachers=[teacher.name for teacher in teachers])
        return
    configs = configs_of_dataset(source, settings.revision, "generate")
    chosen = [_named(settings.configs, teacher, configs, "generate.configs", "config") for teacher in teachers]
    for teacher, config in zip(teachers, chosen, strict=True):  # all of them, before any is read
        if config not in configs:
            hint = nearest(config, configs)
            raise InputError(f"{source} has no config `{config}` for `configs.{teacher.name}`{hint}")
    for teacher, config in zip(teachers, chosen, strict=True):
        table = f"{source}, config {config}"
        form = _Long(table, columns, [teacher], only=teacher.name)
        yield _Table(source=table, form=form, rows=_rows(settings, config, form.choose), teachers=[teacher.name])


def _rows(settings: ImportSettings, config: str | None, choose: Choose) -> Iterator[dict[str, Any]]:
    if settings.path is not None:
        return rows_of_file(Path(settings.path), "generate", choose)
    return rows_of_dataset(str(settings.dataset), config, settings.revision, settings.source_split, "generate", choose)


def _named(given: Mapping[str, str | None], teacher: Teacher, known: Sequence[str], key: str, what: str) -> str:
    """Find the column or config of a teacher: the one that is named, else the one called like it or its model."""
    if teacher.name not in given:
        raise InputError(
            f"`{key}` names no {what} for the teacher `{teacher.name}`; add `{teacher.name}: {what.upper()}`"
        )
    return given[teacher.name] or next((name for name in _aliases(teacher) if name in known), teacher.name)


def _aliases(teacher: Teacher) -> list[str]:
    model = teacher.model or teacher.name
    return [teacher.name, model, model.rpartition("/")[2]]


class _Long:
    """The form of one row per prompt and teacher; with `only`, all rows are this teacher's."""

    def __init__(self, source: str, columns: Columns, teachers: Sequence[Teacher], only: str | None = None) -> None:
        self._source = source
        self._columns = columns
        self._only = only
        self._fields = Fields(text=CONTENT, quality=columns.quality, is_correct=columns.is_correct)
        others = Counter(alias for teacher in teachers for alias in set(_aliases(teacher)) - {teacher.name})
        alone = {alias: each.name for each in teachers for alias in _aliases(each) if others[alias] == 1}
        self._names = alone | {teacher.name: teacher.name for teacher in teachers}
        self._others: dict[str, None] = {}  # some of the other names: a set, in the order of the table

    def choose(self, known: Sequence[str]) -> set[str]:
        unused = {"responses"} if self._only is None else {"responses", "teacher"}
        chosen = self._columns.model_dump(exclude=unused, exclude_none=True)
        for key, column in chosen.items():
            _check_column(self._source, key, column, known)
        return set(chosen.values())

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported]]:
        columns = self._columns
        teacher = self._only or row.get(columns.teacher)
        name = None if teacher is None else self._names.get(str(teacher))
        if name is None:
            if teacher is not None and len(self._others) < MANY:
                self._others[str(teacher)] = None
            return
        judged = [None if key is None else row.get(key) for key in (columns.quality, columns.is_correct)]
        for imported in read_cell(row.get(columns.response), judged, self._fields, f"{where}: `{columns.response}`"):
            yield name, imported

    def hint(self, teacher: str) -> str:
        if self._only is not None:
            return f"all of them are empty in the column `{self._columns.response}`; name another one"
        return (
            f"its column `{self._columns.teacher}` must hold the teacher's name or its model"
            f"{nearest(teacher, self._others) if self._others else ''}"
        )


class _Wide:
    """The form of one column per teacher."""

    def __init__(self, source: str, columns: Columns, teachers: Sequence[Teacher]) -> None:
        self._source = source
        self._columns = columns
        self._teachers = teachers
        text = columns.response if "response" in columns.model_fields_set else CONTENT
        self._fields = Fields(text=text, quality=columns.quality, is_correct=columns.is_correct)
        self._column: dict[str, str] = {}  # by teacher

    def choose(self, known: Sequence[str]) -> set[str]:
        _check_column(self._source, "prompt", self._columns.prompt, known)
        for teacher in self._teachers:
            column = _named(self._columns.responses or {}, teacher, known, "generate.columns.responses", "column")
            _check_column(self._source, f"responses.{teacher.name}", column, known)
            self._column[teacher.name] = column
        return {self._columns.prompt, *self._column.values()}

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported]]:
        judged = [None if name is None else NOWHERE for name in (self._columns.quality, self._columns.is_correct)]
        for teacher, column in self._column.items():
            for imported in read_cell(row.get(column), judged, self._fields, f"{where}: `{column}`"):
                yield teacher, imported

    def hint(self, teacher: str) -> str:
        return f"all of them are empty in its column `{self._column[teacher]}`; name another one"


def to_samples(
    imported: Mapping[tuple[str, str], list[Imported]],
    teacher: str,
    prompts: Sequence[Mapping[str, Any]],
    think_tags: Tags = (),
) -> list[Sample]:
    """Make samples of one teacher's imported responses; a cell without any becomes an error: `MISSING` or `EMPTY`."""
    samples = []
    for prompt in prompts:
        place = prompt["prompt_id"], teacher
        cell: list[Imported | None] = [*imported.get(place, [])]
        for index, given in enumerate(cell or [None]):
            absent = EMPTY if place in imported else MISSING
            error, text = (absent, "") if given is None else (None, given.response)
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
            quality, is_correct = (given.quality, given.is_correct) if given else (None, None)
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


def _check_column(source: str, key: str, column: str, known: Sequence[str]) -> None:
    if column not in known:
        raise InputError(f"{source} has no column `{column}` for `columns.{key}`{nearest(column, known)}")
