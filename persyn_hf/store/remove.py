"""Remove artifacts from the local store, each with what was made from it.

First the tag goes, so that the artifact is gone for every reader; then the files that no other tag needs. A kill in
between leaves files that nobody sees, and the next removal in that repository takes them away.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from persyn_hf.store import install
from persyn_hf.store.disk import disk_faults
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored, repo_folder, tag_order


def dependents(store: Store, removed: Iterable[Stored]) -> list[Stored]:
    """Return the stored artifacts that were made from one of `removed`, directly or by way of others, in any order.

    They name it by its tag: the same content under another tag would not mend their lineage.
    """
    left = {item.ref: item for item in store.artifacts()}
    gone = {item.ref for item in removed}
    for ref in gone:
        left.pop(ref, None)
    found: list[Stored] = []
    while more := [item for item in left.values() if any(made.ref in gone for made in item.manifest.inputs.values())]:
        found += more
        gone |= {item.ref for item in more}
        for item in more:
            del left[item.ref]
    return found


def remove(store: Store, artifacts: Iterable[Stored]) -> int:
    """Remove artifacts, and return the bytes that this has freed.

    Raises:
        StoreError: another run holds the store, or the disk refuses.
    """
    freed = 0
    with store.lock(), disk_faults(store.root):
        for item in artifacts:
            repo = store.root / repo_folder(item.repo, item.kind)
            item.ref_file.unlink(missing_ok=True)
            freed += _sweep(store, repo)
    return freed


def size(stored: Stored) -> int:
    """Return the bytes of an artifact's files."""
    return sum(path.stat().st_size for path in stored.path.rglob("*") if path.is_file())


def _sweep(store: Store, repo: Path) -> int:
    """Delete what no tag of a repository needs, and return its bytes; a repository without tags goes whole."""
    tags = sorted((path for path in (repo / "refs").iterdir() if path.name != "main"), key=lambda p: tag_order(p.name))
    if not tags:
        freed = sum(path.stat().st_size for path in (repo / "blobs").iterdir())
        shutil.rmtree(repo)
        return freed
    commits = {path.read_text(encoding="utf-8") for path in tags}
    main = repo / "refs" / "main"
    if main.exists() and main.read_text(encoding="utf-8") not in commits:
        with install.staging(store.state_dir, repo) as stage:
            install.write_ref(repo, "main", tags[-1].read_text(encoding="utf-8"), stage)
    for snapshot in (repo / "snapshots").iterdir():
        if snapshot.name not in commits:
            shutil.rmtree(snapshot)
    needed = {path.resolve() for path in (repo / "snapshots").rglob("*") if path.is_file()}
    freed = 0
    for blob in (repo / "blobs").iterdir():
        if blob.resolve() not in needed:
            freed += blob.stat().st_size
            blob.unlink()
    return freed
