"""Reading from the Hub without a store: artifacts are fetched into the ordinary Hugging Face cache."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.hub.faults import patiently, telling
from persyn_hf.store.hub.login import check_reachable
from persyn_hf.store.hub.remote import REPO_TYPES, no_artifact, no_such_tag
from persyn_hf.store.manifest import MANIFEST, read_manifest
from persyn_hf.store.stored import Stored, meant, split_ref


if TYPE_CHECKING:
    from persyn_hf.store.local import Store


def download(ref: str, store: "Store", kind: str | None = None) -> Stored:
    """Download the dataset or model repository "NAMESPACE/NAME@TAG" with all its files, which are not checked.

    Args:
        store: the store that was looked at first, and `kind`: what is needed, for the message.

    Raises:
        StoreError: no such repository or tag, no access, no network, or no artifact of persyn.
    """
    from huggingface_hub import snapshot_download

    return _read(ref, store, kind, lambda repo, **how: Path(snapshot_download(repo, **how)), whole=True)


def download_manifest(ref: str, store: "Store", kind: str | None = None) -> Stored:
    """Download only the manifest of the repository "NAMESPACE/NAME@TAG"; the files of the artifact are not there then.

    Args:
        store: the store that was looked at first, and `kind`: what is needed, for the message.

    Raises:
        StoreError: no such repository or tag, no access, no network, or no artifact of persyn.
    """
    from huggingface_hub import hf_hub_download

    return _read(ref, store, kind, lambda repo, **how: Path(hf_hub_download(repo, MANIFEST, **how)).parent)


@contextmanager
def not_here(ref: str, store: "Store", kind: str | None = None) -> Iterator[None]:
    """Turn a `StoreError` within into one that says first that the store lacks the artifact, and what is like it."""
    try:
        yield
    except DamagedArtifact:
        raise
    except StoreError as error:
        hint = meant(ref, store.artifacts(), kind)
        raise StoreError(f"{ref} is not in the store {store.root}{hint}; {error}") from None


def _read(ref: str, store: "Store", kind: str | None, fetch: Callable[..., Path], whole: bool = False) -> Stored:
    """Fetch an artifact from the repository type that has it, or return what was fetched before where the Hub is away.

    Args:
        fetch: downloads from a repository and returns the folder; it takes `repo_type`, `revision`,
            `local_files_only`.
        whole: whether every file must be in the folder; else the manifest is enough.
    """
    from huggingface_hub import constants, list_repo_refs
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, tag = split_ref(ref)
    absent: dict[str, Exception] = {}
    with not_here(ref, store, kind), telling(ref, f"reading {ref}"):
        away = _why_away(constants.ENDPOINT)
        for repo_type in REPO_TYPES:
            how = {"repo_type": repo_type, "revision": tag, "local_files_only": away is not None}
            try:
                folder = patiently(functools.partial(fetch, repo, **how))
            except GatedRepoError:
                raise
            except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
                absent[repo_type] = error
                continue
            if not (folder / MANIFEST).is_file():
                raise StoreError(no_artifact(ref))
            manifest = read_manifest(folder, ref)
            if away is not None and whole and not all((folder / name).is_file() for name in manifest.files):
                raise away
            found, digest = manifest.kind, manifest.digest
            return Stored(repo=repo, kind=found, tag=tag, digest=digest, path=folder, manifest=manifest)
        if away is not None:
            raise away
        for repo_type, why in absent.items():
            if isinstance(why, RevisionNotFoundError):
                tags = list_repo_refs(repo, repo_type=repo_type).tags
                raise StoreError(no_such_tag(ref, {tag.name for tag in tags}))
            if isinstance(why, EntryNotFoundError) and not isinstance(why, LocalEntryNotFoundError):
                raise StoreError(no_artifact(ref))
        raise next((e for e in absent.values() if isinstance(e, LocalEntryNotFoundError)), absent[REPO_TYPES[0]])


def _why_away(endpoint: str) -> Exception | None:
    """Return the error that says why the Hub cannot be asked, None where it answers."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        check_reachable(endpoint)
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        return error
    return None
