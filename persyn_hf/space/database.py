"""DuckDB over the parquet files of the artifacts. It reads them where they lie, and nothing else of the disk."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from persyn_hf.contract import ModelSchema
from persyn_hf.errors import PersynError, StoreError, reason, require
from persyn_hf.schemas import SCHEMAS
from persyn_hf.space.collection import Shelf
from persyn_hf.store.parquet import shards
from persyn_hf.store.stored import Stored


FEW = 255  # texts that are told apart by a byte
MEMORY = "1GB"  # of DuckDB; the process with all its libraries takes about 0.4 GB more


class Database:
    """The rows of a shelf's artifacts. Values are always bound as parameters; names in SQL are made here."""

    def __init__(self, shelf: Shelf) -> None:
        """Open the files of a shelf; afterwards no statement can open another file or change the settings."""
        duckdb = require("duckdb", extra="space", feature="`persyn space`")
        self.shelf = shelf
        self._paths = {item.ref: _paths(item) for item in shelf.items.values()}
        self._names: dict[str, str] = {}
        self._texts: dict[tuple[str, str], list[str]] = {}
        self._lock = threading.RLock()
        self._fault: type[Exception] = duckdb.Error
        # no spilling to disk; allowed_paths are the only files that any statement can open
        self._connection = duckdb.connect(":memory:", config={"memory_limit": MEMORY})
        for statement in (
            "SET temp_directory = ''",
            "SET autoinstall_known_extensions = false",
            "SET autoload_known_extensions = false",
            # GLOBAL: else the cursors are without it. The footers of 15M rows take 0.2 s whenever they are read.
            "SET GLOBAL parquet_metadata_cache = true",
            # What a query has used goes back to the system; by default up to 512 MB of it stay with the process.
            "SET allocator_bulk_deallocation_flush_threshold = '1MB'",
            f"SET allowed_paths = [{', '.join(quoted(path) for paths in self._paths.values() for path in paths)}]",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self._connection.execute(statement)

    def view(self, stored: Stored) -> str:
        """Return the name in SQL of an artifact's rows, in the order in which they lie.

        `file_row_number` is a column more: the place of a row in its file, by which it is read without the rest.
        """
        with self._lock:
            if stored.ref not in self._names:
                name, paths = f"{stored.kind}_{len(self._names)}", self._paths[stored.ref]
                rows = f"read_parquet([{', '.join(map(quoted, paths))}], file_row_number = true)"
                self._run(f"CREATE VIEW {name} AS SELECT * FROM {rows}", (), stored.ref)
                self._names[stored.ref] = name
            return self._names[stored.ref]

    def table(self, key: str, select: str, what: str) -> str:
        """Return the name of a table in memory that `select` is written to once, under a key."""
        with self._lock:
            if key not in self._names:
                name = f"made_{len(self._names)}"
                self._run(f"CREATE TABLE {name} AS {select}", (), what)
                self._names[key] = name
            return self._names[key]

    def few(self, stored: Stored, column: str) -> str:
        """Return the type in SQL for a column of texts in a table: a byte a row where there are few different ones.

        Such a type sorts as the texts do, and compares with them.
        """
        found = self.different(stored, column)
        return one_of(found) if 0 < len(found) <= FEW else "VARCHAR"

    def different(self, stored: Stored, column: str) -> list[str]:
        """Return the different texts of a column, sorted, the first `FEW` and one more; they are looked for once."""
        with self._lock:
            key = (stored.ref, column)
            if key not in self._texts:
                select = f"SELECT DISTINCT {column} FROM {self.view(stored)} WHERE {column} IS NOT NULL"
                self._texts[key] = [row[0] for row in self.rows(f"{select} ORDER BY 1 LIMIT {FEW + 1}")]
            return self._texts[key]

    def made(self, key: str) -> bool:
        """Tell whether `table` has written the table of a key."""
        return key in self._names

    def rows(self, select: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects, as tuples."""
        return list(self._run(select, values, "the artifacts").fetchall())

    def columns(self, select: str, values: Sequence[Any] = ()) -> dict[str, Any]:
        """Return the columns that a statement selects, as numpy arrays by name."""
        return dict(self._run(select, values, "the artifacts").fetchnumpy())

    def _run(self, sql: str, values: Sequence[Any], what: str) -> Any:
        """Execute a statement; an error of DuckDB becomes a `StoreError` about `what`."""
        try:
            return self._connection.cursor().execute(sql, list(values))
        except self._fault as error:
            raise StoreError(
                f"{what} could not be read ({reason(error)}); check with `persyn artifacts verify`"
            ) from None


def _paths(stored: Stored) -> list[str]:
    """Return the files that hold an artifact's rows, without links, because DuckDB checks its access against that.

    Raises:
        PersynError: a file is missing.
    """
    if isinstance(SCHEMAS[stored.kind], ModelSchema):
        return []
    files = [stored.path / name for *_, name in shards(stored.manifest.files)]
    for path in files:
        if not path.resolve().is_file():
            raise PersynError(f"{stored.ref}: the file {path} is missing; restore it, or make the artifact anew")
    return [str(path.resolve()) for path in files]


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def one_of(texts: Iterable[str]) -> str:
    """Return the type in SQL of a text that is one of some."""
    return f"ENUM ({', '.join(map(quoted, texts))})"
