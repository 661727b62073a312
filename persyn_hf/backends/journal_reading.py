"""Read which answers a journal holds, without holding it: a run may be writing meanwhile, and nothing is changed.

`persyn plan` asks this way what a run would have to pay for.
"""

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from persyn_hf.backends import journal_file as file
from persyn_hf.backends.answers import Request


KEYS_AT_A_TIME = 500  # of one query: three times as fast as one by one


class JournalReader:
    """A journal that is open for reading only; where there is no file, it holds no answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        if path.exists():
            with file.faults(path):
                db = file.open_to_read(path)
                if file.find_format(db, path):
                    self._db = db
                else:
                    db.close()

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        if self._db is not None:
            self._db.close()

    @property
    def is_empty(self) -> bool:
        """Whether there is no file, or one without tables."""
        return self._db is None

    def prompts_of(self, model: str) -> set[str]:
        """Return the prompts to which the journal has any answer of a model, errors included."""
        if self._db is None:
            return set()
        with file.faults(self.path):
            return {row[0] for row in self._db.execute("SELECT prompt_id FROM answers WHERE model = ?", (model,))}

    def answered(self, keys: Iterable[str], *, errors: bool = True) -> set[str]:
        """Return the keys that have an answer; without `errors`, only those whose newest attempt is no error."""
        if self._db is None:
            return set()
        with file.faults(self.path):
            return answered(self._db, keys, errors)

    def errors(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Return the error of the newest answer to each key that has one; None for an answer that is no error."""
        if self._db is None:
            return {}
        with file.faults(self.path):
            return {key: row[0] for key, row in newest(self._db, keys, "error")}

    def finished_shorter(self, requests: Sequence[Request]) -> set[str]:
        """Return the keys of requests whose answer with a smaller `max_tokens` came to its end: it stands."""
        if self._db is None:
            return set()
        wanted = {file.stored(request.family): request for request in requests}
        found = set()
        with file.faults(self.path):  # one pass: the index by family is made by a run that asks again
            query = "SELECT family, max_tokens FROM answers WHERE finish_reason = 'stop' AND NOT failed"
            for family, max_tokens in self._db.execute(query):
                request = wanted.get(family)
                if request is not None and max_tokens < request.sampling.max_tokens:
                    found.add(request.key)
        return found


def newest(db: sqlite3.Connection, keys: Iterable[str], columns: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield each key that has an answer, with `columns` of its newest attempt.

    The columns `attempt` and `failed` are read from the index alone.
    """
    source = iter(keys)
    while names := {file.stored(key): key for key in itertools.islice(source, KEYS_AT_A_TIME)}:
        marks = ", ".join("?" * len(names))
        query = f"SELECT key, max(attempt), {columns} FROM answers WHERE key IN ({marks}) GROUP BY key"
        for key, _, *row in db.execute(query, [*names]):
            if key not in names:  # a torn page may lead sqlite to another row
                raise file.Damage("a key is found that was not looked for")
            yield names[key], row


def answered(db: sqlite3.Connection, keys: Iterable[str], errors: bool) -> set[str]:
    """Return the keys that have an answer; without `errors`, only those whose newest attempt is no error."""
    return {key for key, (_, failed) in newest(db, keys, "attempt, failed") if errors or not failed}
