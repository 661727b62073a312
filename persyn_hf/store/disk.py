"""Files that are whole or absent: digests, atomic writes, and disk faults as one sentence."""

import errno
import hashlib
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from persyn_hf.errors import StoreError


_ADVICE = {
    errno.ENOSPC: "free some space there, or name another store with --store or PERSYN_STORE, then run again",
    errno.EDQUOT: "free some of the quota, or name another store with --store or PERSYN_STORE, then run again",
    errno.EEXIST: "a file stands where a folder is needed; move it away, or name another store with --store",
    errno.ENOTDIR: "a file stands where a folder is needed; move it away, or name another store with --store",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`), then run again",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = "make that folder writable, or name another store with --store or PERSYN_STORE"


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy_synced(source: Path, target: Path) -> str:
    """Copy a file to a new path, flushed to the disk, and return the sha256 of what was copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "xb") as writer:
        while block := reader.read(2**20):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file, flushed to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk: without it a rename may be lost when the power fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_atomically(target: Path, text: str, staging: Path) -> None:
    """Make `target` hold a text; a reader sees the old file or the new one, never a part.

    Args:
        staging: a folder on the same disk, where the new file is written first.
    """
    staged = staging / f"replace-{target.name}"
    staged.unlink(missing_ok=True)
    write_synced(staged, text.encode("utf-8"))
    os.replace(staged, target)
    sync_folder(target.parent)


@contextmanager
def disk_faults(root: Path, only: Container[int] | None = None) -> Iterator[None]:
    """Turn an `OSError` within into a `StoreError` that says what is wrong with the disk and what to do.

    Args:
        root: the store, for the message.
        only: turn errors with these `errno` alone; others may come from something else than the store. None: all.
    """
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        reason = (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
        advice = _ADVICE.get(error.errno or 0, _NOT_WRITABLE)
        raise StoreError(
            f"the store {root} cannot be written ({reason}); nothing was stored of this artifact: {advice}"
        ) from None


@contextmanager
def out_faults(folder: Path, option: str = "--out") -> Iterator[None]:
    """Turn an `OSError` within into a `StoreError` about a folder that the user has named with an option."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the folder {folder} cannot be written ({error.strerror or error}); make room or name another with "
            f"{option}"
        ) from None
