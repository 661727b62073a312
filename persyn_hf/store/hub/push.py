"""Publish an artifact: one commit with data, card and manifest, then the tag.

The Hub has no transaction over a commit and a tag, and its answer to a commit may get lost. So the history of `main`
decides whom a tag belongs to. The commit that publishes is titled `Publish TAG DIGEST` (40 digits of the content
digest). The first commit with a tag in its title claims that tag, whether the tag is set yet or not. Every attempt
begins with a new look at the Hub and makes only what is missing there.

An example: alice pushes alice/prompts@v2, whose digest begins with 5f3a.

- All goes well: `main` gets one commit, `Publish v2 5f3a...`, and then the tag v2 names it.
- The push is killed between the two. The next push finds the claim, and the digest is the same: it sets the tag on
  that commit and sends no file again.
- The Hub commits, but answers with status 500 or not at all. `patiently` begins another attempt, which finds the
  claim. Nothing is committed twice.
- Two machines push different content as v2 at once. Both name the head that they saw as the parent of their commit.
  The Hub takes one commit and answers the other machine with 412. That one looks again, finds v2 claimed with another
  digest, and raises `TagTaken`.
- alice pushes v1 while `main` holds v2. `main` stays at the newest version: v1 is committed on a branch
  `persyn-publish-v1` that begins at the head of `main`, the tag is set on that commit, and the branch is deleted. A
  push that was killed leaves the branch behind; the next one finds the claim in its history.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persyn_hf.errors import StoreError
from persyn_hf.store.hub.as_published import PublicArtifact, public_artifact
from persyn_hf.store.hub.faults import HubFault, patiently, telling
from persyn_hf.store.hub.login import check_rights
from persyn_hf.store.hub.merge_card import merge_card
from persyn_hf.store.hub.remote import Remote, is_same, look
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import CARD, MANIFEST, Manifest, is_card
from persyn_hf.store.stored import Stored, is_older, next_tag, repo_type


if TYPE_CHECKING:
    from huggingface_hub import HfApi


class TagTaken(StoreError):
    """The tag holds other content on the Hub, so pushing again is of no use."""


# The Hub leaves out what a `.gitignore` in the repository names, in silence; a commit has all of our files or is none.
NOTHING_IGNORED = "# every file of an artifact is published\n"

_TITLE = re.compile(r"Publish (\S+) ([0-9a-f]{40})")


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """The result of a push: what it did or, as a dry run, would do."""

    ref: str  # NAMESPACE/NAME@TAG on the Hub
    url: str
    commit: str  # that the tag names; "" where a dry run cannot know it
    sent: Literal["nothing", "tag", "card", "all"]
    added: tuple[str, ...] = ()  # files, changed ones included
    deleted: tuple[str, ...] = ()
    num_bytes: int = 0  # of `added`
    main: str = ""  # the tag of the newer version at which `main` stays


def push(
    store: Store,
    stored: Stored,
    *,
    namespace: str | None = None,
    private: bool | None = None,
    dry_run: bool = False,
    api: "HfApi",
) -> Pushed:
    """Bring an artifact of the store to the Hub, under its tag, and return what was done. What is there is not sent.

    Args:
        namespace: user or organisation instead of the artifact's own; inputs of its own namespace follow.
        private: visibility of a new repository; null: as the namespace has it.
        dry_run: look at the Hub, and change nothing there.

    Raises:
        TagTaken: the tag holds other content there.
        StoreError: the Hub refuses; nothing of the artifact is published then.
        DamagedArtifact: a file of the store is not what was written.
    """
    work = _Push(api=api, artifact=public_artifact(store, stored, namespace), private=private, dry_run=dry_run)
    try:
        with telling(work.artifact.ref, f"pushing {work.artifact.ref}"):
            return patiently(work.attempt)
    except HubFault as error:
        refused = HubFault(f"{error}{work.unfinished()}")
        refused.status = error.status
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}{work.unfinished()}") from None
    if refused.status in (401, 403, 404):
        check_rights(api, work.artifact.repo.partition("/")[0])  # says why, where it can be known
    raise refused


@dataclass(kw_only=True)
class _Push:
    """One push and all its attempts; each begins with a new look at the Hub and makes what is missing there."""

    api: "HfApi"
    artifact: PublicArtifact
    private: bool | None
    dry_run: bool
    done: dict[str, Any] = field(default_factory=dict)  # fields of `Pushed`, by all attempts together
    checked: bool = False
    made: bool = False  # the repository, which was not there
    commit: str = ""  # made by an earlier attempt or this one

    def unfinished(self) -> str:
        """Return what a push that failed or was interrupted leaves on the Hub, as an addition to a sentence."""
        repo = self.artifact.repo
        if self.commit:
            return f" ({repo} has its files on the Hub, the tag is not set yet)"
        return f" ({repo} was made on the Hub and is empty yet)" if self.made else ""

    def attempt(self) -> Pushed:
        """Look at the Hub, make what is missing there, and return what all attempts together did.

        There are three cases: the tag is set (only the card may have news), our content is claimed or already the head
        of `main` (only the tag is missing), or nothing of it is there (commit, then tag).
        """
        repo, tag, digest = self.artifact.repo, self.artifact.stored.tag, self.artifact.stored.digest
        remote = self._look()
        if remote is None:
            self._commit(None, None, "all")
            return self._result("")
        head = remote.manifest(remote.head)
        if tag in remote.tags:
            commit = remote.tags[tag]
            there = head if commit == remote.head else remote.manifest(commit)
            self._check_digest(remote, there.digest if there else "")
            if self._branch in remote.branches and not self.dry_run:
                self.api.delete_branch(repo, branch=self._branch, repo_type=remote.repo_type)
            if head is not None and head.digest == digest and self._has_news(head) and self._claimed(remote):
                self._commit(remote, head, "card")  # not where another tag published it: the card is that tag's
            return self._result(commit)
        claimed = self._claimed(remote)
        if claimed is None and head is not None and head.digest == digest:
            claimed = remote.head
        newer = None if claimed else self._newer(remote)
        commit = claimed or (self._commit_beside(remote, newer) if newer else self._commit(remote, head, "all"))
        if not self.dry_run:
            self.api.create_tag(repo, tag=tag, revision=commit, repo_type=remote.repo_type)
            if newer or self._branch in remote.branches:
                self.api.delete_branch(repo, branch=self._branch, repo_type=remote.repo_type)
        self.done.setdefault("sent", "tag")
        return self._result(commit)

    def _look(self) -> Remote | None:
        """Return the repository as it is now; one that is not there is made, except in a dry run, which gets None."""
        repo, kind = self.artifact.repo, repo_type(self.artifact.stored.kind)
        remote = look(self.api, repo, kind)
        if remote is None and not self.dry_run:
            self._check_files()
            self.api.create_repo(repo, repo_type=kind, private=self.private)
            self.made = True
            remote = look(self.api, repo, kind)
            if remote is None:
                raise HubFault(f"pushing {self.artifact.ref}: the Hub does not show {repo}, made now; try again later")
        if remote is not None and self.private and not remote.private:
            raise StoreError(f"{repo} is public on the Hub; make it private in its settings, or leave --private out")
        return remote

    def _check_files(self) -> None:
        """Check every file of the artifact against its manifest, once per push."""
        if not self.checked:
            self.artifact.stored.check()
            self.checked = True

    def _claimed(self, remote: Remote) -> str | None:
        """Return the commit that claims our tag, None where no title names the tag.

        Raises:
            TagTaken: the claim is for other content.
        """
        for head in filter(None, (remote.head, remote.branches.get(self._branch))):
            for commit, title in remote.titles(head):
                claim = _TITLE.match(title)
                if claim and claim[1] == self.artifact.stored.tag:
                    self._check_digest(remote, claim[2])
                    return commit
        return None

    @property
    def _branch(self) -> str:
        """The name of the branch on which an older version is committed until its tag is set."""
        return f"persyn-publish-{self.artifact.stored.tag}"

    def _newer(self, remote: Remote) -> str | None:
        """Return the tag of the version that `main` holds, where ours is an older one; else None."""
        tags = [claim[1] for _, title in remote.titles(remote.head) if (claim := _TITLE.match(title))]
        return tags[-1] if tags and is_older(self.artifact.stored.tag, than=tags[-1]) else None

    def _commit_beside(self, remote: Remote, newer: str) -> str:
        """Commit on a branch of its own, which begins at the head of `main`, and return the commit."""
        if self._branch not in remote.branches and not self.dry_run:
            self.api.create_branch(remote.repo, branch=self._branch, revision=remote.head, repo_type=remote.repo_type)
        beside = replace(remote, head=remote.branches.get(self._branch, remote.head))
        self.done["main"] = newer
        return self._commit(beside, beside.manifest(beside.head), "all", branch=self._branch)

    def _check_digest(self, remote: Remote, published: str) -> None:
        """Raise `TagTaken` where what is published under our tag has another digest; "": nothing of persyn."""
        artifact, digest = self.artifact, self.artifact.stored.digest
        if published[:40] != digest[:40]:
            other = f"other content on the Hub, digest {published[:40]}"
            holds = other if published else "what persyn did not publish there"
            free = next_tag([*remote.tags, *(path.name for path in artifact.stored.ref_file.parent.iterdir())])
            raise TagTaken(
                f"{artifact.ref} already holds {holds}; this artifact's digest is {digest[:40]}; tags never change: "
                f"set `version: {free}` in its recipe, run it again, which makes nothing anew, and push "
                f"{artifact.repo}@{free}; or push to another namespace"
            )

    def _has_news(self, head: Manifest) -> bool:
        """Tell whether our card says more than the one there, which others may have edited since."""
        if self.artifact.stored.kind == "student" and not self.artifact.evaluated:
            return False  # another store knows its evaluations
        ours, theirs = (
            {name: digest for name, digest in manifest.files.items() if is_card(name)}
            for manifest in (self.artifact.manifest, head)
        )
        return ours != theirs

    def _commit(self, remote: Remote | None, head: Manifest | None, sent: str, branch: str = "main") -> str:
        """Commit what differs from the head of a branch and return the commit; "" in a dry run.

        Args:
            remote: the repository as it was last looked at; its head is the parent that the Hub compares with.
                None: there is none.
            head: the manifest at that head; files that it names and we do not have are deleted. None: it is not
                persyn's.
            sent: what this commit brings, `all` or `card`; only `all` claims the tag.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        artifact, tag = self.artifact, self.artifact.stored.tag
        there = remote.files(remote.head) if remote else {}
        card = remote.read(CARD, remote.head) if remote and CARD in there else None
        files: dict[str, Path | bytes] = {name: artifact.stored.path / name for name in artifact.manifest.files}
        files[CARD] = merge_card(artifact.card, card.decode("utf-8", errors="replace") if card else None).encode()
        files[MANIFEST] = artifact.manifest.to_json().encode()
        digests = artifact.manifest.files
        added = {name: c for name, c in files.items() if not is_same(there.get(name), c, digests.get(name))}
        kept = {*files, ".gitattributes"}
        deleted = [name for name in (head.files if head else {}) if name in there and name not in kept]
        sizes = (content.stat().st_size if isinstance(content, Path) else len(content) for content in added.values())
        self.done |= {"sent": sent, "added": tuple(added), "deleted": tuple(deleted), "num_bytes": sum(sizes)}
        if self.dry_run or remote is None:
            return ""
        self._check_files()
        additions = [CommitOperationAdd(name, content) for name, content in added.items()]
        for addition in additions:
            if isinstance(addition.path_or_fileobj, str | Path):  # known from the check; else it is read once more
                addition.upload_info.sha256 = bytes.fromhex(digests[addition.path_in_repo])
        options: dict[str, Any] = {"repo_type": remote.repo_type, "revision": branch}
        self.api.preupload_lfs_files(
            artifact.repo, additions, free_memory=False, gitignore_content=NOTHING_IGNORED, **options
        )
        operations: list[Any] = [*(CommitOperationDelete(name) for name in deleted), *additions]
        title = f"Publish {tag} {artifact.stored.digest[:40]}" if sent == "all" else f"Update the card of {tag}"
        made = self.api.create_commit(
            artifact.repo,
            operations,
            commit_message=title,
            commit_description=f"Content digest {artifact.stored.digest}",
            parent_commit=remote.head,
            **options,
        )
        self.commit = made.oid if sent == "all" else ""
        return made.oid

    def _result(self, commit: str) -> Pushed:
        """Return what all attempts did, with the address of the artifact on the Hub."""
        artifact = self.artifact
        kind = "datasets/" if repo_type(artifact.stored.kind) == "dataset" else ""
        url = f"{self.api.endpoint}/{kind}{artifact.repo}/tree/{artifact.stored.tag}"
        return Pushed(ref=artifact.ref, url=url, commit=commit, **{"sent": "nothing", **self.done})
