"""Read the rows of a stored dataset in the order in which they were written, some at a time."""

import glob
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.errors import DamagedArtifact, StoreError, reason
from persyn_hf.recipe.strict import nearest
from persyn_hf.text import first_line


if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

ORDER = "order.parquet"
CHUNK = 10_000  # rows read together
IN_MEMORY = 64 * 2**20  # bytes of a dataset


def read_dataset(
    folder: Path, rows: Mapping[str, Mapping[str, int]], what: str, config: str | None = None, split: str | None = None
) -> "Dataset":
    """Read the rows of a config and a split (None: all) in the order in which they were written.

    They are in memory or, where they take more than `IN_MEMORY`, mapped from a file without a name in the folder for
    temporary files, so that only what is looked at is loaded.

    Args:
        folder: where `write_dataset` wrote them.
        rows: number of rows by config and split, as `write_dataset` returned it.
        what: name of the artifact, for messages.

    Raises:
        StoreError: no such config or split.
        DamagedArtifact: the files hold another number of rows than `rows` says, or `rows` names none.
    """
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset, Features
    from datasets.fingerprint import generate_random_fingerprint

    _check_choice(rows, what, config, split)
    parts, chosen, start = [], [], 0
    for name, splits in sorted(rows.items()):
        for part, count in sorted(splits.items()):
            if config in (None, name) and split in (None, part):
                parts.append(_Part(folder, name, part, count, what))
                chosen.append(np.arange(start, start + count))
            start += count
    if not parts:
        raise DamagedArtifact(f"{what}: its manifest names no rows, and those of a dataset are needed; verify it")
    rows_chosen = np.concatenate(chosen)
    ordered = (folder / ORDER).exists()
    positions = _read_order(folder / ORDER, start, what)[rows_chosen] if ordered else np.arange(len(rows_chosen))
    order = np.argsort(positions)
    features = Features.from_arrow_schema(parts[0].schema)
    tables = (table.cast(features.arrow_schema) for table in _in_order(parts, order))
    kept, num_bytes = [features.arrow_schema.empty_table()], 0
    for table in tables:
        kept.append(table)
        num_bytes += table.nbytes
        if num_bytes > IN_MEMORY:
            kept = [_mapped(chain(kept, tables), features.arrow_schema)]
            break
    # a fingerprint of its own, or all rows would be pickled to hash them
    return Dataset(pa.concat_tables(kept), fingerprint=generate_random_fingerprint())


class Stream:
    """A sequence of record batches that is handed out in portions of any size."""

    def __init__(self, batches: "Iterator[pa.RecordBatch]", schema: "pa.Schema") -> None:
        self._batches = batches
        self._kept = schema.empty_table()

    def take(self, number: int) -> "pa.Table":
        """Return the next `number` rows as a table; there must be as many left."""
        import pyarrow as pa

        tables, num_rows = [self._kept], len(self._kept)
        while num_rows < number:
            tables.append(pa.Table.from_batches([next(self._batches)]))
            num_rows += len(tables[-1])
        table = pa.concat_tables(tables)
        self._kept = table.slice(number)
        return table.slice(0, number)


class _Part(Stream):
    """The rows of one config and split, read as they are asked for."""

    def __init__(self, folder: Path, config: str, split: str, count: int, what: str) -> None:
        """Open the files of a config and split.

        Raises:
            DamagedArtifact: they cannot be read, do not hold `count` rows, or have a name that leads elsewhere.
        """
        import pyarrow.parquet as pq

        for name in (config, split):
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise DamagedArtifact(f"{what}: its manifest names {name!r}, which no config or split may be called")
        self._what = f"{what}: a file of {config}/{split} cannot be read"
        with self._damage():
            paths = sorted((folder / "data" / config).glob(f"{glob.escape(split)}-*-of-*.parquet"))
            files = [pq.ParquetFile(path) for path in paths]
        num_rows = sum(file.metadata.num_rows for file in files)
        if not files or num_rows != count:
            holds = f"{what}: {config}/{split} holds {num_rows} rows"
            raise DamagedArtifact(f"{holds}, its manifest says {count}; verify it")
        self.count = count
        self.schema = files[0].schema_arrow
        super().__init__((batch for file in files for batch in file.iter_batches(CHUNK)), self.schema)

    def take(self, number: int) -> "pa.Table":
        """Return the next `number` rows as a table; a file that cannot be read is a `DamagedArtifact`."""
        with self._damage():
            return super().take(number)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn errors of reading within into a `DamagedArtifact`."""
        import pyarrow as pa

        try:
            yield
        except (OSError, pa.ArrowException) as error:
            said = first_line(error)
            raise DamagedArtifact(f"{self._what} ({said}); verify the artifact") from None


def _in_order(parts: "Sequence[_Part]", order: "np.ndarray[Any, Any]") -> "Iterator[pa.Table]":
    """Yield the rows of several parts in one order, `CHUNK` at a time.

    Args:
        parts: the rows are numbered as if the parts stood one behind the other.
        order: the numbers of the rows to yield, (num_rows,); the rows of each part ascend in it, so each part is
            read once.
    """
    import numpy as np
    import pyarrow as pa

    ends = np.cumsum([part.count for part in parts])
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        numbers = np.bincount(np.searchsorted(ends, rows, side="right"), minlength=len(parts)).tolist()
        table = pa.concat_tables([part.take(number) for part, number in zip(parts, numbers, strict=True)])
        ascending = (np.diff(rows) == 1).all()
        yield table if ascending else table.combine_chunks().take(pa.array(np.argsort(np.argsort(rows))))


def _mapped(tables: "Iterable[pa.Table]", schema: "pa.Schema") -> "pa.Table":
    """Return the rows as a table mapped from a temporary file that goes with it."""
    import pyarrow as pa

    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for table in tables:
                writer.write_table(table)
        file.flush()
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_stream(pa.py_buffer(pages)).read_all()


def _read_order(path: Path, num_rows: int, what: str) -> "np.ndarray[Any, Any]":
    """Return the positions (num_rows,) that `order.parquet` holds.

    Raises:
        DamagedArtifact: it cannot be read, or holds another number of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        positions: np.ndarray[Any, Any] = pq.read_table(path, partitioning=None).column("position").to_numpy()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamagedArtifact(f"{what}: {path.name} cannot be read ({reason(error)}); verify it") from None
    if len(positions) != num_rows:
        raise DamagedArtifact(f"{what}: {path.name} orders {len(positions)} rows, needed are {num_rows}; verify it")
    return positions


def _check_choice(rows: Mapping[str, Mapping[str, int]], what: str, config: str | None, split: str | None) -> None:
    """Raise a `StoreError` where there is no such config or split."""
    if config is not None and config not in rows:
        raise StoreError(f"{what} has no config `{config}`{nearest(config, sorted(rows))}")
    splits = sorted({name for key, parts in rows.items() if config in (None, key) for name in parts})
    if split is not None and split not in splits:
        raise StoreError(f"{what} has no split `{split}`{nearest(split, splits)}")
