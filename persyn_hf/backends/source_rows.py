"""Read the rows of a user's table one at a time, from a file (parquet, JSONL, JSON, CSV) or a Hub dataset."""

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from persyn_hf.backends.answers import well_formed
from persyn_hf.errors import InputError, PersynError


HEAD = 100  # rows that say which columns there are, where nothing else does; a later row may lack some

Choose = Callable[[Sequence[str]], Collection[str]]  # columns there are -> columns to read


def rows_of_file(path: Path, section: str, choose: Choose) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, each with at least the columns that `choose` picks.

    `section` of the recipe names the file. Raises `InputError` where the file cannot be read.
    """
    readers = {".parquet": _parquet_rows, ".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows}
    if path.suffix not in readers:
        raise InputError(f"{path}: `{section}.path` must end in {', '.join(readers)}, found `{path.suffix}`")
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; `{section}.path` must name a file")
    try:
        yield from readers[path.suffix](path, choose)
    except (ValueError, OSError, csv.Error) as error:  # ValueError: also JSON, Unicode and Arrow faults
        raise InputError(f"{path} cannot be read as {path.suffix}: {' '.join(str(error).split())}") from None


def rows_of_dataset(
    dataset: str, config: str | None, revision: str | None, split: str, section: str, choose: Choose
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset, each with at least the columns that `choose` picks; it is downloaded as it is read.

    `section` of the recipe names the dataset. Raises `InputError` where it cannot be read.
    """
    from datasets import Features, Value, load_dataset

    keys = "`config`, `revision` and `source_split`"
    with _telling(dataset, f"check `{section}.dataset`, {keys}"):
        rows = load_dataset(dataset, config, revision=revision, split=split, streaming=True)
        empty = [name for name, kind in (rows.features or {}).items() if kind == Value("null")]
        if empty:  # in the first file, by which all are read; what comes later is text, or refused
            features = Features({**rows.features, **{name: Value("string") for name in empty}})
            rows = load_dataset(dataset, config, revision=revision, split=split, streaming=True, features=features)
        if rows.column_names is None:
            yield from _rows_as_found(iter(rows), choose)
        else:
            yield from rows.select_columns(list(choose(rows.column_names)))


def configs_of_dataset(dataset: str, revision: str | None, section: str) -> list[str]:
    """List the names of a dataset's configs. Raises `InputError` where it cannot be read."""
    from datasets import get_dataset_config_names

    with _telling(dataset, f"check `{section}.dataset` and `revision`"):
        names: list[str] = get_dataset_config_names(dataset, revision=revision)
    return names


def as_text(cell: Any) -> str:
    """Read a cell as text: a list joined by commas, as OlympiadBench's answers; nothing for NaN and mappings."""
    if isinstance(cell, list):
        return ", ".join(text for text in map(as_text, cell) if text)
    return "" if cell is None or isinstance(cell, Mapping) or cell != cell else str(cell).strip()


def as_turns(cell: Any) -> list[dict[str, str]] | None:
    """Read a cell as a conversation, a list of {role, content}; None where it is no conversation.

    The words of ShareGPT (from, value, human, gpt), which Magpie uses, are understood too.
    """
    if not isinstance(cell, list) or not all(isinstance(turn, dict) for turn in cell):
        return None
    roles = {"human": "user", "gpt": "assistant"}
    turns = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in cell]
    if not all(isinstance(role, str) and isinstance(content, str) for role, content in turns):
        return None
    return [{"role": roles.get(role, role), "content": content} for role, content in turns]


def as_prompt(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Drop the assistant's turns at the end of a conversation, and strip the last turn that is left."""
    end = len(turns)
    while end and turns[end - 1]["role"] == "assistant":
        end -= 1
    return [*turns[: end - 1], {**turns[end - 1], "content": turns[end - 1]["content"].strip()}] if end else []


@contextmanager
def _telling(dataset: str, remedy: str) -> Iterator[None]:
    """Turn the faults of a dataset into an `InputError`: its reader, and the libraries below it, raise anything."""
    try:
        yield
    except PersynError:
        raise
    except Exception as error:  # noqa: BLE001
        raise InputError(f"the dataset {dataset} cannot be read: {' '.join(str(error).split())}; {remedy}") from None


def _parquet_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:  # else all of the file ends up in memory
        columns = list(choose(file.schema_arrow.names))
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def _jsonl_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        yield from _rows_as_found(_json_objects(file), choose)


def _json_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON file, which holds one list and is therefore read whole."""
    rows = _read_json(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise ValueError(f"it holds one {type(rows).__name__}, needed is a list of rows")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is {type(row).__name__}, not an object")
    yield from _rows_as_found(iter(rows), choose)


def _json_objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = _read_json(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is {type(row).__name__}, not an object")
            yield row


def _read_json(text: str) -> Any:
    """Read a JSON value. JSON alone can hold half a surrogate pair, which is no text: it becomes U+FFFD here."""
    value = json.loads(text)
    return _well_formed(value) if "\\u" in text else value


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def _csv_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        choose(reader.fieldnames or [])
        yield from reader


def _rows_as_found(rows: Iterator[dict[str, Any]], choose: Choose) -> Iterator[dict[str, Any]]:
    """Yield rows that need not all have the same columns; `choose` sees the columns of the first `HEAD` rows."""
    head = list(islice(rows, HEAD))
    if head:
        choose(list(dict.fromkeys(key for row in head for key in row)))
    return chain(head, rows)
