"""The lock of a store: one process writes at a time, and a file next to the lock says which."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from persyn_hf.errors import StoreError
from persyn_hf.store.disk import disk_faults
from persyn_hf.store.manifest import utc_now


_SECRET = re.compile(r"(?i)\b(hf|sk)[_-][A-Za-z0-9_-]{8,}|(?<=token=)\S+|(?<=key=)\S+|(?<=password=)\S+")


class StoreLock:
    """An exclusive lock on a store, re-entrant within one process. The system frees it when its process dies."""

    def __init__(self, root: Path, state_dir: Path) -> None:
        self._root = root
        self._state_dir = state_dir
        self._holder = state_dir / "lock.holder"
        # thread_local=False: a run may store from a worker thread while the main thread holds the lock
        self._lock = FileLock(state_dir / "lock", thread_local=False)

    @contextmanager
    def hold(self, wait: bool) -> Iterator[bool]:
        """Hold the lock; yield True if this call took it, False if this process held it already.

        Args:
            wait: wait until the lock is free, instead of raising.

        Raises:
            StoreError: another process holds it and `wait` is false; or the store cannot be written.
        """
        with disk_faults(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._state_dir.mkdir(mode=0o700, exist_ok=True)
            try:
                self._lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                raise StoreError(
                    f"the store {self._root} is in use by {self._who()}; wait until it ends, or run on another "
                    "store (--store) and share the answers afterwards: persyn journal import OTHER_STORE"
                ) from None
        first = self._lock.lock_counter == 1
        try:
            if first:
                with disk_faults(self._root):
                    self._holder.write_text(json.dumps(_myself()), encoding="utf-8")
            yield first
        finally:
            if first:
                self._holder.unlink(missing_ok=True)
            self._lock.release()

    def _who(self) -> str:
        """Return who holds the lock, for a message: process, command, and since when."""
        try:
            holder = json.loads(self._holder.read_text(encoding="utf-8"))
            return f"process {holder['pid']} (`{holder['command']}`, since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"  # it has the lock but has not written its name yet


def _myself() -> dict[str, object]:
    """Return this process's id, its command without secrets, and the time."""
    command = shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])
    return {"pid": os.getpid(), "command": _SECRET.sub("***", command), "since": utc_now()}
