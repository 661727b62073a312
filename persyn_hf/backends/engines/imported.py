"""Responses that exist already: a long table (parquet, JSONL, CSV), one row per prompt and teacher."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persyn_hf.backends.chat import split_reasoning
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.journal import Entry
from persyn_hf.errors import InputError
from persyn_hf.recipe import nearest
from persyn_hf.schemas import prompt_id


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One response as the table gives it; null: the table does not say."""

    response: str
    quality: float | None
    is_correct: bool | None


def read_responses(path: Path, columns: Mapping[str, str | None]) -> dict[tuple[str, str], list[Imported]]:
    """Responses by (prompt_id, teacher), in the order of the table; rows without text are left out.

    `columns` maps prompt, teacher, response and, where there are such columns, quality and is_correct to their names
    in the table. A prompt is named as in the `prompts` stage, so the texts must be the same.
    """
    found: dict[tuple[str, str], list[Imported]] = {}
    for number, row in enumerate(_rows(path), start=1):
        for name in columns.values():
            if name is not None and name not in row:
                raise InputError(f"{path}, row {number}: there is no column `{name}`{nearest(name, row)}")
        prompt, teacher, response = (row[str(columns[key])] for key in ("prompt", "teacher", "response"))
        if prompt is None or teacher is None or response is None or not str(response).strip():
            continue
        imported = Imported(
            response=str(response),
            quality=_quality(row, columns.get("quality"), f"{path}, row {number}"),
            is_correct=_verdict(row, columns.get("is_correct"), f"{path}, row {number}"),
        )
        found.setdefault((_prompt_id(prompt), str(teacher)), []).append(imported)
    if not found:
        raise InputError(f"{path} holds no responses; one row per prompt and teacher is needed")
    return found


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
            samples.append(
                Sample(
                    prompt=prompt,
                    index=index,
                    entry=Entry(
                        text=text,
                        finish_reason="error" if error else "imported",
                        num_prompt_tokens=0,
                        num_tokens=0,
                        seconds=0.0,
                        error=error,
                        attempt=0,
                    ),
                    response=response,
                    reasoning=reasoning,
                    quality=found.quality if found else None,
                    is_correct=found.is_correct if found else None,
                )
            )
    return samples


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    readers = {".parquet": _parquet_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows}
    if path.suffix not in readers:
        raise InputError(f"{path}: `generate.path` must end in {', '.join(readers)}, found `{path.suffix}`")
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; `generate.path` must name the table of responses")
    try:
        yield from readers[path.suffix](path)
    except (ValueError, OSError, csv.Error) as error:  # ValueError: also JSON, Unicode and Arrow faults
        raise InputError(f"{path} cannot be read as {path.suffix}: {' '.join(str(error).split())}") from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is {type(row).__name__}, not an object")
                yield row


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _prompt_id(prompt: Any) -> str:
    """The name that the `prompts` stage gives this prompt (text, or a list of turns)."""
    if isinstance(prompt, list):
        turns = [{"role": str(turn.get("role")), "content": str(turn.get("content"))} for turn in prompt]
        if turns:
            turns[-1]["content"] = turns[-1]["content"].strip()
        return prompt_id(turns)
    return prompt_id([{"role": "user", "content": str(prompt).strip()}])


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
