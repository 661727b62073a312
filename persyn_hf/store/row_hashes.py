"""Hash the rows of a stored dataset, 8 bytes each and one column at a time, so that large datasets can be compared.

A column of a million rows is an array of 8 MB, whatever its texts weigh. Rows have no order that counts, so those of
two artifacts are matched by the hash of their key:

- `row_keys` of the old artifact are [k1, k2], those of the new one [k3, k2].
- `shared` returns the places of k2 in both, [1] and [1].
- `column_hashes(old, "scores")[[1]] != column_hashes(new, "scores")[[1]]` says whether that row's scores have changed.

Two different keys may have one hash. With a million rows in each artifact that happens once in about ten million
comparisons.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from persyn_hf.errors import DamagedArtifact
from persyn_hf.store.parquet import shards
from persyn_hf.store.stored import Stored


if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Hashes = np.ndarray[Any, np.dtype[np.uint64]]

BATCH = 500  # rows read together
NULL = 0x6E756C6C  # 0 is the hash of 0 and of false
PLACE = 0x9E3779B97F4A7C15  # odd, so that the same value at two places of a list or key counts differently


def column_hashes(stored: Stored, column: str) -> "Hashes":
    """Return a hash per row of a column, in the order of the files: (num_rows,) of uint64.

    A column that a file does not hold counts as null in all its rows.

    Raises:
        DamagedArtifact: a file cannot be read.
    """
    import numpy as np

    parts = [
        np.full(batch.num_rows, NULL, dtype=np.uint64) if not batch.num_columns else _hash(batch.column(0))
        for batch in _batches(stored, column)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def row_keys(stored: Stored, columns: Sequence[str]) -> "Hashes":
    """Return a hash per row of several columns together: (num_rows,) of uint64, no value twice.

    Rows with the same key are told apart by their number: the second one of the old artifact matches the second one of
    the new.

    Raises:
        DamagedArtifact: a file cannot be read.
    """
    import numpy as np

    keys = _combine([column_hashes(stored, column) for column in columns])
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places = np.arange(len(keys))
    first = np.ones(len(keys), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    repeats = places - np.maximum.accumulate(np.where(first, places, 0))
    keys[order] = np.where(first, ordered, _mix(ordered + repeats.astype(np.uint64) * np.uint64(PLACE)))
    return keys


def sums_by(keys: "Hashes", values: "Hashes") -> "tuple[Hashes, Hashes]":
    """Return the different keys, ascending, and for each the sum of the mixed hashes of its values: (num_keys,) both.

    Sums do not depend on the order of the rows, so two prompts with equal sums have the same set of teachers.

    Args:
        keys: (num_rows,).
        values: (num_rows,).
    """
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)])
    return ordered[starts], np.add.reduceat(_mix(values[order]), starts) if len(starts) else ordered


def shared(old: "Hashes", new: "Hashes") -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Return where the keys that are in both arrays stand in each of them: two index arrays of one length.

    Args:
        old: hashes, no value twice.
        new: hashes, no value twice.
    """
    import numpy as np

    _, at_old, at_new = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    return at_old, at_new


def value_counts(stored: Stored, column: str) -> Counter[str]:
    """Return the number of rows per value of a text column."""
    counts: Counter[str] = Counter()
    for batch in _batches(stored, column):
        for line in batch.column(0).value_counts().to_pylist():
            counts[line["values"]] += line["counts"]
    return counts


def _batches(stored: Stored, column: str) -> "Iterator[pa.RecordBatch]":
    """Yield a column of all data files, some rows at a time; batches have no columns where a file lacks it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for _, _, _, name in shards(stored.manifest.files):
        try:
            with pq.ParquetFile(stored.path / name, pre_buffer=False) as file:  # else all of it ends up in memory
                yield from file.iter_batches(
                    BATCH, columns=[column] if column in file.schema_arrow.names else [], use_threads=False
                )
        except (OSError, pa.ArrowException) as error:
            raise DamagedArtifact(
                f"{stored.ref}: {name} cannot be read ({str(error).splitlines()[0]}); verify the artifact"
            ) from None


def _hash(array: "pa.Array") -> "Hashes":
    """Return a hash per value of an Arrow array; equal values of one type have equal hashes, and null has its own."""
    import numpy as np
    import pyarrow as pa
    from pandas.util import hash_array

    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), NULL, dtype=np.uint64)
    if pa.types.is_struct(kind):
        hashes = _combine([_hash(child) for child in array.flatten()])
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        hashes = _hash_lists(array)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        hashes = hash_array(array.to_numpy(zero_copy_only=False), categorize=False)
    else:
        filled = array.fill_null(False if pa.types.is_boolean(kind) else 0)
        hashes = hash_array(filled.to_numpy(zero_copy_only=False), categorize=False)
    return np.where(array.is_null().to_numpy(zero_copy_only=False), np.uint64(NULL), hashes)


def _hash_lists(array: "pa.Array") -> "Hashes":
    """Return a hash per list, made of its values with their places and of its length."""
    import numpy as np

    values = _hash(array.flatten())
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    places = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_placed(values, places), dtype=np.uint64)])
    return _mix(sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64))


def _combine(columns: "Sequence[Hashes]") -> "Hashes":
    """Return a hash per row of several columns of hashes; the order of the columns counts."""
    total: Hashes = sum(_placed(hashes, place) for place, hashes in enumerate(columns))  # type: ignore[assignment]
    return _mix(total)


def _placed(hashes: "Hashes", places: "np.ndarray[Any, Any] | int") -> "Hashes":
    """Return the hashes mixed with their places, so that the same value at two places counts differently."""
    import numpy as np

    return _mix(hashes + (np.atleast_1d(places).astype(np.uint64) + np.uint64(1)) * np.uint64(PLACE))


def _mix(hashes: "Hashes") -> "Hashes":
    """Return the hashes after the finaliser of splitmix64: near numbers come far apart, so their sums do not meet."""
    import numpy as np

    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
