"""Responses that exist already, in one of two forms: long, one row per prompt and teacher, or wide, one column per
teacher (Magpie-Zoo). The table is read as a stream; only responses that are asked for are kept."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import model_validator

from persyn_hf.backends.chat import split_reasoning
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.journal import Entry
from persyn_hf.backends.tables import Choose, rows_of_dataset, rows_of_file
from persyn_hf.errors import InputError
from persyn_hf.recipe import MANY, Strict, Teacher, nearest
from persyn_hf.schemas import prompt_id


Cells = Mapping[str, Sequence[Mapping[str, Any]]]  # teacher -> rows of the prompts dataset


class Columns(Strict):
    """Which column of an imported table holds what."""

    prompt: str = "prompt"  # text, or a list of {role, content}: the same as in the prompts
    teacher: str = "teacher"  # long form: the teacher's name or its model
    response: str = "response"  # text, a list of texts (samples), or turns whose last is the assistant's
    responses: dict[str, str | None] | None = None  # wide form: teacher -> column; null: named like it or its model
    quality: str | None = None  # long form: a number
    is_correct: str | None = None  # long form: true or false

    @model_validator(mode="after")
    def _one_form(self) -> "Columns":
        long = sorted(self.model_fields_set & {"teacher", "response", "quality", "is_correct"})
        if self.responses is not None and long:
            raise ValueError(
                f"`responses` gives each teacher a column of its own, so `{long[0]}` has no meaning; keep one of them"
            )
        return self


class ImportSettings(Strict):
    """Where imported responses are."""

    path: str | None = None  # .parquet, .jsonl or .csv
    dataset: str | None = None  # Hub id
    config: str | None = None
    revision: str | None = None
    source_split: str = "train"
    columns: Columns = Columns()


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One response as the table gives it; null: the table does not say."""

    response: str
    quality: float | None
    is_correct: bool | None


def read_responses(
    settings: ImportSettings, teachers: Sequence[Teacher], cells: Cells
) -> dict[tuple[str, str], list[Imported]]:
    """Responses by (prompt_id, name of the teacher) for `cells`, in the order of the table; empty ones are left out.

    A prompt is named as in the `prompts` stage, so the texts must be the same. More responses of one cell are samples.
    """
    wanted = {name: {row["prompt_id"] for row in rows} for name, rows in cells.items() if rows}
    prompts = set().union(*wanted.values())
    source, columns = settings.path or str(settings.dataset), settings.columns
    asked = [teacher for teacher in teachers if teacher.name in wanted]
    form = _Long(source, columns, asked) if columns.responses is None else _Wide(source, columns, asked)
    found: dict[tuple[str, str], list[Imported]] = {}
    first, number, matched = None, 0, 0
    for number, row in enumerate(_rows(settings, form.choose) if asked else (), start=1):
        where, prompt = f"{source}, row {number}", row.get(columns.prompt)
        first = first or prompt
        name = _prompt_id(prompt, f"{where}: `{columns.prompt}`")
        if name is not None and name in prompts:
            matched += 1
            for teacher, imported in form.responses(row, where):
                if name in wanted[teacher]:
                    found.setdefault((name, teacher), []).append(imported)
    if asked and not matched:
        example = next(row["messages"] for rows in cells.values() for row in rows)
        raise InputError(
            f"{source}: of {number} rows none has one of the {len(prompts)} prompts that are asked for; the texts "
            f"must be the same, found in `{columns.prompt}` {_excerpt(first)}, needed for example {_excerpt(example)}"
        )
    answered = {teacher for _, teacher in found}
    for name in wanted:
        if name not in answered:
            raise InputError(
                f"{source}: of {number} rows {matched} have a prompt that is asked for, but none has a response of "
                f"the teacher `{name}` to one of its {len(wanted[name])} prompts; {form.hint(name)}"
            )
    return found


def _rows(settings: ImportSettings, choose: Choose) -> Iterator[dict[str, Any]]:
    if settings.path is not None:
        return rows_of_file(Path(settings.path), "generate", choose)
    source = str(settings.dataset), settings.config, settings.revision, settings.source_split
    return rows_of_dataset(*source, "generate", choose)


class _Long:
    """One row per prompt and teacher."""

    def __init__(self, source: str, columns: Columns, teachers: Sequence[Teacher]) -> None:
        self._source = source
        self._columns = columns
        models = Counter(teacher.model for teacher in teachers)
        alone = [teacher for teacher in teachers if teacher.model and models[teacher.model] == 1]
        self._names = {teacher.model: teacher.name for teacher in alone} | {each.name: each.name for each in teachers}
        self._others: dict[str, None] = {}  # some of the other names: a set, in the order of the table

    def choose(self, known: Sequence[str]) -> set[str]:
        chosen = self._columns.model_dump(exclude={"responses"}, exclude_none=True)
        for key, column in chosen.items():
            _check_column(self._source, key, column, known)
        return set(chosen.values())

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported]]:
        columns = self._columns
        teacher = row.get(columns.teacher)
        name = None if teacher is None else self._names.get(str(teacher))
        if name is None:
            if teacher is not None and len(self._others) < MANY:
                self._others[str(teacher)] = None
            return
        for text in _texts(row.get(columns.response), f"{where}: `{columns.response}`"):
            quality, is_correct = _quality(row, columns.quality, where), _verdict(row, columns.is_correct, where)
            yield name, Imported(response=text, quality=quality, is_correct=is_correct)

    def hint(self, teacher: str) -> str:
        return (
            f"its column `{self._columns.teacher}` must hold the teacher's name or its model"
            f"{nearest(teacher, self._others) if self._others else ''}"
        )


class _Wide:
    """One column per teacher."""

    def __init__(self, source: str, columns: Columns, teachers: Sequence[Teacher]) -> None:
        self._source = source
        self._columns = columns
        self._teachers = teachers
        self._column: dict[str, str] = {}  # by teacher

    def choose(self, known: Sequence[str]) -> set[str]:
        _check_column(self._source, "prompt", self._columns.prompt, known)
        named = self._columns.responses or {}
        for teacher in self._teachers:
            if teacher.name not in named:
                raise InputError(
                    f"`generate.columns.responses` names no column for the teacher `{teacher.name}`; add "
                    f"`{teacher.name}: COLUMN`"
                )
            column = named[teacher.name]
            if column is None:
                column = next((name for name in (teacher.name, teacher.model) if name in known), teacher.name)
            _check_column(self._source, f"responses.{teacher.name}", str(column), known)
            self._column[teacher.name] = str(column)
        return {self._columns.prompt, *self._column.values()}

    def responses(self, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, Imported]]:
        for teacher, column in self._column.items():
            for text in _texts(row.get(column), f"{where}: `{column}`"):
                yield teacher, Imported(response=text, quality=None, is_correct=None)

    def hint(self, teacher: str) -> str:
        return f"all of them are empty in its column `{self._column[teacher]}`; name another one"


def to_samples(
    imported: Mapping[tuple[str, str], list[Imported]], teacher: str, prompts: Sequence[Mapping[str, Any]]
) -> list[Sample]:
    """Imported responses of one teacher; a cell that has none becomes an error row."""
    samples = []
    for prompt in prompts:
        cell: list[Imported | None] = [*imported.get((prompt["prompt_id"], teacher), [])]
        for index, found in enumerate(cell or [None]):
            error, text = ("no imported response", "") if found is None else (None, found.response)
            response, reasoning = split_reasoning(text)
            entry = Entry(
                text=text,
                finish_reason="error" if error else "imported",
                num_prompt_tokens=0,
                num_tokens=0,
                seconds=0.0,
                error=error,
                attempt=0,
            )
            quality, is_correct = (found.quality, found.is_correct) if found else (None, None)
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


def _prompt_id(prompt: Any, where: str) -> str | None:
    """The name that the `prompts` stage gives this prompt (text, or a list of turns); None: the cell is empty."""
    if prompt is None or isinstance(prompt, str):
        text = (prompt or "").strip()
        return prompt_id([{"role": "user", "content": text}]) if text else None
    turns = _turns(prompt)
    if turns is None:
        raise InputError(f"{where} must be text or a list of {{role, content}}, found {_excerpt(prompt)}")
    if turns:
        turns[-1]["content"] = turns[-1]["content"].strip()
    return prompt_id(turns)


def _texts(cell: Any, where: str) -> list[str]:
    """The responses of a cell: one text, a list of texts, or the assistant's last turn of a conversation."""
    turns = _turns(cell)
    if turns:
        cell = next((turn["content"] for turn in reversed(turns) if turn["role"] == "assistant"), None)
    texts = cell if isinstance(cell, list) else [cell]
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"{where} must be text, a list of texts or a list of {{role, content}}, found {_excerpt(text)}"
            )
    return [text for text in texts if text is not None and text.strip()]


def _turns(cell: Any) -> list[dict[str, str]] | None:
    """A conversation, also in the words of ShareGPT, which Magpie uses; None: it is none."""
    if not isinstance(cell, list) or not all(isinstance(turn, dict) for turn in cell):
        return None
    roles = {"human": "user", "gpt": "assistant"}
    turns = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in cell]
    if not all(isinstance(role, str) and isinstance(content, str) for role, content in turns):
        return None
    return [{"role": roles.get(role, role), "content": content} for role, content in turns]


def _excerpt(value: Any) -> str:
    text = repr(value[-1].get("content") if isinstance(value, list) and _turns(value) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _quality(row: Mapping[str, Any], column: str | None, where: str) -> float | None:
    value = row[column] if column is not None else None
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise InputError(f"{where}: `{column}` must be a finite number or empty, found {value!r}")
    return None if math.isnan(number) else number


def _verdict(row: Mapping[str, Any], column: str | None, where: str) -> bool | None:
    value = row[column] if column is not None else None
    if value is None or value == "" or value != value:
        return None
    verdicts = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    verdict = verdicts.get(str(value).strip().lower())
    if verdict is None:
        raise InputError(f"{where}: `{column}` must be true, false or empty, found {value!r}")
    return verdict
