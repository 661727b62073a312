"""What a service with a batch API does for the engine, whatever form its API has."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from persyn_hf.backends.answers import Request, Said
from persyn_hf.backends.engines.batch.notes import Note


SKEW_S = 3600.0  # by which a provider's clock may differ from ours
PASSING = ("busy", "failed")  # faults of a request that another attempt may mend

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a batch is. Once it is over, `files` hold what came out, and `reason` says why something may lack."""

    is_over: bool
    done: int = 0
    total: int = 0
    files: tuple[str, ...] = ()  # paths of JSON lines
    reason: str = ""
    is_expired: bool = False
    is_full: bool = False  # the account has as many tokens under way as it may: the batch was not begun
    names_all: bool = False  # the files name every request, also those that were not answered


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a batch says to the request of a key; `undone`: it was not answered, and may be sent anew."""

    key: str
    said: Said
    undone: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """The batch of a note, as far as it is known: its id; or how many others, still under way, it may be one of."""

    batch: str | None = None
    maybe: int = 0

    def __bool__(self) -> bool:
        return self.batch is not None or self.maybe > 0


class Service(Protocol):
    """One batch API behind one url."""

    name: str  # for messages
    place: str  # the same, however the url is written
    model: str
    waits: Callable[[str | None], None]

    def line(self, request: Request, mark: str) -> bytes:
        """Make the line of a request in a batch of this mark."""

    def upload(self, lines: Path) -> str | None:
        """Upload what a batch is made of and return its id. It costs nothing, so it may be done again."""

    def create(self, note: Note, lines: Path, others: Callable[[], set[str]]) -> Found:
        """Make the batch of a note. It is paid for, so where the reply is lost it is looked for, as `find` does.

        Raises:
            BusyError: it was not made, for the account has as much under way as it may.
        """

    def find(self, note: Note, others: set[str]) -> Found:
        """Look for the batch of a note whose id was lost; `others` are batches that are known to be something else."""

    def look(self, batch: str) -> State:
        """Say how far a batch is."""

    def results(self, state: State, note: Note, folder: Path) -> Iterator[Result]:
        """Yield what was said to every request that has a result, in any order."""

    def close(self) -> None:
        """Close the connections; batches go on."""


Lined = tuple[Request, bytes]  # a request with its line


def cut(
    requests: Iterable[Request], line: Callable[[Request, str], bytes], most: int, largest: int
) -> Iterator[tuple[str, list[Lined]]]:
    """Cut requests into batches of at most `most` requests and `largest` bytes of lines; yields (mark, its lines)."""
    mark, part, size = uuid.uuid4().hex, list[Lined](), 0
    for request in requests:
        made = line(request, mark)
        if part and (len(part) >= most or size + len(made) > largest):
            yield mark, part
            mark, part, size = uuid.uuid4().hex, [], 0
            made = line(request, mark)
        part.append((request, made))
        size += len(made)
    if part:
        yield mark, part


def whole(value: Any) -> int:
    """Return a count; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def unfound(name: str, note: Note, number: int) -> str:
    """Return the sentence of a batch that may be there, behind more others than are looked through."""
    return (
        f"{name} lists more than {number:,} batches that are newer than one whose id was lost, so nobody knows if "
        f"it was made; look for a batch of {note.number or len(note.keys)} requests there, and remove the note "
        f"{note.mark}.json in `batches` beside the journal to send them anew"
    )
