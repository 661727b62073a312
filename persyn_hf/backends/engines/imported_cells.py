"""Read a cell of a table of responses: one text or several, with judgements that others made of them.

A response is text, a conversation whose last turn is the assistant's, or a struct with the text in one field
(Magpie-Zoo: `content`, next to the scores of three reward models). A list of any of these holds samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persyn_hf.backends.answers import well_formed
from persyn_hf.backends.source_rows import as_prompt, as_turns
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import nearest
from persyn_hf.schemas import prompt_id


NOWHERE = object()  # a judgement that must be in a field of the struct that holds the text


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One response as the table gives it; None where the table does not judge it."""

    response: str
    quality: float | None
    is_correct: bool | None


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The names that `columns` gives to a struct's fields: its text, its quality, and whether it is right."""

    text: str
    quality: str | None
    is_correct: str | None


def read_cell(cell: Any, judged: Sequence[Any], fields: Fields, where: str) -> Iterator[Imported]:
    """Yield the responses of a cell, those without text too: a teacher that said nothing is not one without a row.

    Args:
        judged: quality and verdict that the row gives: each is one value for the whole cell, or a list with one per
            sample.
        where: the place of the cell, for errors.

    Raises:
        InputError: the cell holds anything else than text, or judgements that do not fit.
    """
    if turns := as_turns(cell):
        cell = next((turn["content"] for turn in reversed(turns) if turn["role"] == "assistant"), None)
    if isinstance(cell, Mapping):
        names = (fields.quality, fields.is_correct)
        own = [cell.get(name, value) if name else value for name, value in zip(names, judged, strict=True)]
        missing = [name for name, value in zip(names, own, strict=True) if value is NOWHERE]
        if fields.text not in cell:
            raise InputError(
                f"{where} is a struct without the field `{fields.text}`{nearest(fields.text, list(cell))}, where its "
                "text must be; if each teacher has a column, name that field in `columns.response`"
            )
        if missing:
            raise InputError(
                f"{where} is a struct without the field `{missing[0]}`{nearest(str(missing[0]), list(cell))}"
            )
        yield from read_cell(cell[fields.text], own, fields, where)
    elif isinstance(cell, list):
        each = (_each(value, len(cell), where) for value in judged)
        for item, *its_own in zip(cell, *each, strict=True):
            yield from read_cell(item, its_own, fields, where)
    elif isinstance(cell, str):
        if cell.strip():
            quality = _quality(judged[0], fields.quality, where)
            yield Imported(
                response=well_formed(cell), quality=quality, is_correct=_verdict(judged[1], fields.is_correct, where)
            )
        else:
            yield Imported(response="", quality=None, is_correct=None)
    elif cell is not None:
        raise InputError(
            f"{where} must be text, a struct with a text, a list of {{role, content}}, or a list of these, found "
            f"{excerpt(cell)}"
        )


def id_of_prompt(prompt: Any, where: str) -> str | None:
    """Compute the name that the `prompts` stage gives a prompt (text, or a list of turns); None for an empty cell."""
    if prompt is None or isinstance(prompt, str):
        text = (prompt or "").strip()
        return prompt_id([{"role": "user", "content": text}]) if text else None
    turns = as_turns(prompt)
    if turns is None:
        raise InputError(f"{where} must be text or a list of {{role, content}}, found {excerpt(prompt)}")
    return prompt_id(as_prompt(turns))


def excerpt(value: Any) -> str:
    """Quote a value in at most 80 characters, for errors."""
    text = repr(value[-1].get("content") if isinstance(value, list) and as_turns(value) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _each(value: Any, count: int, where: str) -> list[Any]:
    """Return one judgement for each of `count` samples."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{where} holds {count} samples and {len(value)} judgements of them; needed is one for each")
    return value


def _quality(value: Any, name: str | None, where: str) -> float | None:
    _check_there(value, name, where)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise InputError(f"{where}: `{name}` must be a finite number or empty, found {value!r}")
    return None if math.isnan(number) else number


def _verdict(value: Any, name: str | None, where: str) -> bool | None:
    _check_there(value, name, where)
    if value is None or value == "" or value != value:
        return None
    verdicts = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    verdict = verdicts.get(str(value).strip().lower())
    if verdict is None:
        raise InputError(f"{where}: `{name}` must be true, false or empty, found {value!r}")
    return verdict


def _check_there(value: Any, name: str | None, where: str) -> None:
    if value is NOWHERE:
        raise InputError(f"{where} has no field `{name}` beside its text; name the one that its structs have")
