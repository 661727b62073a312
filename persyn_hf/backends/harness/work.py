"""Give a student the texts of a task, and keep what it said as it comes: who goes on after a kill takes that up."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from persyn_hf.backends.launch import read_lines
from persyn_hf.stage import Progress


KEPT = "answers.jsonl"

Done = Callable[[Sequence[int], Sequence[Any]], None]  # takes numbers of texts, and what each gave, as plain JSON


@dataclass(frozen=True, kw_only=True)
class Work:
    """Texts to go on from, of one prompt each, or pairs of a context and a continuation to weigh (`max_tokens` 0).

    A prompt gives what was said and whether an end token ended it; a pair gives its log-likelihood and whether each of
    its tokens is the likeliest one.
    """

    texts: list[list[str]]
    max_tokens: int = 0
    stops: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The digest of all that is asked."""
        return key_of(asdict(self))


class Share(NamedTuple):
    """The part of a work that is to be done by process `rank` of `processes`: nothing of what is `known`."""

    known: frozenset[int] = frozenset()
    rank: int = 0
    processes: int = 1

    def of(self, windows: Iterable[Sequence[int]]) -> list[list[int]]:
        """Return of each window, which are numbers of texts, what is to be done; windows fall to one process whole."""
        left = [[number for number in window if number not in self.known] for window in windows]
        return [window for window in left if window][self.rank :: self.processes]


class Engine(Protocol):
    """The interface of a student that answers works."""

    def answer(self, work: Work, share: Share, done: Done) -> None:
        """Answer a share of the work; `done` is called as its parts are done."""


class Kept:
    """What a student has said in this step, by the digest of what was asked: lines of the file KEPT in `folder`.

    under: plain JSON, names what the answers depend on besides: the student, the engine.
    """

    def __init__(self, folder: Path, under: Sequence[Any], progress: Progress) -> None:
        self._path, self._under, self._progress = folder / KEPT, list(under), progress
        folder.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, dict[int, Any]] = {}
        if self._path.exists():
            for key, numbers, values in read_lines(self._path.read_bytes()):
                self._found.setdefault(key, {}).update(zip(numbers, values, strict=True))
            with self._path.open("ab") as file:
                file.write(b"\n")  # after a line that a kill has torn

    def ask(self, what: str, work: Work, engine: Engine) -> list[Any]:
        """Return what every text of a work gave, in order; `what` tells the progress."""
        return self.complete(
            what, work.key, len(work.texts), lambda known, done: engine.answer(work, Share(known), done)
        )

    def complete(self, what: str, asked: Any, size: int, ask: Callable[[frozenset[int], Done], None]) -> list[Any]:
        """Return `size` values, in order; `ask` gets the numbers of what is known, and what takes the others.

        asked: plain JSON, all that the values depend on besides `under`.
        """
        key = key_of([self._under, asked])
        found = self._found.setdefault(key, {})
        self._progress.start(what, total=size, done=len(found))
        if len(found) < size:
            ask(frozenset(found), partial(self._keep, key))
        return [found[number] for number in range(size)]

    def _keep(self, key: str, numbers: Sequence[int], values: Sequence[Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, list(numbers), list(values)]) + "\n")
        self._found[key].update(zip(numbers, values, strict=True))
        self._progress.advance(len(numbers))


def key_of(asked: Any) -> str:
    """Return the digest of what is asked, plain JSON."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
