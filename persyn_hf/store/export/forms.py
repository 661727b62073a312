"""The record of a form in which an artifact is exported."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persyn_hf.errors import StoreError, check
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


BATCH = 1000  # rows in memory

Row = Mapping[str, Any]
Beside = dict[Path, str | Mapping[str, Any]]  # other files: their text, or what they hold as JSON


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The user's wishes where answers are paired; see `core.preferences.pairs_of`."""

    pairs: int = 1  # per prompt, at most
    margin: float = 0.0
    same_teacher: bool = False

    def __post_init__(self) -> None:
        check(isinstance(self.pairs, int) and self.pairs >= 1, "pairs", self.pairs, "a whole number, 1 at least")
        check(0 <= self.margin < float("inf"), "margin", self.margin, "a number, 0 at least")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of export: the kind of artifact that it is made of, its rows, and the files that its reader needs."""

    kind: str
    rows: Callable[[Store, Stored, Wishes, Counter[str]], Iterator[Row]]
    beside: Callable[[Store, Stored, Path], Beside]
    named: bool = True  # the file's name says which form it is

    def empty(self, ref: str, counts: Counter[str]) -> StoreError:
        """Make the error of an export without a row."""
        found = ", ".join(f"{what} {number:,}" for what, number in counts.items() if number)
        return StoreError(f"{ref} gives no row in this form ({found or 'it has none'}); take another artifact or form")


def nothing_beside(store: Store, stored: Stored, path: Path) -> Beside:
    """Write the rows alone."""
    return {}


def input_of(store: Store, stored: Stored, word: str) -> Stored:
    """Return the artifact that an artifact was made from, from the store or the Hub.

    Raises:
        StoreError: it is not there, or none of that word was read.
    """
    from persyn_hf.store.hub.as_published import input_ref
    from persyn_hf.store.lineage import open_artifact

    if word not in stored.manifest.inputs:
        raise StoreError(f"{stored.ref} was made without `{word}`, which this form needs; take an artifact of a run")
    return open_artifact(store, input_ref(store, stored, stored.manifest.inputs[word]))
