"""The journal: one sqlite file that keeps every answer paid for, raw, before anything parses it.

Answers are append-only: triggers refuse any change. A batch is one transaction, so after a kill it is there whole or
not at all. With `synchronous=FULL` a power cut loses no answer either. That costs one fsync per batch, measured in
docs/performance.md, where a batch takes seconds of a GPU.

An answer is found by the key of its request, and an error that is asked again becomes a further attempt. An example,
with one request of key k and `max_tokens` 1024:

    write an error                           attempt 0; `read` returns it
    write "4"                                nothing is written: k has an answer, and an error is one
    write "4" with supersede_errors          attempt 1; `read` returns "4" from now on
    write "5" with supersede_errors          nothing is written: only an error is superseded
    `spent` of the recipe                    2 requests, one of them failed: each attempt was paid for
    `max_tokens` is raised to 2048           another key without an answer; `finished_shorter` leads from it to k,
                                             because "4" came to its end before the smaller bound

The same file keeps what was derived from answers at some cost (verdicts of the grader, a student's log-probabilities),
so that none of it is computed twice.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from persyn_hf.backends import journal_file as file
from persyn_hf.backends.answers import Answer, Batch, Entry, Request, Said, well_formed
from persyn_hf.backends.journal_reading import answered, newest
from persyn_hf.backends.journal_spent import Count, Spent, counts_of, put_counts, spent_of
from persyn_hf.errors import StoreError


SAID = tuple(column.name for column in fields(Said))
ENTRY = ("attempt", *SAID)  # in the order of the checksum
# An answer that is no error is never superseded, so it is the newest attempt of its key.
FINISHED_SHORTER = """
SELECT key FROM answers WHERE family = ? AND max_tokens < ? AND finish_reason = 'stop' AND NOT failed
ORDER BY max_tokens DESC LIMIT 1
"""


class Journal:
    """An open journal; `recipe` pays for what is written. One process at a time: a second one gets a `StoreError`."""

    def __init__(self, path: Path, *, recipe: str = "") -> None:
        self.path = Path(path)
        self.recipe = recipe
        self._lock = FileLock(f"{self.path}.lock", mode=0o600)
        try:
            file.create(self.path)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"the journal {self.path} is in use by another run; wait until that run has ended, or stop it"
            ) from None
        except OSError as error:
            self._lock.release()
            reason = error.strerror
            raise StoreError(f"the journal {self.path} cannot be written ({reason}); make it writable") from None
        try:
            with file.faults(self.path):
                self._db = file.open_file(self.path)
        except StoreError:
            self._lock.release()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and let other processes have it."""
        try:
            self._db.close()
        finally:
            self._lock.release()

    def read(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Return the newest attempt of each key that has an answer (errors are answers too)."""
        entries = {}
        with file.faults(self.path):
            for key, row in newest(self._db, keys, f"key, {', '.join(ENTRY)}, checksum"):
                *values, checksum = row
                check_row(values, checksum, f"answer {key}")
                entries[key] = _entry(dict(zip(ENTRY, values[1:], strict=True)))
        return entries

    def answered(self, keys: Iterable[str], *, errors: bool = True) -> set[str]:
        """Return the keys that have an answer; without `errors`, only those whose newest attempt is no error."""
        with file.faults(self.path):
            return answered(self._db, keys, errors)

    def finished_shorter(self, requests: Sequence[Request], *, errors: bool = True) -> dict[str, str]:
        """Find answers that need not be asked for again only because `max_tokens` was raised.

        The mapping leads from the key of a request without an answer to the key (as `read` takes it) of an answer to
        the same request with a smaller `max_tokens`: the largest of those that came to their end. Without `errors`, a
        request whose newest attempt is an error has no answer.
        """
        known = self.answered((request.key for request in requests), errors=errors)
        shorter = {}
        with self.transaction():
            # Made where it is first needed: to keep it costs every later write, and few runs are reruns.
            self._db.execute("CREATE INDEX IF NOT EXISTS answers_by_family ON answers (family, max_tokens)")
            for request in requests:
                if request.key not in known:
                    wanted = (file.stored(request.family), request.sampling.max_tokens)
                    row = self._db.execute(FINISHED_SHORTER, wanted).fetchone()
                    if row is not None:
                        shorter[request.key] = row[0].hex()
        return shorter

    def write(self, answers: Sequence[Answer], *, teacher: str, supersede_errors: bool = False) -> int:
        """Store a batch in one transaction, and return the number of answers that were new.

        A key that has an answer keeps it. Only with `supersede_errors` does a newest attempt that is an error get a
        further attempt.
        """
        written = 0
        with self.transaction():
            latest = dict(newest(self._db, (answer.request.key for answer in answers), "attempt, failed"))
            for answer in answers:
                attempt, failed = latest.get(answer.request.key, (-1, True))
                if attempt < 0 or (supersede_errors and failed):
                    self._insert(answer, teacher, attempt + 1)
                    latest[answer.request.key] = (attempt + 1, answer.error is not None)
                    written += 1
        return written

    def put_counts(self, counts: Mapping[str, Count], tokenizer: str) -> None:
        """Note the tokens of answers that their servers did not count, by key; a later count takes their place."""
        with self.transaction():
            put_counts(self._db, counts, tokenizer)

    def counts(self, keys: Iterable[str], tokenizer: str) -> dict[str, Count]:
        """Return what `put_counts` has noted of this tokenizer."""
        with file.faults(self.path):
            return counts_of(self._db, keys, tokenizer)

    def spent(self, recipe: str) -> dict[str, Spent]:
        """Return what `recipe` has paid for so far, by teacher."""
        with file.faults(self.path):
            return spent_of(self._db, recipe)

    def plan(self, step: str, make: Callable[[], Iterable[Batch]]) -> Iterator[list[str]]:
        """Return a step's batches as lists of keys: those of `make` at its first start, the stored ones afterwards."""
        with file.faults(self.path):
            planned = self._db.execute("SELECT batches FROM planned WHERE step = ?", (step,)).fetchone()
        if planned is None:
            with self.transaction():
                number = 0
                for number, batch in enumerate(make(), start=1):
                    file.add_batch(self._db, step, number - 1, [request.key for request in batch])
                self._db.execute("INSERT INTO planned VALUES (?, ?)", (step, number))
            planned = (number,)
        with file.faults(self.path):
            found = self._db.execute("SELECT count(*) FROM plans WHERE step = ?", (step,)).fetchone()
            if planned != found:
                raise file.Damage(f"{planned[0]} batches were planned and {found[0]} are found")
        return self._batches(step, planned[0])

    def _batches(self, step: str, number: int) -> Iterator[list[str]]:
        """Yield the batches of a plan, each by a query of its own: one that stays open would keep the log growing."""
        for batch in range(number):
            with file.faults(self.path):
                query = "SELECT step, batch, keys, checksum FROM plans WHERE step = ? AND batch = ?"
                row = self._db.execute(query, (step, batch)).fetchone()
                if row is None:
                    raise file.Damage(f"batch {batch} of a plan is not found")
                *values, checksum = row
                check_row(values, checksum, f"plan of batch {values[1]}")
            keys = row[2]
            yield [keys[at : at + 32].hex() for at in range(0, len(keys), 32)]

    def drop_plan(self, step: str) -> None:
        """Forget the plan of a step that has ended."""
        with self.transaction():
            self._db.execute("DELETE FROM plans WHERE step = ?", (step,))
            self._db.execute("DELETE FROM planned WHERE step = ?", (step,))

    def recall(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the derived values (plain JSON) of the keys that have one."""
        derived = {}
        with file.faults(self.path):
            for key in keys:
                query = "SELECT value, checksum FROM derived WHERE key = ?"
                row = self._db.execute(query, (file.stored(key),)).fetchone()
                if row is not None:
                    check_row((file.stored(key), row[0]), row[1], f"derived value {key}")
                    derived[key] = json.loads(row[0])
        return derived

    def keep(self, values: Mapping[str, Any]) -> None:
        """Store derived values (plain JSON) in one transaction; a key that has a value keeps it."""
        rows = [(file.stored(key), json.dumps(value)) for key, value in values.items()]
        with self.transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO derived VALUES (?, ?, ?)", ((*row, file.checksum(*row)) for row in rows)
            )

    def _insert(self, answer: Answer, teacher: str, attempt: int) -> None:
        request = answer.request
        said = {name: _storable(getattr(answer, name)) for name in SAID}
        said["seconds"] = float(answer.seconds)
        said["num_prompt_tokens"] = answer.num_prompt_tokens or request.prompt.num_tokens
        said["num_tokens"] = answer.num_tokens or file.NOT_COUNTED
        row = {
            "key": file.stored(request.key),
            "attempt": attempt,
            "failed": answer.error is not None,
            "family": file.stored(request.family),
            "max_tokens": request.sampling.max_tokens,
            "teacher": teacher,
            "recipe": self.recipe,
            "prompt_id": request.prompt_id,
            "model": request.model,
            "sample_index": request.sample_index,
            "request": request.digest,
            "answered_at": time.time(),
            **said,
        }
        row["checksum"] = file.checksum(row["key"], attempt, *said.values())
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT INTO answers ({', '.join(row)}) VALUES ({marks})", [*row.values()])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the open file; what is written within is there whole, or not at all."""
        with file.faults(self.path), file.transaction(self._db):
            yield self._db


def read_spent(path: Path, recipe: str) -> dict[str, Spent]:
    """Return what `recipe` has paid for so far, by teacher; a run may be writing meanwhile, and nothing is changed."""
    path = Path(path)
    if not path.exists():
        return {}
    with file.faults(path), closing(file.open_to_read(path)) as db:
        return spent_of(db, recipe) if file.find_format(db, path) else {}


def _entry(row: dict[str, Any]) -> Entry:
    """Make an entry of a row. An answer has at least one token, and so has its prompt: 0 says that nobody counted."""
    if row["error"] is None:
        for name in ("num_prompt_tokens", "num_tokens"):
            row[name] = None if row[name] == file.NOT_COUNTED else row[name]
    return Entry(**row)


def _storable(value: Any) -> Any:
    return well_formed(value) if isinstance(value, str) else value


def check_row(values: Sequence[object], checksum: int, what: str) -> None:
    """Raise `Damage` where a row is not what was written, by its checksum."""
    if file.checksum(*values) != checksum:
        raise file.Damage(f"the {what} is not what was written")
