"""The journal: one sqlite file that keeps every answer paid for, raw, before anything parses it.

Answers are append-only: triggers refuse any change, a repeated error is a new attempt beside the old one. A batch is
one transaction, so after a kill it is there whole or not at all. `synchronous=FULL` because a batch takes seconds of a
GPU and one fsync takes milliseconds: a power cut loses no answer either. The same file keeps what was derived from
answers at some cost (verdicts of the grader, a student's log-probabilities), so that none of it is computed twice.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from persyn_hf.backends.engines import Answer, Batch
from persyn_hf.errors import StoreError


FORMAT = 1  # of the file; sqlite's user_version
APPLICATION = 0x50735931  # "PsY1"; sqlite's application_id

TABLES = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL, attempt INTEGER NOT NULL,
    prompt_id TEXT NOT NULL, model TEXT NOT NULL, sample_index INTEGER NOT NULL, request TEXT NOT NULL,
    text TEXT NOT NULL, finish_reason TEXT NOT NULL, num_prompt_tokens INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL, error TEXT, answered_at REAL NOT NULL,
    UNIQUE (key, attempt)
);
CREATE TRIGGER answers_never_change BEFORE UPDATE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers are append-only'); END;
CREATE TRIGGER answers_never_go BEFORE DELETE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers are append-only'); END;
CREATE TABLE plans (step TEXT NOT NULL, batch INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (step, batch, position)) WITHOUT ROWID;
CREATE TABLE planned (step TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE derived (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
NEWEST = """
SELECT key, text, finish_reason, num_prompt_tokens, num_tokens, seconds, error, max(attempt) AS attempt FROM answers
WHERE key IN (SELECT key FROM wanted) GROUP BY key
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One journalled answer. Where `error` is set there is no text."""

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int
    seconds: float
    error: str | None
    attempt: int


class Journal:
    """An open journal. One process at a time: a second one gets a `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(f"{self.path}.lock", mode=0o600)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except Timeout:
            raise StoreError(
                f"the journal {self.path} is in use by another run; wait until that run has ended, or stop it"
            ) from None
        except OSError as error:
            self._lock.release()
            reason = error.strerror
            raise StoreError(f"the journal {self.path} cannot be written ({reason}); make it writable") from None
        try:
            with self._guard():
                self._db = _open(self.path)
        except StoreError:
            self._lock.release()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._db.close()
        finally:
            self._lock.release()

    def read(self, keys: Iterable[str]) -> dict[str, Entry]:
        """The newest attempt of each key that has been answered (errors are answers too)."""
        with self._transaction():
            self._want(keys)
            rows = self._db.execute(NEWEST).fetchall()
        names = ("text", "finish_reason", "num_prompt_tokens", "num_tokens", "seconds", "error", "attempt")
        return {row[0]: Entry(**dict(zip(names, row[1:], strict=True))) for row in rows}

    def answered(self, keys: Iterable[str], *, errors: bool = True) -> set[str]:
        """Those of `keys` that have an answer; without `errors`, those whose newest attempt is no error."""
        with self._transaction():
            self._want(keys)
            rows = self._db.execute(
                "SELECT key, error, max(attempt) FROM answers WHERE key IN (SELECT key FROM wanted) GROUP BY key"
            ).fetchall()
        return {key for key, error, _ in rows if errors or error is None}

    def write(self, answers: Sequence[Answer], *, supersede_errors: bool = False) -> int:
        """Store a batch in one transaction and return how many answers were new.

        A key that has an answer keeps it. Only with `supersede_errors` does a newest attempt that is an error get a
        further attempt beside it.
        """
        written = 0
        with self._transaction():
            for answer in answers:
                found = self._db.execute(
                    "SELECT attempt, error FROM answers WHERE key = ? ORDER BY attempt DESC LIMIT 1",
                    (answer.request.key,),
                ).fetchone()
                if found is not None and not (supersede_errors and found[1] is not None):
                    continue
                self._insert(answer, attempt=0 if found is None else found[0] + 1)
                written += 1
        return written

    def plan(self, step: str, make: Callable[[], list[Batch]]) -> list[list[str]]:
        """Fix the batches of a step at its first start; a resumed step gets the stored ones, as lists of keys."""
        with self._guard():
            known = self._db.execute("SELECT 1 FROM planned WHERE step = ?", (step,)).fetchone()
        if known is None:
            batches = [[request.key for request in batch] for batch in make()]
            rows = [(step, b, p, key) for b, batch in enumerate(batches) for p, key in enumerate(batch)]
            with self._transaction():
                self._db.execute("INSERT INTO planned VALUES (?)", (step,))
                self._db.executemany("INSERT INTO plans VALUES (?, ?, ?, ?)", rows)
            return batches
        with self._guard():
            rows = self._db.execute(
                "SELECT step, batch, position, key FROM plans WHERE step = ? ORDER BY batch, position", (step,)
            ).fetchall()
        stored: dict[int, list[str]] = {}
        for _, batch, _, key in rows:
            stored.setdefault(batch, []).append(key)
        return list(stored.values())

    def drop_plan(self, step: str) -> None:
        """Forget the plan of a step that has ended."""
        with self._transaction():
            self._db.execute("DELETE FROM plans WHERE step = ?", (step,))
            self._db.execute("DELETE FROM planned WHERE step = ?", (step,))

    def recall(self, keys: Iterable[str]) -> dict[str, Any]:
        """Derived values (plain JSON) that are known."""
        with self._transaction():
            self._want(keys)
            rows = self._db.execute("SELECT key, value FROM derived JOIN wanted USING (key)").fetchall()
        return {key: json.loads(value) for key, value in rows}

    def keep(self, values: Mapping[str, Any]) -> None:
        """Store derived values in one transaction; a known key keeps its value."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO derived VALUES (?, ?)", rows)

    def _insert(self, answer: Answer, attempt: int) -> None:
        request = answer.request
        columns = (request.key, attempt, request.prompt_id, request.model, request.sample_index, request.digest)
        result = (answer.text, answer.finish_reason, request.prompt.num_tokens, answer.num_tokens, answer.seconds)
        self._db.execute(
            f"INSERT INTO answers VALUES (NULL{', ?' * 13})", (*columns, *result, answer.error, time.time())
        )

    def _want(self, keys: Iterable[str]) -> None:
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (key TEXT PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("DELETE FROM wanted")
        self._db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((key,) for key in keys))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; sqlite's faults become sentences."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(_sentence(self.path, error)) from None


def _open(path: Path) -> sqlite3.Connection:
    """Open or found the file; one that is no journal, of another format, or damaged is left as it is."""
    if 0 < path.stat().st_size < 512:  # the smallest page: sqlite takes a header cut short for an empty file
        raise sqlite3.DatabaseError("the file is cut short")
    db = sqlite3.connect(path, isolation_level=None)
    try:
        founded = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] > 0
        if founded:
            _check(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA temp_store = MEMORY")
        if not founded:
            db.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};"
                f" {TABLES} COMMIT;"
            )
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise StoreError(f"{path} is an sqlite file but no persyn-hf journal; name another journal")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        age = "an older" if found < FORMAT else "a newer"
        raise StoreError(
            f"the journal {path} is of format {found}, written by {age} version of persyn-hf; this version reads and "
            f"writes format {FORMAT}: use the version that wrote it, or name another journal (nothing was changed)"
        )
    fault = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise sqlite3.DatabaseError(" ".join(str(fault).split()))


def _sentence(path: Path, error: sqlite3.DatabaseError) -> str:
    reason = str(error)
    if "full" in reason:
        return (
            f"the journal {path} cannot grow: {reason}; free some space and run again "
            "(every answer written so far is kept)"
        )
    if "locked" in reason:
        return f"the journal {path} is in use by another program; wait until it has ended, or stop it"
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in reason:
        return f"the journal {path} cannot be read or written: {reason}; look at the disk and run again"
    return (
        f"the journal {path} is damaged ({reason}); it was left as it is: put back a copy of it, or save what is left "
        f"with `sqlite3 {path} .recover | sqlite3 NEW` and put NEW in its place"
    )
