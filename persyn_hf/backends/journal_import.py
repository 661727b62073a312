"""Copy the answers of another store's journal, so that what was paid for there is not paid for here.

A run holds its store, so two runs at once have a store each. Their answers come together afterwards:

    journal of this store     the other one         after the import
    p1 -> "4"                 p1 -> "four"          p1 -> "4": an answer that is here stays
    p2 -> an error            p2 -> "5"             p2 -> "5", a further attempt
    nothing of p3             p3 -> an error        p3 -> the error
    nothing of p4             p4 -> "7"             p4 -> "7"

What was derived from answers (verdicts, log-probabilities) comes along. The recipes of this store are not charged.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from persyn_hf.backends import journal_file as file
from persyn_hf.backends.journal import ENTRY, SAID, Journal, check_row
from persyn_hf.backends.journal_reading import newest
from persyn_hf.errors import StoreError


AT_A_TIME = 1000  # rows of one transaction
COPIED = ("key", "failed", "family", "max_tokens", "teacher", "prompt_id", "model", "sample_index", "request")


class Imported(NamedTuple):
    """The counts of an import."""

    answers: int  # that are new here
    known: int  # that were here
    derived: int  # values derived from answers that are new here


def import_journal(journal: Journal, source: Path) -> Imported:
    """Copy what the journal at `source` holds and `journal` lacks; a run may be writing `source` meanwhile.

    An import that was cut short goes on where it was when it is made again.

    Raises:
        StoreError: there is no journal at `source`, it is this one, or one of the two is damaged.
    """
    if not source.is_file():
        raise StoreError(f"there is no journal at {source}; name another store, or its .persyn/journal.sqlite")
    if source.resolve() == journal.path.resolve():
        raise StoreError(f"{source} is the journal of this store itself; name another one")
    answers = known = derived = 0
    with file.faults(source), closing(file.open_to_read(source)) as other:
        if not file.find_format(other, source):
            return Imported(0, 0, 0)
        columns = [*COPIED, *ENTRY, "answered_at", "checksum"]
        rows = other.execute(
            f"SELECT {', '.join(columns)} FROM answers AS a WHERE attempt = "
            "(SELECT max(attempt) FROM answers AS b WHERE b.key = a.key) ORDER BY id"
        )
        while some := rows.fetchmany(AT_A_TIME):
            found = [dict(zip(columns, row, strict=True)) for row in some]
            for row in found:
                values = [row["key"], *(row[name] for name in ENTRY)]
                check_row(values, row["checksum"], f"answer {row['key'].hex()}")
            new = _write(journal, found)
            answers, known = answers + new, known + len(found) - new
        values_of = other.execute("SELECT key, value, checksum FROM derived")
        while more := values_of.fetchmany(AT_A_TIME):
            for key, value, checksum in more:
                check_row((key, value), checksum, f"derived value {key.hex()}")
            here = journal.recall(key.hex() for key, *_ in more)
            fresh = {key.hex(): json.loads(value) for key, value, _ in more if key.hex() not in here}
            journal.keep(fresh)
            derived += len(fresh)
    return Imported(answers, known, derived)


def _write(journal: Journal, rows: list[dict[str, Any]]) -> int:
    """Write the rows that are new in one transaction, and return their number."""
    written = 0
    with journal.transaction() as db:
        latest = dict(newest(db, (row["key"].hex() for row in rows), "attempt, failed"))
        for row in rows:
            attempt, failed = latest.get(row["key"].hex(), (-1, True))
            if attempt < 0 or (failed and not row["failed"]):
                said = {name: row[name] for name in SAID}
                copied = {name: row[name] for name in (*COPIED, "answered_at")}
                values = copied | said | {"attempt": attempt + 1, "recipe": None}
                values["checksum"] = file.checksum(row["key"], attempt + 1, *said.values())
                marks = ", ".join("?" * len(values))
                db.execute(f"INSERT INTO answers ({', '.join(values)}) VALUES ({marks})", [*values.values()])
                written += 1
    return written
