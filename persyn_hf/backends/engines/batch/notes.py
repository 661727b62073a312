"""Remember the batches that were sent, in a file per batch beside the journal.

A batch is paid for once it is made, and its answers come hours later, to whichever run asks then. So a note is there
before the batch is, and it goes when the last of its answers is in the journal. `persyn status`, `persyn plan` and
the budget of a recipe read the notes, too.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from persyn_hf.backends.answers import Request


FOLDER = "batches"  # beside the journal
FORGOTTEN_S = 35 * 86400.0  # providers keep results for 29 or 30 days


@dataclass(frozen=True, kw_only=True)
class Sender:
    """For whom batches are sent, as the journal books their answers, and whether the run waits for them."""

    recipe: str = ""
    payee: str = ""
    waits: bool = True


NOBODY = Sender()


@dataclass(frozen=True, kw_only=True)
class Note:
    """The record of a batch that was sent, or is about to be: its answers to `keys` are still to be collected."""

    service: str
    model: str
    mark: str
    keys: tuple[str, ...]
    most: tuple[tuple[int, int], ...] = ()  # of each key: tokens of the prompt, and generated, at most
    recipe: str = ""  # which pays for it
    payee: str = ""
    since: float = 0.0  # when it was written first, by the clock here
    number: int = 0  # requests that were sent; `keys` gets shorter
    file: str | None = None  # of its requests, at the provider
    batch: str | None = None  # null: it is not known whether it was made
    attempt: int = 1

    @property
    def bounds(self) -> dict[str, tuple[int, int]]:
        """The most that each key can take: (tokens of the prompt, tokens generated). Notes of old say nothing: 0."""
        return dict(zip(self.keys, self.most or [(0, 0)] * len(self.keys), strict=True))

    def without(self, keys: Set[str]) -> "Note":
        """Strike keys off."""
        left = {key: most for key, most in self.bounds.items() if key not in keys}
        return replace(self, keys=tuple(left), most=tuple(left.values()))


def new_note(
    requests: Iterable[Request], *, service: str, model: str, mark: str, sender: Sender, attempt: int
) -> Note:
    """Make the note of a batch that is about to be sent."""
    most = {request.key: request.most_tokens for request in requests}
    return Note(
        service=service,
        model=model,
        mark=mark,
        keys=tuple(most),
        most=tuple(most.values()),
        recipe=sender.recipe,
        payee=sender.payee,
        since=time.time(),
        number=len(most),
        attempt=attempt,
    )


class Notes:
    """The notes of a store: those of journal and engines, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, journal: Path) -> "Notes":
        """Return the notes of the store whose journal this is."""
        return cls(journal.parent / FOLDER)

    def __iter__(self) -> Iterator[Note]:
        for path in sorted(self.folder.glob("*.json")):
            try:
                if time.time() - path.stat().st_mtime > FORGOTTEN_S:
                    continue
                said = json.loads(path.read_text(encoding="utf-8"))
                most = tuple((int(prompt), int(generated)) for prompt, generated in said.get("most", ()))
                note = Note(**{**said, "keys": tuple(map(str, said["keys"])), "most": most})
                _ = note.bounds  # as many as keys
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                continue  # half written: its batch was not made before it was whole
            yield note

    def holding(self, keys: Set[str]) -> list[Note]:
        """Return the notes of batches that answer some of the keys."""
        return [note for note in self if not keys.isdisjoint(note.keys)]

    def clear(self) -> None:
        """Make the folder, and remove notes of batches whose results no provider keeps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.json"):
            if time.time() - path.stat().st_mtime > FORGOTTEN_S:
                path.unlink()

    def write(self, note: Note) -> Note:
        """Write a note so that it is there whole, also after a crash of the machine, and return it."""
        path = self.path(note)
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return note

    def strike(self, note: Note, collected: Set[str]) -> None:
        """Strike what was collected off a note; other steps may ask for the rest."""
        left = note.without(collected)
        if left.keys:
            self.write(left)
        else:
            self.remove(note)

    def remove(self, note: Note) -> None:
        """Remove a note: its batch was never made, or is collected."""
        self.path(note).unlink(missing_ok=True)

    def path(self, note: Note) -> Path:
        """Return the file of a note."""
        return self.folder / f"{note.mark}.json"
