"""Read the rows of a user's table one at a time, from a file (parquet, JSONL, JSON, CSV) or a Hub dataset.

How a text file is opened is in source_text.py, what a cell may hold in source_cells.py.
"""

import csv
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TextIO

from persyn_hf.backends.answers import well_formed
from persyn_hf.backends.source_cells import messages_in
from persyn_hf.backends.source_text import open_text, undecoded
from persyn_hf.errors import InputError, PersynError


HEAD = 100  # rows that say which columns there are, where nothing else does; a later row may lack some

SEPARATORS = ",;\t"  # of a CSV's cells: the one that its header has most of
QUOTED = re.compile(r'"(?:[^"]|"")*"')
SCRIPT = (
    "it has a loading script, which `datasets` runs no more; name a revision that holds files (on the Hub often "
    "`revision: refs/convert/parquet`), or save its rows as a file and give that as `path`"
)

Choose = Callable[[Sequence[str]], Collection[str]]  # columns there are -> columns to read
RaggedRows = Literal["refuse", "skip"]  # what becomes of a row of a CSV that has more or fewer cells than its header


def rows_of_file(
    path: Path, section: str, choose: Choose, skipped: Callable[[], None] | None = None, key: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, each with at least the columns that `choose` picks.

    `section` of the recipe names the file, by its `path` or by `key`. A row of a CSV that does not fit its header is
    left out and `skipped` called; without `skipped` it is refused. Raises `InputError` where the file cannot be read.
    """
    key = key or f"{section}.path"
    texts = {".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
    readers = {".parquet": _parquet_rows, **texts}
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (texts if path.suffix == ".gz" else readers):
        found = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        raise InputError(
            f"{path}: `{key}` must end in {', '.join(readers)}, found `{found}`; text may be compressed (.csv.gz)"
        )
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; `{key}` must name a file")
    try:
        if _is_empty(path):
            raise InputError(f"{path} is empty: it holds no rows; `{section}` needs at least one")
        if readers[suffix] is _csv_rows:
            yield from _csv_rows(path, choose, skipped)
        else:
            yield from readers[suffix](path, choose)
    except UnicodeError as error:
        raise InputError(f"{path} cannot be read as {suffix}: {undecoded(path, error)}; save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path} cannot be read as {suffix}: it is nested too deeply; give flat columns") from None
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:  # ValueError: also JSON and Arrow faults
        raise InputError(f"{path} cannot be read as {suffix}: {' '.join(str(error).split())}") from None


def _is_empty(path: Path) -> bool:
    """Tell a file without any sign but spaces and line ends; a compressed one is left to its reader."""
    with path.open("rb") as file:
        return not any(part.strip() for part in iter(lambda: file.read(1 << 20), b""))


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
            yield from _rows_as_found(lambda: iter(rows), choose)
        else:
            yield from rows.select_columns(list(choose(rows.column_names)))


def configs_of_dataset(dataset: str, revision: str | None, section: str) -> list[str]:
    """List the names of a dataset's configs. Raises `InputError` where it cannot be read."""
    from datasets import get_dataset_config_names

    with _telling(dataset, f"check `{section}.dataset` and `revision`"):
        names: list[str] = get_dataset_config_names(dataset, revision=revision)
    return names


@contextmanager
def _telling(dataset: str, remedy: str) -> Iterator[None]:
    """Turn the faults of a dataset into an `InputError`: its reader, and the libraries below it, raise anything."""
    try:
        yield
    except PersynError:
        raise
    except Exception as error:  # noqa: BLE001
        said = " ".join(str(error).split())
        if "scripts are no longer supported" in said:
            remedy = SCRIPT
        raise InputError(f"the dataset {dataset} cannot be read: {said}; {remedy}") from None


def _parquet_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:  # else all of the file ends up in memory
        columns = list(choose(file.schema_arrow.names))
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def _jsonl_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    def rows() -> Iterator[dict[str, Any]]:
        with open_text(path) as file:
            yield from _json_objects(file)

    yield from _rows_as_found(rows, choose)


def _json_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON file, one list that is read whole; many of the Hub's hold JSON lines."""
    with open_text(path) as file:
        text = file.read()
    try:
        rows = _read_json(text)
    except json.JSONDecodeError:
        if not re.match(r"\s*\{.*\}\s*\n\s*\{", text):
            raise
        rows = list(_json_objects(io.StringIO(text)))
    if not isinstance(rows, list):
        raise ValueError(f"it holds one {type(rows).__name__}, needed is a list of rows")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is {type(row).__name__}, not an object")
    yield from _rows_as_found(lambda: iter(rows), choose)


def _json_objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = _read_json(line)
            except UnicodeError:
                raise
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            except RecursionError:
                raise ValueError(f"line {number} is nested too deeply; give flat columns") from None
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


def _csv_rows(path: Path, choose: Choose, skipped: Callable[[], None] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV, all with the cells of its header; a cell that spells messages is these messages."""
    csv.field_size_limit(1 << 30)
    with open_text(path) as file:
        separator = "\t" if ".tsv" in path.suffixes else _separator(file)
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, strict=True)
        lines = _csv_lines(reader)
        header = [name.strip() for name in next(lines, [])]
        twice = next((name for at, name in enumerate(header) if name and name in header[:at]), None)
        if twice is not None:
            raise ValueError(f"two columns of its header are called `{twice}`; name each once")
        choose(header)
        for number, cells in enumerate(lines, start=1):
            if len(cells) == len(header):
                yield {name: messages_in(cell) or cell for name, cell in zip(header, cells, strict=True)}
            elif any(cells) and skipped is not None:
                skipped()
            elif any(cells):
                sign = "TAB" if separator == "\t" else separator
                raise ValueError(
                    f"row {number} (line {reader.line_num}) has {len(cells)} cells and the header {len(header)}; put "
                    f"a cell that holds `{sign}` or a line break in quotes, or leave such rows out "
                    "(`ragged_rows: skip`)"
                )


def _csv_lines(reader: Any) -> Iterator[list[str]]:
    """Yield the cells of each row; a fault of the quotes names the row and the line at which it begins."""
    for number in itertools.count():
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = f"row {number}" if number else "the header"
            if "unexpected end" in str(error):
                raise ValueError(
                    f"a quote that opens in {row} (line {begins}) is never closed; close it, or double a quote "
                    "that is a part of a cell"
                ) from None
            raise ValueError(
                f"{row} (line {reader.line_num}): {error}; double a quote that is a part of a cell"
            ) from None
        yield cells


def _separator(file: TextIO) -> str:
    """Tell what separates the names of a header; a comma where there is one name."""
    names = QUOTED.sub("", next((line for line in file if line.strip()), ""))
    return max(SEPARATORS, key=names.count)


def _rows_as_found(rows: Callable[[], Iterator[dict[str, Any]]], choose: Choose) -> Iterator[dict[str, Any]]:
    """Yield rows that need not all have the same columns.

    `choose` sees the columns of the first `HEAD` rows and, where it misses one there, those of all rows, which are
    therefore read twice.
    """
    found = rows()
    head = list(islice(found, HEAD))
    if head:
        try:
            choose(_columns(head))
        except InputError:
            if len(head) < HEAD:
                raise
            choose(_columns(rows()))
    return chain(head, found)


def _columns(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))
