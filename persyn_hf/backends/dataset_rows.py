"""Read the rows of a dataset some at a time, and find them by the names of their prompts, whatever their number.

A dataset lies in a file that is mapped into memory, or in memory as Arrow has it: 10 million prompts as Python's rows
would take 15 GB. So stages keep the numbers of rows, 8 bytes each, and make Python's rows of a thousand at a time:

    prompts                p1 p2 p3 p4        NameIndex: 12 bytes a prompt
    assignments            p4 p2 p9           `NameIndex.rows` says [3, 1, -1]
    responses              p4 p1 p4           `Grouped.of([3, 1])` yields the two of p4, then none
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.arrays import IntArray


if TYPE_CHECKING:
    from datasets import Dataset

AT_A_TIME = 1000  # prompts whose rows are Python's at the same time
STRETCH, SPARSE = 10_000, 4  # rows of a stretch, and for each that is wanted, from which on they are read one by one

Row = dict[str, Any]


class Rows:
    """The rows of a dataset by number, or some of its columns; as Python's values only while they are looked at."""

    def __init__(self, dataset: "Dataset", columns: Sequence[str] | None = None) -> None:
        chosen = dataset if columns is None else dataset.select_columns(list(columns))
        self._view = chosen.with_format("arrow")

    def __len__(self) -> int:
        return len(self._view)

    def at(self, numbers: IntArray) -> list[Row]:
        """Return the rows of these numbers, in their order."""
        if not len(numbers):
            return []
        first, end = int(numbers.min()), int(numbers.max()) + 1
        if end - first > SPARSE * len(numbers) + STRETCH:
            rows: list[Row] = self._view[numbers.tolist()].to_pylist()
            return rows
        stretch = self._view[first:end]
        whole = end - first == len(numbers) and (np.diff(numbers) == 1).all()
        rows = (stretch if whole else stretch.take(numbers - first)).to_pylist()
        return rows

    def __iter__(self) -> Iterator[Row]:
        for numbers in in_parts(np.arange(len(self))):
            yield from self.at(numbers)


class Texts(Sequence[str]):
    """A text of each of some rows, made when it is looked at."""

    def __init__(self, rows: Rows, numbers: IntArray, text: Callable[[Row], str]) -> None:
        self._rows, self._numbers, self._text = rows, numbers, text

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._text(row) for row in self._rows.at(self._numbers[place])]
        return self._text(self._rows.at(self._numbers[place : place + 1])[0])

    def __iter__(self) -> Iterator[str]:
        for some in in_parts(self._numbers):
            yield from map(self._text, self._rows.at(some))


def in_parts(numbers: IntArray, size: int = AT_A_TIME) -> Iterator[IntArray]:
    """Cut an array into parts of `size`, the last one shorter."""
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def column_parts(dataset: "Dataset", column: str, size: int = AT_A_TIME) -> Iterator[NDArray[np.object_]]:
    """Yield the values of a column as arrays of `size` Python objects, the last one shorter."""
    for table in dataset.select_columns([column]).with_format("arrow").iter(size):
        yield table[column].to_numpy()


class NameIndex:
    """The numbers of the rows in which names stand, 12 bytes a name while it is kept and 24 while it is made.

    Names are known by 64 bits of hash, as many as the names of prompts have themselves: among ten million, two are
    taken for one with a probability of 3 in a million.
    """

    def __init__(self, parts: Iterable[Sequence[str] | NDArray[np.object_]]) -> None:
        hashes = np.concatenate([np.zeros(0, np.uint64), *map(_hashes, parts)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = order.astype(np.uint32 if len(order) < 1 << 32 else np.int64)

    @classmethod
    def of(cls, dataset: "Dataset", column: str = "prompt_id") -> "NameIndex":
        """Make the index of a column."""
        return cls(column_parts(dataset, column))

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, names: Sequence[str] | NDArray[np.object_]) -> IntArray:
        """Return the number of the first row of each name, (len(names),); -1 where there is none."""
        wanted = _hashes(names)
        if not len(self) or not len(wanted):
            return np.full(len(wanted), -1)
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self) - 1)
        return np.where(self._hashes[places] == wanted, self._rows[places].astype(np.int64), -1)


class Grouped:
    """Rows by what they are about, such as a prompt: 16 bytes a row."""

    def __init__(self, rows: Rows, groups: IntArray) -> None:
        """groups: what each row is about, (number of rows,); rows of a number below 0 are in no group."""
        self._rows = rows
        self._order = np.argsort(groups, kind="stable")
        self._groups = groups[self._order]

    @classmethod
    def by_prompt(cls, dataset: "Dataset", index: NameIndex, columns: Sequence[str] | None = None) -> "Grouped":
        """Group the rows of a dataset by the number that `index` has for their prompt."""
        prompts = [index.rows(names) for names in column_parts(dataset, "prompt_id")]
        return cls(Rows(dataset, columns), np.concatenate([np.zeros(0, np.int64), *prompts]))

    @property
    def strangers(self) -> IntArray:
        """Return the numbers of the rows that are in no group, ascending."""
        return self._order[: np.searchsorted(self._groups, 0)]

    @property
    def groups(self) -> IntArray:
        """Return what has a row, ascending."""
        return np.unique(self._groups[len(self.strangers) :])

    def sizes(self, groups: IntArray) -> IntArray:
        """Return the number of rows of each of some groups, (len(groups),)."""
        first, end = self._bounds(groups)
        return end - first

    def of(self, groups: IntArray) -> Iterator[list[Row]]:
        """Yield the rows of each of some groups, as they stand in the dataset."""
        first, end = self._bounds(groups)
        lengths = end - first
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = iter(self._rows.at(self._order[np.repeat(first, lengths) + inside]))
        return (list(islice(rows, length)) for length in lengths.tolist())

    def _bounds(self, groups: IntArray) -> tuple[IntArray, IntArray]:
        first, end = (np.searchsorted(self._groups, groups, side) for side in ("left", "right"))
        return first, end


def _hashes(names: Sequence[str] | NDArray[np.object_]) -> NDArray[np.uint64]:
    from pandas.util import hash_array

    return np.asarray(hash_array(np.asarray(names, dtype=object), categorize=False))
