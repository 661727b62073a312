"""Datasets as parquet, one folder per config and one or more files per split; the same rows give the same bytes.

Configs and splits are read back in sorted order. Where the dataset was ordered otherwise, `order.parquet` holds the
position of each row, so that reading restores the rows exactly as they were written.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.recipe import nearest
from persyn_hf.schemas import Schema


if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

Rows = dict[str, dict[str, int]]  # config -> split -> number of rows

ORDER = "order.parquet"
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
    """Write `data/<config>/<split>-00000-of-0000N.parquet` under `folder`, and `order.parquet` where it is needed.

    Returns:
        Number of rows per config and split.

    Raises:
        StoreError: a config or split has a name that the Hub does not take.
    """
    import numpy as np

    table = _table(dataset, schema)
    configs = _names(table, schema.config_by, "default", _CONFIG)
    splits = _names(table, schema.split_by, "train", _SPLIT)
    rows: Rows = {}
    positions = []
    for config in sorted(set(configs)):
        for split in sorted(set(splits[configs == config])):
            mask = (configs == config) & (splits == split)
            _write_shards(table, mask, folder / "data" / config, split, shard_rows)
            rows.setdefault(config, {})[split] = int(mask.sum())
            positions.append(np.flatnonzero(mask))
    if not len(table):
        _write_shards(table, np.zeros(0, dtype=bool), folder / "data" / "default", "train", shard_rows)
        return {"default": {"train": 0}}
    order = np.concatenate(positions)
    if (np.diff(order) < 0).any():
        _write_order(order, folder / ORDER)
    return rows


def read_dataset(
    folder: Path, rows: Mapping[str, Mapping[str, int]], what: str, config: str | None = None, split: str | None = None
) -> "Dataset":
    """Read the rows of a config and a split (None: all), in memory and in the order in which they were written.

    Args:
        rows: number of rows per config and split, as `write_dataset` returned it.
        what: name of the artifact, for messages.

    Raises:
        StoreError: no such config or split.
        DamagedArtifact: the files hold another number of rows than `rows` says.
    """
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset, Features

    _check_choice(rows, what, config, split)
    tables, chosen, start = [], [], 0
    for name, splits in sorted(rows.items()):
        for part, count in sorted(splits.items()):
            if config in (None, name) and split in (None, part):
                tables.append(_read_shards(folder, name, part, count, what))
                chosen.append(np.arange(start, start + count))
            start += count
    features = Features.from_arrow_schema(tables[0].schema)
    table = pa.concat_tables(tables).cast(features.arrow_schema)
    if (folder / ORDER).exists():
        table = _restore_order(table, folder / ORDER, np.concatenate(chosen))
    return Dataset(table)


def shards(paths: "Mapping[str, object]") -> Iterator[tuple[str, str, int, str]]:
    """Config, split, number of the shard and path of every data file, sorted."""
    found = [(match, path) for path in paths if (match := _SHARD.fullmatch(path))]
    yield from sorted((match[1], match[2], int(match[3]), path) for match, path in found)


def _table(dataset: "Dataset", schema: Schema) -> "pa.Table":
    """The rows as one table with the columns in the order of the contract."""
    import pyarrow as pa

    table = dataset.data.table if dataset._indices is None else _gather(dataset)
    columns: pa.Table = table.select(schema.names)
    return columns.cast(schema.features.arrow_schema)


def _gather(dataset: "Dataset") -> "pa.Table":
    """The rows that a `select` or `sort` of `datasets` stands for.

    In batches through `datasets`, for `pyarrow.Table.take` overflows where a text column passes 2 GiB.
    """
    import pyarrow as pa

    view = dataset.with_format("arrow")
    batches = [view[start : start + ROW_GROUP].combine_chunks() for start in range(0, len(view), ROW_GROUP)]
    return pa.concat_tables(batches) if batches else view[:]


def _names(table: "pa.Table", column: str | None, default: str, pattern: re.Pattern[str]) -> "np.ndarray[Any, Any]":
    """The config or split of each row, shape (rows,)."""
    import numpy as np

    if column is None:
        return np.full(len(table), default, dtype=object)
    names = table.column(column).to_numpy()
    for name in set(names):
        if not isinstance(name, str) or not pattern.fullmatch(name):
            raise StoreError(
                f"the column `{column}` holds {name!r}, which cannot name a config or split on the Hub; "
                "use letters, digits, `.`, `_` and (configs only) `-`"
            )
    return names


def _write_shards(table: "pa.Table", mask: "np.ndarray[Any, Any]", folder: Path, split: str, shard_rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = table.filter(pa.array(mask))
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    start = 0
    while start < len(part) or not written:
        path = folder / f"{split}-{len(written):05d}"
        with open(path, "xb") as stream:
            with pq.ParquetWriter(stream, part.schema, **_WRITER) as writer:
                stop = min(start + shard_rows, len(part))
                while start < stop and stream.tell() < SHARD_BYTES:
                    group = part.slice(start, min(ROW_GROUP, stop - start))
                    # one chunk per column: how the rows lay in memory must not show in the bytes
                    writer.write_table(group.combine_chunks())
                    start += len(group)
            stream.flush()
            os.fsync(stream.fileno())
        written.append(path)
    for path in written:
        path.rename(f"{path}-of-{len(written):05d}.parquet")


def _write_order(order: "np.ndarray[Any, Any]", path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    delta = {"use_dictionary": False, "column_encoding": {"position": "DELTA_BINARY_PACKED"}}
    with open(path, "xb") as stream:
        pq.write_table(pa.table({"position": order}), stream, **_WRITER, **delta)
        stream.flush()
        os.fsync(stream.fileno())


def _read_shards(folder: Path, config: str, split: str, count: int, what: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((folder / "data" / config).glob(f"{split}-*-of-*.parquet"))
    try:
        # partitioning=None: or the folder names of the path would be read as columns
        tables = [pq.read_table(file, partitioning=None) for file in files]
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{what}: a file of {config}/{split} cannot be read ({reason}); verify the artifact"
        ) from None
    found = sum(len(table) for table in tables)
    if not tables or found != count:
        raise DamagedArtifact(f"{what}: {config}/{split} holds {found} rows, its manifest says {count}; verify it")
    return pa.concat_tables(tables)


def _restore_order(table: "pa.Table", path: Path, chosen: "np.ndarray[Any, Any]") -> "pa.Table":
    """Sort the rows by their position in the dataset as it was written; `chosen`: which rows of it these are."""
    import numpy as np
    import pyarrow.parquet as pq
    from datasets import Dataset

    positions = pq.read_table(path, partitioning=None).column("position").to_numpy()[chosen]
    order = np.argsort(positions)
    return table if (np.diff(order) == 1).all() else _gather(Dataset(table).select(order))


def _check_choice(rows: Mapping[str, Mapping[str, int]], what: str, config: str | None, split: str | None) -> None:
    if config is not None and config not in rows:
        raise StoreError(f"{what} has no config `{config}`{nearest(config, sorted(rows))}")
    splits = sorted({name for key, parts in rows.items() if config in (None, key) for name in parts})
    if split is not None and split not in splits:
        raise StoreError(f"{what} has no split `{split}`{nearest(split, splits)}")
