"""The file of the journal: its tables and formats, how it is opened, and what is said where sqlite fails.

Format 2. A key is the first half of a sha256, as bytes: as unique, and its index stays small. A row carries a checksum
of its values, because sqlite has none: a torn page is found when it is read, and opening a journal does not read the
whole file. Measured, with the reasons for the rest, in docs/performance.md.
"""

import itertools
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persyn_hf.errors import StoreError


FORMAT = 2  # of the file; sqlite's user_version
APPLICATION = 0x50735931  # "PsY1"; sqlite's application_id

TABLES = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL, attempt INTEGER NOT NULL, failed INTEGER NOT NULL CHECK (failed = (error IS NOT NULL)),
    family BLOB, max_tokens INTEGER, teacher TEXT, recipe TEXT,
    prompt_id TEXT NOT NULL, model TEXT NOT NULL, sample_index INTEGER NOT NULL, request TEXT NOT NULL,
    finish_reason TEXT NOT NULL, num_prompt_tokens INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL, error TEXT, answered_at REAL NOT NULL, text TEXT NOT NULL, reasoning TEXT,
    checksum INTEGER NOT NULL,
    UNIQUE (key, attempt, failed)
);
CREATE TABLE spent (
    recipe TEXT NOT NULL, teacher TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL, truncated INTEGER NOT NULL,
    PRIMARY KEY (recipe, teacher)
) WITHOUT ROWID;
CREATE TABLE spent_errors (
    recipe TEXT NOT NULL, teacher TEXT NOT NULL, reason TEXT NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (recipe, teacher, reason)
) WITHOUT ROWID;
CREATE TABLE planned (step TEXT PRIMARY KEY, batches INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE plans (step TEXT NOT NULL, batch INTEGER NOT NULL, keys BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (step, batch));
CREATE TABLE derived (key BLOB PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER answers_never_change BEFORE UPDATE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers are append-only'); END;
CREATE TRIGGER answers_never_go BEFORE DELETE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers are append-only'); END;
CREATE TRIGGER answers_are_charged AFTER INSERT ON answers WHEN new.recipe IS NOT NULL BEGIN
    INSERT INTO spent VALUES (
        new.recipe, new.teacher, 1,
        CASE WHEN new.failed AND new.num_tokens = 0 THEN 0 ELSE new.num_prompt_tokens END,
        new.num_tokens, new.seconds, new.finish_reason = 'length' AND NOT new.failed
    ) ON CONFLICT (recipe, teacher) DO UPDATE SET
        requests = requests + 1, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens, seconds = seconds + excluded.seconds,
        truncated = truncated + excluded.truncated;
    INSERT INTO spent_errors SELECT new.recipe, new.teacher, substr(new.error, 1, 80), 1 WHERE new.failed
        ON CONFLICT (recipe, teacher, reason) DO UPDATE SET times = times + 1;
END;
"""

# Of a format 1 file: keys were text, plans had a row per key, nothing had a checksum.
SET_ASIDE = """
DROP TRIGGER answers_never_change; DROP TRIGGER answers_never_go;
ALTER TABLE answers RENAME TO answers_1; ALTER TABLE plans RENAME TO plans_1;
ALTER TABLE planned RENAME TO planned_1; ALTER TABLE derived RENAME TO derived_1;
"""
CARRY_OVER = """
INSERT INTO answers SELECT id, stored(key), attempt, error IS NOT NULL, NULL, NULL, NULL, NULL,
    prompt_id, model, sample_index, request, finish_reason, num_prompt_tokens, num_tokens, seconds, error,
    answered_at, text, NULL,
    checksum(stored(key), attempt, text, NULL, finish_reason, num_prompt_tokens, num_tokens, seconds, error)
    FROM answers_1 ORDER BY id;
INSERT INTO planned SELECT step, (SELECT count(*) FROM plans WHERE plans.step = planned_1.step) FROM planned_1;
INSERT INTO derived SELECT stored(key), value, checksum(stored(key), value) FROM derived_1;
DROP TABLE answers_1; DROP TABLE plans_1; DROP TABLE planned_1; DROP TABLE derived_1;
"""


class Damage(sqlite3.DatabaseError):
    """What is read is not what was written."""


def checksum(*values: object) -> int:
    """Of a row's values, as sqlite gives them back."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def stored(key: str) -> bytes:
    """The first 16 bytes of a sha256 in hexadecimal digits; those 16 alone, as digits, do as well."""
    return bytes.fromhex(key[:32])


def open_file(path: Path) -> sqlite3.Connection:
    """Open or found the file, bringing an older format up to date; what cannot be used is left as it is."""
    if 0 < path.stat().st_size < 512:  # the smallest page: sqlite takes a header cut short for an empty file
        raise Damage("the file is cut short")
    db = sqlite3.connect(path, isolation_level=None)
    try:
        found = find_format(db, path)
        db.execute("PRAGMA page_size = 1024")  # of a new file: every answer rewrites a whole page of the index
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 32000")  # pages: to rewrite those of the index less often
        db.execute("PRAGMA cache_size = -16384")  # KiB: the upper pages of the index stay in memory
        if found < FORMAT:
            _bring_up_to_date(db, found)
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open an existing file beside the run that writes it."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def find_format(db: sqlite3.Connection, path: Path) -> int:
    """The format of the file, 0 if it is empty; refuses what is no journal or a newer one."""
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise StoreError(f"{path} is an sqlite file but no persyn-hf journal; name another journal")
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if not 1 <= found <= FORMAT:
        age = "an older" if found < 1 else "a newer"
        raise StoreError(
            f"the journal {path} is of format {found}, written by {age} version of persyn-hf; this version reads and "
            f"writes format {FORMAT}: use the version that wrote it, or name another journal (nothing was changed)"
        )
    return found


def _bring_up_to_date(db: sqlite3.Connection, found: int) -> None:
    """One transaction: after a kill the file is as it was, or done."""
    with transaction(db):
        if found == 1:
            db.create_function("stored", 1, stored, deterministic=True)
            db.create_function("checksum", -1, checksum, deterministic=True)
            _execute_all(db, SET_ASIDE)
        _execute_all(db, TABLES)
        if found == 1:
            rows = db.execute("SELECT step, batch, key FROM plans_1 ORDER BY step, batch, position")
            for (step, batch), members in itertools.groupby(rows, key=lambda row: row[:2]):
                add_batch(db, step, batch, [key for _, _, key in members])
            _execute_all(db, CARRY_OVER)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {FORMAT}")


def add_batch(db: sqlite3.Connection, step: str, batch: int, keys: list[str]) -> None:
    packed = b"".join(map(bytes.fromhex, keys))
    db.execute("INSERT INTO plans VALUES (?, ?, ?, ?)", (step, batch, packed, checksum(step, batch, packed)))


def _execute_all(db: sqlite3.Connection, script: str) -> None:
    """What `executescript` does, which would commit first."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled it back already
            db.execute("ROLLBACK")
        raise


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """sqlite's faults become sentences."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreError(_sentence(path, error)) from None
    except UnicodeDecodeError:  # sqlite's own message quotes what it has found in the file
        raise StoreError(_sentence(path, Damage("its tables cannot be read"))) from None


def create(path: Path) -> None:
    """Make an empty file that only its owner may read."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _sentence(path: Path, error: sqlite3.DatabaseError) -> str:
    reason = str(error)
    if "full" in reason:
        return (
            f"the journal {path} cannot grow: {reason}; free some space and run again "
            "(every answer written so far is kept)"
        )
    if "locked" in reason:
        return f"the journal {path} is in use by another program; wait until it has ended, or stop it"
    damaged = "malformed" in reason or "decode" in reason
    if isinstance(error, sqlite3.OperationalError) and not damaged:
        return f"the journal {path} cannot be read or written: {reason}; look at the disk and run again"
    return (
        f"the journal {path} is damaged ({reason}); it was left as it is: put back a copy of it, or save what is left "
        f"with `sqlite3 {path} .recover | sqlite3 NEW` and put NEW in its place"
    )
