"""A repository on the Hub as it is at one moment: its head, its tags, and the manifests in them."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.recipe.strict import nearest
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.hub.faults import not_found
from persyn_hf.store.manifest import MANIFEST, Manifest, fault_of
from persyn_hf.store.stored import split_ref, tag_order


if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

REPO_TYPES = ("dataset", "model")


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A repository as it was found; each method asks the Hub about one commit, which never changes."""

    api: "HfApi"
    repo: str
    repo_type: str
    private: bool
    head: str  # commit of `main`
    branches: dict[str, str]  # branch -> commit
    tags: dict[str, str]  # tag -> commit

    def read(self, path: str, commit: str) -> bytes | None:
        """Return the content of a small file of a commit, None where the commit has none of this name."""
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with tempfile.TemporaryDirectory() as folder:
            try:
                file = self.api.hf_hub_download(
                    self.repo, path, repo_type=self.repo_type, revision=commit, local_dir=folder
                )
            except RemoteEntryNotFoundError:  # and not the local one, which stands for any failed question
                return None
            return Path(file).read_bytes()

    def manifest(self, commit: str) -> Manifest | None:
        """Return the manifest of a commit, None where the commit is not persyn's.

        Raises:
            StoreError: there is one that this version of persyn-hf cannot read.
        """
        content = self.read(MANIFEST, commit)
        try:
            return None if content is None else Manifest.model_validate_json(content)
        except ValidationError as error:
            raise StoreError(
                f"{self.repo} on the Hub: its {MANIFEST} is none that this version of persyn-hf reads "
                f"({fault_of(error)}); update persyn-hf, or ask its owner"
            ) from None

    def files(self, commit: str) -> "dict[str, RepoFile]":
        """Return the Hub's entry of every file of a commit, by its path."""
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo, repo_type=self.repo_type, revision=commit, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def titles(self, head: str) -> list[tuple[str, str]]:
        """Return commit and title of the history that ends at a commit, oldest first."""
        commits = self.api.list_repo_commits(self.repo, repo_type=self.repo_type, revision=head)
        return [(commit.commit_id, commit.title) for commit in reversed(commits)]


def look(api: "HfApi", repo: str, repo_type: str) -> Remote | None:
    """Return a repository as it is now, None where there is none or the Hub hides it from this user."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.repo_info(repo, repo_type=repo_type)
        refs = api.list_repo_refs(repo, repo_type=repo_type)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    tags = {tag.name: tag.target_commit for tag in refs.tags}
    branches = {branch.name: branch.target_commit for branch in refs.branches}
    private, head = bool(info.private), str(info.sha)
    return Remote(api=api, repo=repo, repo_type=repo_type, private=private, head=head, branches=branches, tags=tags)


def is_same(there: "RepoFile | None", ours: Path | bytes, sha256: str | None) -> bool:
    """Tell whether the Hub has a file, by its digest there: sha256 in large file storage, git's own elsewhere.

    Args:
        there: the Hub's entry of this name; None: it has none.
        ours: a file of the store, or the content.
        sha256: that of the file in the store; it is not used for contents.
    """
    from huggingface_hub.utils.sha import git_hash

    if there is None:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == (sha256 if isinstance(ours, Path) else hashlib.sha256(ours).hexdigest()))
    if isinstance(ours, Path):
        if ours.stat().st_size != there.size:
            return False
        ours = ours.read_bytes()
    return bool(there.blob_id == git_hash(ours))


def find(api: "HfApi", ref: str) -> tuple[Remote, str, Manifest]:
    """Find the artifact "NAMESPACE/NAME@TAG" in either repository type; without a tag its newest version.

    Returns:
        The repository, the tag, and the manifest.

    Raises:
        StoreError: no such repository, no such tag, or no artifact of persyn.
        DamagedArtifact: the manifest was changed after it was published.
    """
    repo, wanted = split_ref(ref)
    remotes = [remote for repo_type in REPO_TYPES if (remote := look(api, repo, repo_type)) is not None]
    if not remotes:
        raise StoreError(not_found(ref))
    for remote in remotes:
        tag = max(remote.tags, key=tag_order, default=None) if wanted == "main" else wanted
        if tag in remote.tags:
            manifest = remote.manifest(remote.tags[tag])
            if manifest is not None:
                return remote, tag, checked(manifest, f"{repo}@{tag}")
    if not any(wanted in remote.tags for remote in remotes):
        raise StoreError(no_such_tag(ref, {tag for remote in remotes for tag in remote.tags}))
    raise StoreError(no_artifact(ref))


def checked(manifest: Manifest, ref: str) -> Manifest:
    """Return the manifest, if its kind is known and its own fields lead to its digest.

    Raises:
        StoreError: this version of persyn-hf does not know the kind.
        DamagedArtifact: the fields lead to another digest.
    """
    if manifest.kind not in SCHEMAS:
        raise StoreError(
            f"{ref} on the Hub is of the kind `{manifest.kind}`, which this version of persyn-hf does not know; "
            "update persyn-hf"
        )
    if manifest.digest != manifest.content_digest():
        raise DamagedArtifact(
            f"{ref} on the Hub: its {MANIFEST} gives digest {manifest.digest}, needed is {manifest.content_digest()} "
            "by the content; it was changed after it was published, ask its owner to publish it under a new tag"
        )
    return manifest


def no_such_tag(ref: str, tags: set[str]) -> str:
    """Return the sentence for a tag that a repository of the Hub does not have."""
    repo, tag = split_ref(ref)
    if not tags:
        return f"{repo} on the Hub has no tags, so it holds no published artifact; ask its owner to push it"
    return f"{repo} on the Hub has no tag `{tag}`{nearest(tag, sorted(tags, key=tag_order))}"


def no_artifact(ref: str) -> str:
    """Return the sentence for a repository that persyn did not write."""
    return f"{ref} on the Hub holds no {MANIFEST}, so it is no artifact; datasets.load_dataset reads it"
