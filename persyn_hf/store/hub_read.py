"""Artifacts that are not in the local store, read from the Hub into the ordinary Hugging Face cache."""

from pathlib import Path

from persyn_hf.errors import StoreError
from persyn_hf.store.manifest import MANIFEST, read_manifest
from persyn_hf.store.stored import Stored, split_ref


def download(ref: str, root: Path) -> Stored:
    """Download the dataset or model repository "NAMESPACE/NAME@TAG" with all its files.

    `root`: the local store that was looked at first, for the message.

    Raises:
        StoreError: no such repository or tag, no access, no network, or no artifact of persyn.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    repo, tag = split_ref(ref)
    reasons = []
    for repo_type in ("dataset", "model"):
        try:
            folder = Path(snapshot_download(repo, repo_type=repo_type, revision=tag))
        except (RepositoryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            # only the name: the text of these errors may carry addresses and headers
            reasons.append(f"{repo_type}: {type(error).__name__}")
            continue
        if not (folder / MANIFEST).is_file():
            raise StoreError(
                f"{ref} on the Hub holds no {MANIFEST}, so it is no artifact; datasets.load_dataset reads it"
            )
        manifest = read_manifest(folder, ref)
        return Stored(repo=repo, kind=manifest.kind, tag=tag, digest=manifest.digest, path=folder, manifest=manifest)
    raise StoreError(
        f"{ref} is neither in the store {root} nor readable on the Hub ({'; '.join(reasons)}); check the name and the "
        "tag, your network and your login (`hf auth login`), or list the store with `persyn artifacts ls`"
    )
