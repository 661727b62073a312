"""Fixed batches: the keys of a step's requests as arrays, and the plan of its batches, which the journal keeps."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from persyn_hf.backends.answers import Batch, Chosen, Requests
from persyn_hf.backends.dataset_rows import in_parts
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.journal import Journal
from persyn_hf.core.arrays import IntArray


WHOLE, STORED = 32, 16  # bytes of a key: all, and those by which the journal knows it


class Keys:
    """The keys of requests by their numbers: 32 bytes each or, where they are not needed `whole`, 16."""

    def __init__(self, number: int, *, whole: bool) -> None:
        self._keys: NDArray[np.uint64] = np.zeros((number, (WHOLE if whole else STORED) // 8), np.uint64)
        self._known = 0
        self._order: IntArray | None = None

    def add(self, keys: Sequence[str]) -> None:
        """Note the keys of the next requests."""
        digits = 2 * self._keys.itemsize * self._keys.shape[1]
        packed = bytes.fromhex("".join(key[:digits] for key in keys))
        self._keys[self._known : self._known + len(keys)] = np.frombuffer(packed, ">u8").reshape(len(keys), -1)
        self._known += len(keys)

    def once(self, numbers: IntArray) -> IntArray:
        """Return the numbers, which ascend, without those whose key an earlier one has."""
        order = numbers[np.lexsort(self._keys[numbers].T[::-1])]
        same = np.ones(max(len(order) - 1, 0), dtype=bool)
        for column in self._keys.T:
            same &= column[order[1:]] == column[order[:-1]]
        again = np.isin(numbers, order[1:][same])
        return numbers[~again]

    def step(self, batch_tokens: int, rerun_errors: bool) -> str:
        """Return the name of a plan: the sha256 of all keys, in order, and of what else the batches follow from."""
        digest = hashlib.sha256(b"[[")
        for place, numbers in enumerate(in_parts(self._sorted())):
            some = self._keys[numbers].astype(">u8").tobytes()
            keys = [some[at : at + WHOLE].hex() for at in range(0, len(some), WHOLE)]
            digest.update(((", " if place else "") + json.dumps(keys)[1:-1]).encode())
        digest.update(f"], {json.dumps(batch_tokens)}, {json.dumps(rerun_errors)}]".encode())
        return digest.hexdigest()

    def numbers(self, keys: Sequence[str]) -> IntArray:
        """Return the number of each of some keys, which must be there."""
        order = self._sorted()
        found = []
        for key in keys:
            wanted = np.frombuffer(bytes.fromhex(key), ">u8").astype(np.uint64)
            place = int(np.searchsorted(self._firsts, wanted[0]))
            while (self._keys[order[place]] != wanted).any():  # two that begin with the same 8 bytes
                place += 1
            found.append(int(order[place]))
        return np.array(found, dtype=np.int64)

    def _sorted(self) -> IntArray:
        if self._order is None:
            self._order = np.lexsort(self._keys.T[::-1])
            self._firsts = self._keys[self._order, 0]
        return self._order


def fixed_batches(
    step: str,
    requests: Requests,
    keys: Keys,
    missing: IntArray,
    engine: Engine,
    journal: Journal,
    rerun_errors: bool,
) -> tuple[int, Callable[[], Iterator[Batch]]]:
    """Plan the batches of `missing` requests, or read the plan that an earlier start has made.

    Returns the number of requests in batches that are not answered, and what yields these batches.
    """

    def make() -> Iterator[Batch]:
        return engine.plan(Chosen(requests, missing))

    number, open_batches = 0, set[int]()
    for place, batch in enumerate(journal.plan(step, make)):
        if len(journal.answered(batch, errors=not rerun_errors)) < len(set(batch)):
            open_batches.add(place)
            number += len(batch)

    def batches() -> Iterator[Batch]:
        for place, batch in enumerate(journal.plan(step, make)):
            if place in open_batches:
                yield list(requests.take(keys.numbers(batch)))

    return number, batches
