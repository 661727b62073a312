"""Put an artifact into a Hugging Face cache folder so that it is there whole or not at all.

A repository of the store looks like this, and only `refs` says what is in it:

    datasets--me--prompts/
        blobs/SHA256                                               content, one file each
        snapshots/COMMIT/data/default/train-00000-of-00001.parquet -> ../../../../blobs/SHA256
        refs/v1                                                    the text COMMIT

An artifact is put in place in four steps. What they wrote is flushed to the disk before a snapshot or a ref names it.

- Its files are written to `.persyn/incoming/ID/files`. A process killed here leaves that folder, which `clean`
  removes.
- They are renamed into `blobs`. A process killed here leaves blobs that no snapshot links to, which `clean` removes;
  the file `.persyn/incoming/ID/repo` says where to look for them.
- The links are made in `.persyn/incoming/ID/snapshot`, which is renamed to `snapshots/COMMIT` as a whole. A process
  killed here leaves a snapshot that no tag names: nobody sees it, and the next `put` of the same content replaces it.
- `refs/main` and `refs/v1` are written, each by a rename. From then on the artifact is there.

`clean` runs when the lock of the store is next taken, so no other process can be at work then.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.contract import ModelSchema, Schema
from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store import parquet
from persyn_hf.store.disk import copy_synced, file_digest, replace_atomically, sync_folder, write_synced
from persyn_hf.store.manifest import CARD, MANIFEST, Manifest


if TYPE_CHECKING:
    from datasets import Dataset

# Endings of files that an artifact may hold: no loader runs what is in them. Any other kind might be a pickle or code.
ALLOWED = {
    *(".parquet", ".safetensors", ".json", ".jsonl", ".yaml", ".md", ".txt", ".jinja", ".png", ".svg"),
    *(".model", ".spm", ".bpe", ".vocab", ".tiktoken"),  # of tokenizers
}


@contextmanager
def staging(state_dir: Path, repo_dir: Path) -> Iterator[Path]:
    """Yield a new private folder on the store's disk, which is removed at the end.

    Its file `repo` holds the name of the repository that it is for, its folder `files` is empty.
    """
    stage = state_dir / "incoming" / uuid.uuid4().hex
    try:
        stage.mkdir(parents=True)
        (stage / "repo").write_text(repo_dir.name, encoding="utf-8")
        (stage / "files").mkdir()
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def clean(root: Path, state_dir: Path) -> None:
    """Remove what killed processes left: staged files, and blobs without a link. Call it under the lock only."""
    incoming = state_dir / "incoming"
    for stage in list(incoming.iterdir()) if incoming.is_dir() else []:
        try:
            repo_dir = root / (stage / "repo").read_text(encoding="utf-8")
        except OSError:
            repo_dir = None  # killed before it wrote the name, so before any blob
        if repo_dir is not None and repo_dir.parent == root and (repo_dir / "blobs").is_dir():
            linked = {os.readlink(link).rsplit("/", 1)[-1] for link in _links(repo_dir / "snapshots")}
            for blob in (repo_dir / "blobs").iterdir():
                if blob.name not in linked:
                    blob.unlink()
        shutil.rmtree(stage)


def _links(folder: Path) -> Iterator[Path]:
    """Return every symbolic link below a folder."""
    return (path for path in folder.rglob("*") if path.is_symlink())


def stage_model(source: Path, target: Path) -> dict[str, str]:
    """Copy the files of a model folder but for its README.md and hidden files; return the sha256 of each, by path.

    Raises:
        StoreError: it is no folder, holds no files, or holds one of a kind that no artifact may hold.
    """
    if not source.is_dir():
        raise StoreError(f"{source} is no folder; a model artifact is made of a folder that `from_pretrained` loads")
    digests: dict[str, str] = {}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if not path.is_file() or name == CARD or any(part.startswith(".") for part in Path(name).parts):
            continue
        if path.suffix.lower() not in ALLOWED:
            raise StoreError(
                f"{path} is of a kind that no artifact may hold, because loading it could run any code; save weights "
                f"as safetensors and remove this file (what is allowed: {', '.join(sorted(ALLOWED))})"
            )
        if name == MANIFEST:
            raise StoreError(f"{path} has the name of the manifest that the store writes; rename it")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        digests[name] = copy_synced(path, target / name)
    if not digests:
        raise StoreError(f"the folder {source} holds no model files; save the model there first")
    return digests


def stage_data(
    repo: str, schema: Schema | ModelSchema, data: "Dataset | Path", folder: Path, shard_rows: int
) -> tuple[parquet.Rows, dict[str, str]]:
    """Write the data files of an artifact into a folder.

    Returns:
        Number of rows by config and split, empty for a model; and the sha256 of every file, by its path.

    Raises:
        StoreError: `data` is a dataset where a model is needed, or the other way round; or a file is no
            safetensors.
        InputError: the columns of the dataset are not those of the schema.
    """
    if isinstance(schema, ModelSchema) is not isinstance(data, Path):
        needed = "the folder of a model" if isinstance(schema, ModelSchema) else "a dataset"
        raise StoreError(f"{repo} of kind `{schema.kind}` is made of {needed}, got {type(data).__name__}")
    if isinstance(data, Path):
        return {}, stage_model(data, folder)
    assert isinstance(schema, Schema)
    schema.check(data, repo)
    rows = parquet.write_dataset(data, schema, folder, shard_rows)
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    return rows, {path.relative_to(folder).as_posix(): file_digest(path) for path in written}


def stage_files(ref: str, source: Path, manifest: Manifest, target: Path) -> None:
    """Move the files that a manifest names, the card left out, from a folder on the same disk.

    Args:
        ref: NAMESPACE/NAME@TAG, for the messages.

    Raises:
        DamagedArtifact: a file is missing, is not what the manifest says, or has a name that leads elsewhere.
    """
    for name, needed in manifest.files.items():
        if name == CARD:
            continue
        parts = name.split("/")
        if any(part.startswith(".") or not part for part in parts) or "\\" in name or name == MANIFEST:
            raise DamagedArtifact(f"{ref}: its {MANIFEST} names the file {name!r}, which no artifact may hold")
        digest = file_digest(source / name) if (source / name).is_file() else "no file"
        if digest != needed:
            raise DamagedArtifact(f"{ref}: {name} is damaged, found {digest}, needed {needed}")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / name, target / name)


def install_artifact(stage: Path, repo_dir: Path, draft: Manifest, card: str) -> None:
    """Add card and manifest to the data files staged in `stage/files`, and put the whole in place."""
    files = stage / "files"
    write_synced(files / CARD, card.encode("utf-8"))
    manifest = draft.model_copy(update={"files": {**draft.files, CARD: file_digest(files / CARD)}})
    write_synced(files / MANIFEST, manifest.to_json().encode("utf-8"))
    digests = {**manifest.files, MANIFEST: file_digest(files / MANIFEST)}
    install(stage, repo_dir, manifest.commit, digests)


def install(stage: Path, repo_dir: Path, commit: str, files: Mapping[str, str]) -> None:
    """Move `stage/files` into the blobs of a repository and put a snapshot of links in place.

    A snapshot that is there already is replaced, because it was found damaged or no tag names it.

    Args:
        stage: the folder that `staging` yields.
        repo_dir: the folder of the repository, which is made where it is not there.
        commit: name of the snapshot.
        files: path -> sha256, manifest and card included.
    """
    if not repo_dir.exists():
        skeleton = stage / "skeleton"
        for name in ("blobs", "refs", "snapshots"):
            (skeleton / name).mkdir(parents=True)
        os.rename(skeleton, repo_dir)
        sync_folder(repo_dir.parent)
    snapshot, final = stage / "snapshot", repo_dir / "snapshots" / commit
    for name, digest in files.items():
        blob = repo_dir / "blobs" / digest
        os.replace(stage / "files" / name, blob)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, (final / name).parent))
    for folder in (repo_dir / "blobs", snapshot, *(path for path in snapshot.rglob("*") if _is_real_folder(path))):
        sync_folder(folder)
    if final.exists():
        os.rename(final, stage / "damaged")
    os.rename(snapshot, final)
    sync_folder(final.parent)


def _is_real_folder(path: Path) -> bool:
    """Tell whether a path is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def write_ref(repo_dir: Path, name: str, commit: str, stage: Path) -> None:
    """Make a tag, or `main`, name a commit."""
    replace_atomically(repo_dir / "refs" / name, commit, stage)
