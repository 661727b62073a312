"""The two forms of a table of responses: a row per prompt and teacher, or a column per teacher."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import Field, model_validator

from persyn_hf.backends.engines.imported_cells import NOWHERE, Fields, Imported, read_cell
from persyn_hf.backends.source_cells import missing_column
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import MANY, Strict, nearest


WIDE = "; where each teacher has a column of its own, write `columns: {responses: {TEACHER: COLUMN}}`"
CONTENT = "content"  # field of a struct that holds the text, where nothing else is said


class Columns(Strict):
    """The columns of an imported table: which holds what."""

    prompt: str | list[str] = Field(
        default="prompt",
        min_length=1,
        description="The column of the prompt, text or a list of {role, content}, the same as in `prompts`. "
        "Several columns are joined as there.",
    )
    teacher: str = Field(
        default="teacher",
        description="The column of the teacher's name or its model, in a table of a row per prompt and teacher.",
    )
    response: str = Field(
        default="response",
        description="The column of the answer. In a table of a column per teacher: the field of the text, where cells "
        "are structs.",
    )
    responses: dict[str, str | None] | None = Field(
        default=None,
        description="The column of each teacher, in a table of a column per teacher. "
        "Null for a teacher: named like it or its model.",
    )
    quality: str | None = Field(
        default=None,
        description="The column of the quality, a number. In a table of a column per teacher: a field of the cells.",
    )
    is_correct: str | None = Field(
        default=None,
        description="The column of true or false. In a table of a column per teacher: a field of the cells.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> "Columns":
        if self.responses is not None and "teacher" in self.model_fields_set:
            raise ValueError(
                "`responses` gives each teacher a column of its own, so `teacher` has no meaning; keep one of them"
            )
        return self


class Form(Protocol):
    """The form of a table: which columns it needs and where in a row the responses are."""

    def choose(self, known: Sequence[str]) -> set[str]: ...

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported | None]]: ...

    def hint(self, teacher: str) -> str: ...


def named(given: Mapping[str, str | None], teacher: Teacher, known: Sequence[str], key: str, what: str) -> str:
    """Find the column or config of a teacher: the one that is named, else the one called like it or its model."""
    if teacher.name not in given:
        raise InputError(
            f"`{key}` names no {what} for the teacher `{teacher.name}`; add `{teacher.name}: {what.upper()}`"
        )
    return given[teacher.name] or next((name for name in aliases(teacher) if name in known), teacher.name)


def aliases(teacher: Teacher) -> list[str]:
    model = teacher.model or teacher.name
    return [teacher.name, model, model.rpartition("/")[2]]


class Long:
    """The form of one row per prompt and teacher; with `only`, all rows are this teacher's."""

    def __init__(self, source: str, columns: Columns, teachers: Sequence[Teacher], only: str | None = None) -> None:
        self._source = source
        self._columns = columns
        self._only = only
        self._fields = Fields(text=CONTENT, quality=columns.quality, is_correct=columns.is_correct)
        others = Counter(alias for teacher in teachers for alias in set(aliases(teacher)) - {teacher.name})
        alone = {alias: each.name for each in teachers for alias in aliases(each) if others[alias] == 1}
        self._names = alone | {teacher.name: teacher.name for teacher in teachers}
        self._others: dict[str, None] = {}  # some of the other names: a set, in the order of the table

    def choose(self, known: Sequence[str]) -> set[str]:
        unused = {"responses"} if self._only is None else {"responses", "teacher"}
        chosen = self._columns.model_dump(exclude=unused, exclude_none=True)
        named = [
            (key, name) for key, given in chosen.items() for name in ([given] if isinstance(given, str) else given)
        ]
        for key, column in named:
            _check_column(self._source, key, column, known, WIDE if key == "teacher" else "")
        return {column for _, column in named}

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported | None]]:
        columns = self._columns
        teacher = self._only or row.get(columns.teacher)
        name = None if teacher is None else self._names.get(str(teacher))
        if name is None:
            if teacher is not None and len(self._others) < MANY:
                self._others[str(teacher)] = None
            return
        judged = [None if key is None else row.get(key) for key in (columns.quality, columns.is_correct)]
        cell = row.get(columns.response)
        for imported in _responses(cell, judged, self._fields, f"{where}: `{columns.response}`"):
            yield name, imported

    def hint(self, teacher: str) -> str:
        if self._only is not None:
            return f"all of them are empty in the column `{self._columns.response}`; name another one"
        return (
            f"its column `{self._columns.teacher}` must hold the teacher's name or its model"
            f"{nearest(teacher, self._others) if self._others else ''}"
        )


class Wide:
    """The form of one column per teacher."""

    def __init__(self, source: str, columns: Columns, teachers: Sequence[Teacher]) -> None:
        self._source = source
        self._columns = columns
        self._teachers = teachers
        text = columns.response if "response" in columns.model_fields_set else CONTENT
        self._fields = Fields(text=text, quality=columns.quality, is_correct=columns.is_correct)
        self._column: dict[str, str] = {}  # by teacher

    def choose(self, known: Sequence[str]) -> set[str]:
        prompt = self._columns.prompt
        prompts = [prompt] if isinstance(prompt, str) else prompt
        for column in prompts:
            _check_column(self._source, "prompt", column, known)
        for teacher in self._teachers:
            column = named(self._columns.responses or {}, teacher, known, "generate.columns.responses", "column")
            _check_column(self._source, f"responses.{teacher.name}", column, known)
            self._column[teacher.name] = column
        return {*prompts, *self._column.values()}

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported | None]]:
        judged = [None if name is None else NOWHERE for name in (self._columns.quality, self._columns.is_correct)]
        for teacher, column in self._column.items():
            for imported in _responses(row.get(column), judged, self._fields, f"{where}: `{column}`"):
                yield teacher, imported

    def hint(self, teacher: str) -> str:
        return f"all of them are empty in its column `{self._column[teacher]}`; name another one"


def _responses(cell: Any, judged: Sequence[Any], fields: Fields, where: str) -> list[Imported | None]:
    """List the responses of a cell; None for a cell that is there and holds none."""
    if cell is None or cell != cell:  # NaN: pandas has no other null
        return []
    return [*read_cell(cell, judged, fields, where)] or [None]


def _check_column(source: str, key: str, column: str, known: Sequence[str], more: str = "") -> None:
    if column not in known:
        raise InputError(missing_column(source, "generate", key, column, known) + more)
