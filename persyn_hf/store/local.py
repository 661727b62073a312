"""The local store: a Hugging Face cache directory of datasets and models with manifests, digests and fixed tags.

`huggingface_hub.scan_cache_dir(root)` lists it and `snapshot_download(..., cache_dir=root, local_files_only=True)`
reads it. What is persyn's own (lock, journal, work folders) lies under `root/.persyn`.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from persyn_hf.contract import ModelSchema, Schema
from persyn_hf.errors import DamagedArtifact, InputError, StoreError
from persyn_hf.recipe.roles import NAME
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store import install, parquet
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.disk import disk_faults, file_digest, replace_atomically, write_synced
from persyn_hf.store.lock import StoreLock
from persyn_hf.store.manifest import CARD, Manifest, read_manifest
from persyn_hf.store.parquet_read import read_dataset
from persyn_hf.store.stored import (
    COMMIT,
    TYPE_KINDS,
    Stored,
    meant,
    next_tag,
    repo_folder,
    repo_of,
    split_ref,
    tag_order,
)


if TYPE_CHECKING:
    from datasets import Dataset


def default_root() -> Path:
    """Return the folder `PERSYN_STORE`, else `./artifacts`."""
    return Path(os.environ.get("PERSYN_STORE") or "artifacts")


class Store:
    """A store of artifacts under one root folder. Reading needs no lock; writing takes it unless the caller has it."""

    def __init__(self, root: str | Path | None = None) -> None:
        """Open the store under a folder, which is made when something is written; null: `default_root`."""
        if not isinstance(root, (str, Path, NoneType)):
            raise InputError(f"the store must be a folder, got {type(root).__name__}")
        self.root = Path(root if root is not None else default_root()).expanduser().absolute()
        self.journal = self.state_dir / "journal.sqlite"  # a run may keep it elsewhere (`runner.local_journal`)
        self._lock = StoreLock(self.root, self.state_dir)
        self._putting = threading.RLock()

    @property
    def state_dir(self) -> Path:
        """The folder of what is persyn's own: lock, journal, heartbeat and work folders."""
        return self.root / ".persyn"

    @contextmanager
    def lock(self, wait: bool = False) -> Iterator[None]:
        """Hold the store against other processes. Taking the lock removes what killed processes left.

        Args:
            wait: wait for another process to free it, instead of raising.

        Raises:
            StoreError: another process holds it (its pid, command and since when are named) and `wait` is false.
        """
        with self._lock.hold(wait) as first:
            if first:
                with disk_faults(self.root):
                    install.clean(self.root, self.state_dir)
            yield

    def put(
        self,
        *,
        repo: str,
        schema: Schema | ModelSchema,
        data: "Dataset | Path",
        fields: Mapping[str, Any],
        figures: Mapping[str, bytes] | None = None,
        tag: str | None = None,
        shard_rows: int = parquet.SHARD_ROWS,
    ) -> Stored:
        """Store an artifact with its card and manifest, whole or not at all, and return it.

        Content that a tag of the repository holds already is not written again: that tag is returned.

        Args:
            repo: NAMESPACE/NAME.
            schema: the contract of its kind.
            data: a dataset of the contract `schema`, or the folder of a model.
            fields: `stage` and the other fields of `Manifest` that the store cannot know itself.
            figures: pictures for the card, `figures/NAME.png` -> its bytes.
            tag: null is the next free v1, v2, ...; a tag never changes its content.
            shard_rows: the largest number of rows of one parquet file.

        Raises:
            StoreError: the tag holds other content, a file is no safetensors, or the disk refuses.
        """
        repo_dir = self._repo_dir(repo, schema.kind)
        _check_tag(tag)
        with self.lock(), self._putting, disk_faults(self.root), install.staging(self.state_dir, repo_dir) as stage:
            rows, files = install.stage_data(repo, schema, data, stage / "files", shard_rows)
            for name, picture in (figures or {}).items():
                write_synced(stage / "files" / name, picture)
                files[name] = file_digest(stage / "files" / name)
            own = {"repo": repo, "kind": schema.kind, "schema_version": schema.version, "rows": rows, "files": files}
            draft = Manifest(**{**fields, **own})
            return self._settle(stage, draft.model_copy(update={"digest": draft.content_digest()}), tag)

    def retag(self, stored: Stored, tag: str) -> Stored:
        """Give a stored artifact one more tag and return it under that tag.

        Raises:
            StoreError: the tag holds other content, or the disk refuses.
        """
        repo_dir = self._repo_dir(stored.repo, stored.kind)
        _check_tag(tag)
        with self.lock(), self._putting, disk_faults(self.root), install.staging(self.state_dir, repo_dir) as stage:
            install.write_ref(repo_dir, self._choose_tag(stored.manifest, tag)[0], stored.manifest.commit, stage)
        return self._open(stored.repo, stored.kind, tag)

    def adopt(self, manifest: Manifest, folder: Path, tag: str) -> Stored:
        """Take over an artifact that another store wrote, under its tag and with its manifest, and return it.

        Args:
            folder: its files, on the disk of this store; they are moved.

        Raises:
            DamagedArtifact: a file is not what the manifest says; the others may be moved by then.
            StoreError: the tag holds other content.
        """
        repo_dir = self._repo_dir(manifest.repo, manifest.kind)
        _check_tag(tag)
        with self.lock(), self._putting, disk_faults(self.root), install.staging(self.state_dir, repo_dir) as stage:
            install.stage_files(f"{manifest.repo}@{tag}", folder, manifest, stage / "files")
            files = {name: digest for name, digest in manifest.files.items() if name != CARD}
            return self._settle(stage, manifest.model_copy(update={"files": files}), tag)

    def find(self, repo: str, kind: str, fingerprint: str) -> Stored | None:
        """Return the newest artifact that a step of this fingerprint made in a repository, after a check; else None.

        Raises:
            DamagedArtifact: it is stored, but one of its files is not what was written.
        """
        note = self._note(repo, kind, fingerprint)
        digest = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else None
        for tag in reversed(self._tags(repo, kind)):
            stored = self._open(repo, kind, tag)
            if stored.kind == kind and (stored.manifest.fingerprint == fingerprint or stored.digest == digest):
                stored.check()
                return stored
        return None

    def get(self, ref: str, kind: str | None = None) -> Stored:
        """Return the artifact "NAMESPACE/NAME@TAG"; without a tag the one stored last, under its newest tag.

        Raises:
            StoreError: it is not in this store, or of another kind than asked for.
            DamagedArtifact: its tag or manifest cannot be read.
        """
        repo, tag = split_ref(ref)
        for some_kind in [kind] if kind else TYPE_KINDS.values():
            refs = self.refs(repo, some_kind)
            if tag in refs:
                same = [name for name in self._tags(repo, some_kind) if tag == "main" and refs[name] == refs[tag]]
                stored = self._open(repo, some_kind, same[-1] if same else tag)
                if kind not in (None, stored.kind):
                    raise StoreError(f"{ref} is of kind `{stored.kind}`, needed is `{kind}`; name another artifact")
                return stored
        raise StoreError(f"{ref} is not in the store {self.root}{meant(ref, self.artifacts(), kind)}")

    def has(self, ref: str) -> bool:
        """Tell whether a tag is in this store; without a tag, whether the repository is."""
        repo, tag = split_ref(ref)
        return any(tag in self.refs(repo, kind) for kind in TYPE_KINDS.values())

    def artifacts(self) -> list[Stored]:
        """Return one artifact per tag of every repository, sorted by repository, then by tag (v2 before v10)."""
        folders = sorted(folder.name for folder in self.root.iterdir()) if self.root.is_dir() else []
        repos = [repo for folder in folders if (repo := repo_of(folder)) is not None]
        return [self._open(repo, kind, tag) for repo, kind in repos for tag in self._tags(repo, kind)]

    def read_dataset(self, stored: Stored, config: str | None = None, split: str | None = None) -> "Dataset":
        """Return the rows of a dataset artifact in the order in which they were written.

        The nullable columns that its kind has got since it was made are filled with null.

        Args:
            config: one config (a teacher, a task); None: all.
            split: one split; None: all.

        Raises:
            StoreError: it is a model, or has no such config or split.
            DamagedArtifact: its files hold another number of rows than its manifest says.
        """
        schema = SCHEMAS[stored.kind]
        if isinstance(schema, ModelSchema):
            raise StoreError(
                f"{stored.ref} is a `{stored.kind}`, a model without rows; its files lie in {stored.path}"
            )
        dataset = read_dataset(stored.path, stored.manifest.rows, stored.ref, config, split)
        return schema.complete(dataset, stored.manifest.schema_version)

    def refs(self, repo: str, kind: str) -> dict[str, str]:
        """Return the commit of every tag of a repository, and of `main`, by name; empty without a repository."""
        folder = self._repo_dir(repo, kind) / "refs"
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()}

    def _settle(self, stage: Path, draft: Manifest, tag: str | None) -> Stored:
        """Put staged files in place under a tag, with a card, unless their content is there; return the artifact."""
        draft = Manifest.model_validate_json(draft.to_json())  # its keys in the order in which every store reads them
        repo, kind = draft.repo, draft.kind
        repo_dir = self._repo_dir(repo, kind)
        tag, same = self._choose_tag(draft, tag)
        if same is None or not self._is_whole(repo, kind, same):
            install.install_artifact(stage, repo_dir, draft, render_card(draft, tag))
            install.write_ref(repo_dir, "main", draft.commit, stage)
        elif self._open(repo, kind, same).manifest.fingerprint != draft.fingerprint:
            # other settings of no effect, or newer code, led to the same content: `find` must know it too
            note = self._note(repo, kind, draft.fingerprint)
            note.parent.mkdir(exist_ok=True)
            replace_atomically(note, draft.digest, stage)
        if same != tag:
            install.write_ref(repo_dir, tag, draft.commit, stage)
        return self._open(repo, kind, tag)

    def _tags(self, repo: str, kind: str) -> list[str]:
        """Return the tags of a repository, v2 before v10."""
        return sorted(self.refs(repo, kind).keys() - {"main"}, key=tag_order)

    def _repo_dir(self, repo: str, kind: str) -> Path:
        """Return the folder of a repository, whether it is there or not."""
        return self.root / repo_folder(repo, kind)

    def _note(self, repo: str, kind: str, fingerprint: str) -> Path:
        """Return the file that notes that a fingerprint led to content that was stored under another fingerprint."""
        name = hashlib.sha256(f"{repo}\n{kind}\n{fingerprint}".encode()).hexdigest()
        return self.state_dir / "same_content" / name

    def _choose_tag(self, draft: Manifest, tag: str | None) -> tuple[str, str | None]:
        """Return the tag to be used, and a tag that holds the same content already, None where there is none.

        Raises:
            StoreError: the tag that was asked for holds other content.
        """
        refs = {name: commit for name, commit in self.refs(draft.repo, draft.kind).items() if name != "main"}
        same = sorted((name for name, commit in refs.items() if commit == draft.commit), key=tag_order)
        if tag is None:
            return (same[0], same[0]) if same else (next_tag(list(refs)), None)
        if tag in refs and refs[tag] != draft.commit:
            raise StoreError(
                f"{draft.repo}@{tag} already holds other content, digest {refs[tag]}; this run made {draft.commit}; "
                f"tags never change: set `version` to a new one, or leave it out for {next_tag(list(refs))}"
            )
        return tag, tag if tag in same else same[0] if same else None

    def _is_whole(self, repo: str, kind: str, tag: str) -> bool:
        """Tell whether every file of an artifact is as it was written."""
        try:
            self._open(repo, kind, tag).check()
        except DamagedArtifact:
            return False
        return True

    def _open(self, repo: str, kind: str, tag: str) -> Stored:
        """Return the artifact that a tag names, by its manifest; its files are not checked.

        Raises:
            DamagedArtifact: the tag names no commit that is there, or the manifest cannot be read.
        """
        repo_dir = self._repo_dir(repo, kind)
        ref = repo_dir / "refs" / tag
        commit = ref.read_text(encoding="utf-8", errors="replace")
        snapshots = repo_dir / "snapshots"
        path = snapshots / commit
        if not COMMIT.fullmatch(commit) or not path.is_dir():
            raise DamagedArtifact(
                f"{repo}@{tag}: {ref} holds {commit[:80]!r}, needed is the name of a folder in {snapshots}; "
                f"delete {ref}, then pull the artifact again or run its recipe to make it anew"
            )
        manifest = read_manifest(path, f"{repo}@{tag}")
        return Stored(repo=repo, kind=manifest.kind, tag=tag, digest=manifest.digest, path=path, manifest=manifest)


def _check_tag(tag: str | None) -> None:
    """Raise a `StoreError` where a name cannot be a tag; null, the next free one, is fine."""
    if tag is not None and (not NAME.fullmatch(tag) or tag == "main" or COMMIT.fullmatch(tag)):
        raise StoreError(f"`{tag}` cannot be a tag; use a name such as v1 (letters, digits, `.`, `_`, `-`)")
