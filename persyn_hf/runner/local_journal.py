"""Keep the journal on a disk of this machine for a run, where the store's disk is not one for sqlite (NFS, Lustre).

    at the start          the store's copy comes here
    every ten minutes     a copy goes to the store, whole or not at all
    at the end            the same, and what is here goes
    after a kill          what is here goes on, where the store's copy is the one that was last written from here;
                          else its answers are added to the store's copy

Only the journal is here. What lies beside a journal (logs, unfinished batches, notes of batches) stays in the store.
"""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from persyn_hf.backends.engines.batch.notes import FOLDER
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.journal_import import import_journal
from persyn_hf.errors import StoreError, reason
from persyn_hf.store.disk import out_faults
from persyn_hf.store.local import Store


EVERY_S = 600.0  # between two copies; what a lost disk costs
SHARE = 20  # a copy takes at most one in so many seconds
NAME, LEFT = "journal.sqlite", "left.sqlite"
COPIED_TO = "copied.json"  # size and time of the store's copy, as it was written from here
BESIDE = ("logs", "unfinished", FOLDER)
PARTS = ("", "-wal", "-shm")  # of sqlite's files


@contextmanager
def keep_here(store: Store, disk: Path | None) -> Iterator[None]:
    """Have `store.journal` on `disk` within the block, which holds the store's lock; None: leave both as they are.

    Raises:
        StoreError: the disk cannot be written, or the copy at the end cannot be made: it says where the journal lies.
    """
    if disk is None:
        yield
        return
    with store.lock(), _kept_on(store, disk):
        yield


@contextmanager
def _kept_on(store: Store, disk: Path) -> Iterator[None]:
    home = store.journal
    place = disk / f"persyn-{os.getuid()}-{hashlib.sha256(str(store.root).encode()).hexdigest()[:12]}"
    with out_faults(disk, "--journal"):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.stat().st_uid != os.getuid():
        raise StoreError(f"the folder {place} belongs to another user; name another disk for the journal")
    _fetch(home, place)
    for name in BESIDE:
        (home.parent / name).mkdir(mode=0o700, exist_ok=True)
        if not (place / name).is_symlink():
            (place / name).symlink_to(home.parent / name)
    store.journal = place / NAME
    ended = threading.Event()
    copying = threading.Thread(target=_copy_now_and_then, args=[place, home, ended], daemon=True)
    copying.start()
    try:
        yield
    finally:
        ended.set()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # clusters send it more than once
        copying.join()
        try:
            _copy_home(place, home)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the journal could not be copied to {home} ({reason(error)}); it is kept in {place}: make room, and "
                "run again on this machine, or add it with: persyn journal import " + str(place / NAME)
            ) from None
        finally:
            store.journal = home
        shutil.rmtree(place)


def _fetch(home: Path, place: Path) -> None:
    """Bring the store's copy here, with what a killed run left here added."""
    here = place / NAME
    if here.exists() and _copied_to(place) == _state(home):
        return
    for part in PARTS:
        if here.with_name(NAME + part).exists():
            os.replace(place / (NAME + part), place / (LEFT + part))
    with out_faults(place.parent, "--journal"):
        for part in PARTS[:2]:
            if home.with_name(NAME + part).exists():
                shutil.copyfile(home.with_name(NAME + part), place / (NAME + part))
    _note(place, home)
    if (place / f"{NAME}-wal").exists():  # a run in the store was killed: what its log holds comes into the file
        with Journal(here):
            pass
        _copy_home(place, home)
    if (place / LEFT).exists():
        with Journal(here) as journal:
            import_journal(journal, place / LEFT)
        for part in PARTS:
            (place / (LEFT + part)).unlink(missing_ok=True)


def _copy_now_and_then(place: Path, home: Path, ended: threading.Event) -> None:
    wait = EVERY_S
    while not ended.wait(wait):
        began = time.monotonic()
        try:
            _copy_home(place, home)
        except (OSError, sqlite3.Error):  # the next one may do; the last one tells
            continue
        wait = max(EVERY_S, SHARE * (time.monotonic() - began))


def _copy_home(place: Path, home: Path) -> None:
    """Copy the journal, which may be written meanwhile, to the store, whole or not at all."""
    if not (place / NAME).exists():
        return
    copy, arriving = place / "copy.sqlite", home.with_name(f"{NAME}.arriving")
    with closing(sqlite3.connect(place / NAME)) as here, closing(sqlite3.connect(copy)) as there:
        here.backup(there)
    shutil.copyfile(copy, arriving)
    os.chmod(arriving, 0o600)
    with arriving.open("rb+") as file:
        os.fsync(file.fileno())
    for part in PARTS[1:]:  # of a run in the store that was killed; beside another file sqlite would apply it
        home.with_name(NAME + part).unlink(missing_ok=True)
    os.replace(arriving, home)
    for part in PARTS:
        (place / f"copy.sqlite{part}").unlink(missing_ok=True)
    _note(place, home)


def _note(place: Path, home: Path) -> None:
    part = place / f"{COPIED_TO}.part"
    part.write_text(json.dumps(_state(home)), encoding="utf-8")
    os.replace(part, place / COPIED_TO)


def _copied_to(place: Path) -> list[int] | None:
    try:
        found: list[int] | None = json.loads((place / COPIED_TO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [-1]
    return found


def _state(home: Path) -> list[int] | None:
    try:
        found = home.stat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns]
