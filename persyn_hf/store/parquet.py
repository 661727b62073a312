"""Datasets as parquet, one folder per config and one or more files per split; the same rows give the same bytes.

Configs and splits are read back in sorted order. Where the dataset was ordered otherwise, `order.parquet` holds the
position of each row, so that reading restores the rows exactly as they were written.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.contract import Schema
from persyn_hf.errors import StoreError
from persyn_hf.store.parquet_read import ORDER, Stream


if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

Rows = dict[str, dict[str, int]]  # config -> split -> number of rows

ROW_GROUP = 2_000  # rows; at 8k tokens of text each about 64 MB, which the Hub's viewer can page through
SHARD_BYTES = 200 * 2**20  # a new file is begun after the row group that passes this
SHARD_ROWS = 1_000_000

_CONFIG = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_SPLIT = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_SHARD = re.compile(r"data/([^/]+)/([^/]+)-(\d{5,})-of-\d{5,}\.parquet")
_WRITER: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "data_page_version": "1.0",
    "write_statistics": True,
    "store_schema": True,
}


def write_dataset(dataset: "Dataset", schema: Schema, folder: Path, shard_rows: int = SHARD_ROWS) -> Rows:
    """Write a dataset as `data/<config>/<split>-00000-of-0000N.parquet`, and `order.parquet` where its order needs it.

    An example: rows of the splits pool, dev, pool become two files, `dev` and `pool`. Read back by name they would
    stand as dev, pool, pool, so `order.parquet` holds their places in the dataset, 1, 0, 2.

    Args:
        folder: where the files go.
        shard_rows: the largest number of rows of one file.

    Returns:
        Number of rows by config and split.

    Raises:
        StoreError: a config or split has a name that the Hub does not take.
    """
    import numpy as np

    table = _table(dataset, schema)
    rows: Rows = {}
    positions = []
    for config in _names(table, schema.config_by, "default", _CONFIG):
        for split in _names(table, schema.split_by, "train", _SPLIT):
            mask = _equal(table, schema.config_by, config) & _equal(table, schema.split_by, split)
            if mask.any():
                _write_shards(table, mask, folder / "data" / config, split, shard_rows)
                rows.setdefault(config, {})[split] = int(mask.sum())
                positions.append(np.flatnonzero(mask))
    if not len(table):
        _write_shards(table, np.zeros(0, dtype=bool), folder / "data" / "default", "train", shard_rows)
        return {"default": {"train": 0}}
    order = np.concatenate(positions)
    del positions
    if (order[1:] < order[:-1]).any():
        _write_order(order, folder / ORDER)
    return rows


def shards(paths: "Mapping[str, object]") -> Iterator[tuple[str, str, int, str]]:
    """Yield config, split, number and path of every data file among some paths, sorted."""
    matches = [(match, path) for path in paths if (match := _SHARD.fullmatch(path))]
    yield from sorted((match[1], match[2], int(match[3]), path) for match, path in matches)


def _table(dataset: "Dataset", schema: Schema) -> "pa.Table":
    """Return the rows as one Arrow table with the columns in the order of the contract."""
    import pyarrow as pa

    table = dataset.data.table if dataset._indices is None else _gather(dataset)
    schema = schema.having(table.column_names)
    columns: pa.Table = table.select(schema.names)
    return columns.cast(schema.features.arrow_schema)


def _gather(dataset: "Dataset") -> "pa.Table":
    """Return the rows that a `select` or `sort` of `datasets` stands for.

    They are taken in batches through `datasets`, because `pyarrow.Table.take` overflows where a text column passes 2
    GiB.
    """
    import pyarrow as pa

    view = dataset.with_format("arrow")
    batches = [view[start : start + ROW_GROUP].combine_chunks() for start in range(0, len(view), ROW_GROUP)]
    return pa.concat_tables(batches) if batches else view[:]


def _names(table: "pa.Table", column: str | None, default: str, pattern: re.Pattern[str]) -> list[str]:
    """Return the configs or splits that a column names, sorted; `default` alone where there is no such column."""
    import pyarrow.compute as pc

    if column is None:
        return [default]
    names = pc.unique(table.column(column)).to_pylist()
    for name in names:
        if not isinstance(name, str) or not pattern.fullmatch(name):
            raise StoreError(
                f"the column `{column}` holds {name!r}, which cannot name a config or split on the Hub; "
                "use letters, digits, `.`, `_` and (configs only) `-`"
            )
    return sorted(names)


def _equal(table: "pa.Table", column: str | None, name: str) -> "np.ndarray[Any, Any]":
    """Return which rows have a value in a column: (num_rows,) of bool; all rows where there is no such column."""
    import numpy as np
    import pyarrow.compute as pc

    return np.ones(len(table), dtype=bool) if column is None else pc.equal(table.column(column), name).to_numpy()


def _write_shards(table: "pa.Table", mask: "np.ndarray[Any, Any]", folder: Path, split: str, shard_rows: int) -> None:
    """Write the rows of one config and split into as many files as they need, at least one."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    stream_of, left = Stream(_chosen(table, mask), table.schema), int(mask.sum())
    written: list[Path] = []
    while left or not written:
        path = folder / f"{split}-{len(written):05d}"
        with open(path, "xb") as stream:
            with pq.ParquetWriter(stream, table.schema, **_WRITER) as writer:
                stop = max(left - shard_rows, 0)
                while left > stop and stream.tell() < SHARD_BYTES:
                    group = stream_of.take(min(ROW_GROUP, left - stop))
                    # one chunk per column: how the rows lay in memory must not show in the bytes
                    writer.write_table(group.combine_chunks())
                    left -= len(group)
            stream.flush()
            os.fsync(stream.fileno())
        written.append(path)
    for path in written:
        path.rename(f"{path}-of-{len(written):05d}.parquet")


def _chosen(table: "pa.Table", mask: "np.ndarray[Any, Any]") -> "Iterator[pa.RecordBatch]":
    """Yield the rows of a table where a mask (num_rows,) is true, in batches of at most `ROW_GROUP`."""
    import pyarrow as pa

    start = 0
    for batch in table.to_batches(max_chunksize=ROW_GROUP):
        here = mask[start : start + len(batch)]
        start += len(batch)
        if here.any():
            yield batch if here.all() else batch.filter(pa.array(here))


def _write_order(order: "np.ndarray[Any, Any]", path: Path) -> None:
    """Write the positions (num_rows,) of the rows as a parquet file with the column `position`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    delta = {"use_dictionary": False, "column_encoding": {"position": "DELTA_BINARY_PACKED"}}
    with open(path, "xb") as stream:
        pq.write_table(pa.table({"position": order}), stream, **_WRITER, **delta)
        stream.flush()
        os.fsync(stream.fileno())
