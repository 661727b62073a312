"""Pull artifacts from the Hub into the store, as if it had made them: same digest, same commit, same names.

`pull(store, "alice/student@v1", lineage=True)` goes by a queue that begins with that reference:

- The tag `v1` names a commit of the Hub, and the manifest in it names every file with its digest.
- The files go into `.persyn/pull/COMMIT`. The folder is named by the commit, so a download that was cut off goes on
  where it ended, and never mixes two versions.
- `Store.adopt` checks every file against the manifest, moves it into place and names the commit of the store by the
  tag. The card is not fetched: the store writes it anew from the manifest.
- The inputs in the manifest join the queue, each with the digest that was read when the student was made. What the
  store holds under that name with that digest is kept. Other content under the name is refused, here and on the Hub,
  because the student was not made from it.
"""

import glob
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.hub.faults import patiently, telling
from persyn_hf.store.hub.login import check_reachable
from persyn_hf.store.hub.remote import Remote, find
from persyn_hf.store.install import ALLOWED
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import CARD, Manifest
from persyn_hf.store.stored import Stored, repo_folder, split_ref
from persyn_hf.text import one_line


if TYPE_CHECKING:
    from huggingface_hub import HfApi


def pull(
    store: Store,
    ref: str,
    *,
    lineage: bool = False,
    api: "HfApi",
    note: Callable[[str], None] = lambda text: None,
) -> list[Stored]:
    """Bring the artifact "NAMESPACE/NAME@TAG" into the store and check every file; without a tag the newest version.

    A download that was cut off is taken up where it ended. What is damaged in the store is replaced.

    Args:
        lineage: bring everything that it was made from, too, back to the prompts.
        note: called with a sentence on each artifact.

    Returns:
        The artifact, then its ancestors if asked for, those included that were there already.

    Raises:
        StoreError: no such artifact, no access, or a tag of the store holds other content.
        DamagedArtifact: a file is not what its manifest says.
    """
    pulled: dict[str, Stored] = {}
    waiting: list[tuple[str, str | None]] = [(ref, None)]
    with telling(ref, f"pulling {ref}"):
        check_reachable(api.endpoint)
    with store.lock():
        while waiting:
            name, digest = waiting.pop(0)
            if name in pulled:
                continue
            stored = None if digest is None else _in_store(store, name, digest)
            if stored is None:
                stored = _pull_one(store, name, digest, api, note)
            else:
                note(f"{name} is in the store")
            pulled[name] = stored
            if lineage:
                waiting += [(item.ref, item.digest) for item in stored.manifest.inputs.values()]
    return list(pulled.values())


def _in_store(store: Store, ref: str, digest: str) -> Stored | None:
    """Return what a tag names in the store; None where the tag is not there or what it names is damaged.

    Raises:
        StoreError: the tag holds other content, which cannot give way.
    """
    if not store.has(ref):
        return None
    try:
        stored = store.get(ref)
        stored.check()
    except DamagedArtifact:
        return None  # fetched anew; a tag that names no commit is refused then
    if stored.digest != digest:
        raise StoreError(
            f"{ref} holds other content in the store {store.root}, digest {stored.digest[:40]}, than on the Hub, "
            f"{digest[:40]}; tags never change: pull it into another store with --store or PERSYN_STORE"
        )
    return stored


def _pull_one(store: Store, ref: str, digest: str | None, api: "HfApi", note: Callable[[str], None]) -> Stored:
    """Fetch one artifact, unless the store holds it whole, and return it.

    Args:
        digest: the content that is needed; None: whatever the tag names on the Hub.
    """
    repo_folder(split_ref(ref)[0], "prompts")  # refuses what cannot be a name in a store
    with telling(ref, f"pulling {ref}"):
        remote, tag, manifest = patiently(lambda: find(api, ref))
        name = f"{remote.repo}@{tag}"
        if digest not in (None, manifest.digest):
            raise StoreError(
                f"{ref} on the Hub has digest {manifest.digest[:40]}, needed is {(digest or '')[:40]}, which the "
                "artifact asked for was made from; ask its owner to push it with --lineage"
            )
        here = _in_store(store, name, manifest.digest)
        if here is not None:
            note(f"{name} is in the store")
            return here
        folder = store.state_dir / "pull" / remote.tags[tag]
        patiently(lambda: _download(remote, tag, manifest, folder))
    try:
        stored = store.adopt(manifest.model_copy(update={"repo": remote.repo}), folder, tag)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what is damaged is fetched anew
    note(f"pulled {name}, digest {stored.digest[:12]}")
    return stored


def _download(remote: Remote, tag: str, manifest: Manifest, folder: Path) -> None:
    """Fetch the files that a manifest names into a folder; what is there already is not fetched again."""
    names = [name for name in manifest.files if name != CARD]
    for name in names:
        if Path(name).suffix.lower() not in ALLOWED:
            raise StoreError(
                f"{remote.repo}@{tag} on the Hub holds {one_line(name)}, of a kind that no artifact may hold, because "
                "loading it could run any code; ask its owner for data as parquet and weights as safetensors"
            )
    folder.mkdir(parents=True, exist_ok=True)
    remote.api.snapshot_download(
        remote.repo,
        repo_type=remote.repo_type,
        revision=remote.tags[tag],
        local_dir=folder,
        allow_patterns=[glob.escape(name) for name in names],
    )
