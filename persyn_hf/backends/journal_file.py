"""The file of the journal: its tables and its format, how it is opened, and the sentences for faults of sqlite.

The format is 2. A key is the first half of a sha256, as bytes: it is as unique, and its index stays small. A row
carries a checksum of its values, because sqlite has none: a torn page is found when it is read, and opening a journal
does not read the whole file. docs/performance.md has the measurements and the reasons for the rest.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persyn_hf.errors import StoreError


FORMAT = 2  # of the file; sqlite's user_version
NOT_WRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # how sqlite says that it cannot make its index
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

# Came later: answers whose tokens nobody has counted, so that `spent` holds none of them.
NOT_COUNTED = 0  # stored as the number of tokens of an answer, or of its prompt
UNCOUNTED = """
CREATE TABLE uncounted (
    recipe TEXT NOT NULL, teacher TEXT NOT NULL, answers INTEGER NOT NULL, PRIMARY KEY (recipe, teacher)
) WITHOUT ROWID;
INSERT INTO uncounted SELECT recipe, teacher, count(*) FROM answers
    WHERE recipe IS NOT NULL AND NOT failed AND (num_tokens = 0 OR num_prompt_tokens = 0) GROUP BY recipe, teacher;
CREATE TRIGGER answers_are_not_counted AFTER INSERT ON answers
    WHEN new.recipe IS NOT NULL AND NOT new.failed AND (new.num_tokens = 0 OR new.num_prompt_tokens = 0) BEGIN
    INSERT INTO uncounted VALUES (new.recipe, new.teacher, 1)
        ON CONFLICT (recipe, teacher) DO UPDATE SET answers = answers + 1;
END;
"""
# Came later still: the tokens of such answers, by a tokenizer here, and their sums.
COUNTS = """
CREATE TABLE counts (
    key BLOB PRIMARY KEY, tokenizer TEXT NOT NULL, recipe TEXT, teacher TEXT,
    num_prompt_tokens INTEGER NOT NULL, num_tokens INTEGER NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE counted (
    recipe TEXT NOT NULL, teacher TEXT NOT NULL,
    answers INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (recipe, teacher)
) WITHOUT ROWID;
CREATE TRIGGER counts_are_added AFTER INSERT ON counts WHEN new.recipe IS NOT NULL BEGIN
    INSERT INTO counted VALUES (new.recipe, new.teacher, 1, new.num_prompt_tokens, new.num_tokens)
        ON CONFLICT (recipe, teacher) DO UPDATE SET answers = answers + 1,
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens;
END;
CREATE TRIGGER counts_are_taken_back AFTER DELETE ON counts WHEN old.recipe IS NOT NULL BEGIN
    UPDATE counted SET answers = answers - 1, prompt_tokens = prompt_tokens - old.num_prompt_tokens,
        completion_tokens = completion_tokens - old.num_tokens WHERE recipe = old.recipe AND teacher = old.teacher;
END;
"""
LATER = {"uncounted": UNCOUNTED, "counted": COUNTS}  # a table of them -> what makes them in an earlier file
UNCOUNTED_OF_SPENT = """
coalesce((SELECT answers FROM uncounted AS u WHERE u.recipe = spent.recipe AND u.teacher = spent.teacher), 0)
"""


class Damage(sqlite3.DatabaseError):
    """A fault of the file: what is read is not what was written."""


def checksum(*values: object) -> int:
    """Compute the CRC-32 of a row's values, in the types that sqlite gives them back in."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def stored(key: str) -> bytes:
    """Convert a key from hexadecimal digits to its stored form, the first 16 bytes; 32 digits are enough."""
    return bytes.fromhex(key[:32])


def open_file(path: Path) -> sqlite3.Connection:
    """Open the file, and make its tables where it is empty; a file that cannot be used is left as it is."""
    if 0 < path.stat().st_size < 512:  # the smallest page: sqlite takes a header cut short for an empty file
        raise Damage("the file is cut short")
    db = sqlite3.connect(path, isolation_level=None)
    try:
        is_new = find_format(db, path) == 0
        db.execute("PRAGMA page_size = 1024")  # of a new file: every answer rewrites a whole page of the index
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 32000")  # pages: to rewrite those of the index less often
        db.execute("PRAGMA cache_size = -16384")  # KiB: the upper pages of the index stay in memory
        if is_new:
            _make_tables(db)
        for table in LATER.keys() - tables(db):
            with transaction(db):
                _execute_all(db, LATER[table])
    except BaseException:
        db.close()
        raise
    return db


def tables(db: sqlite3.Connection) -> set[str]:
    """Return the names of the file's tables; an earlier version made fewer (`LATER`)."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open an existing file for reading only, while a run may be writing it, or where nothing can be written.

    To read, sqlite makes an index beside the file. On a disk that takes none it reads the file alone, which is the
    whole journal unless there is a log beside it, as a killed run leaves it.
    """
    address, log = path.resolve().as_uri(), path.with_name(f"{path.name}-wal")
    db = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorcode & 0xFF not in NOT_WRITABLE or (log.exists() and log.stat().st_size):
            raise
        return sqlite3.connect(f"{address}?immutable=1", uri=True, isolation_level=None)
    except BaseException:
        db.close()
        raise
    return db


def find_format(db: sqlite3.Connection, path: Path) -> int:
    """Find the format of the file: `FORMAT`, or 0 where it is empty. Raises `StoreError` where it is anything else."""
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise StoreError(f"{path} is an sqlite file but no persyn-hf journal; name another journal")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version != FORMAT:
        age = "an older" if version < FORMAT else "a newer"
        raise StoreError(
            f"the journal {path} is of format {version}, written by {age} version of persyn-hf; this version reads "
            f"and writes format {FORMAT}: use the version that wrote it, or name another journal (nothing was changed)"
        )
    return version


def _make_tables(db: sqlite3.Connection) -> None:
    """Make the tables of a new file in one transaction: after a kill they are all there, or none is."""
    with transaction(db):
        _execute_all(db, TABLES)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {FORMAT}")


def add_batch(db: sqlite3.Connection, step: str, batch: int, keys: list[str]) -> None:
    """Add batch number `batch` to the plan of a step; `keys` are whole sha256 digests."""
    packed = b"".join(map(bytes.fromhex, keys))
    db.execute("INSERT INTO plans VALUES (?, ?, ?, ?)", (step, batch, packed, checksum(step, batch, packed)))


def _execute_all(db: sqlite3.Connection, script: str) -> None:
    """Run a script inside the open transaction; sqlite3's `executescript` would commit it first."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction: all of it is written, or nothing."""
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
    """Turn faults of sqlite into a `StoreError` with a sentence for the user."""
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
