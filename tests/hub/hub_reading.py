"""What the Hub tells of a repository, as plain values in the shape of its JSON."""

import contextlib
import hashlib
from typing import Any

import yaml
from hub_cards import read_metadata, repo_tags
from hub_repos import Commit, File, Refusal, Repo


def describe(repo: Repo, revision: str, with_blobs: bool) -> dict[str, Any]:
    commit = repo.at(revision)
    metadata: dict[str, Any] = {}
    if "README.md" in commit.files:
        with contextlib.suppress(yaml.YAMLError):
            metadata = read_metadata(repo.read("README.md", commit.sha).decode())
    info = {
        "_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.sha,
        "createdAt": repo.commits[-1].date,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [*repo_tags(metadata), "region:us"],
        "cardData": {key: value for key, value in metadata.items() if key != "model-index"} or None,
        "siblings": [_sibling(path, file, with_blobs) for path, file in commit.files.items()],
    }
    if repo.type == "model":
        info |= {"modelId": repo.id, "model-index": metadata.get("model-index")}
    return info


def _sibling(path: str, file: File, with_blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.is_lfs:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return sibling


def list_refs(repo: Repo) -> dict[str, Any]:
    def listed(refs: dict[str, str], folder: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in refs.items()]

    branches, tags = listed(repo.branches, "heads"), listed(repo.tags, "tags")
    return {"branches": branches, "tags": tags, "converts": [], "pullRequests": []}


def list_commits(repo: Repo, revision: str) -> list[dict[str, Any]]:
    return [
        {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author, "avatar": ""}],
        }
        for commit in repo.history(revision)
    ]


def list_tree(
    repo: Repo, revision: str, folder: str, recursive: bool, expand: bool, hashes: dict[str, str]
) -> list[dict[str, Any]]:
    commit = repo.at(revision)
    prefix = f"{folder}/" if folder else ""
    paths = {path for path in commit.files if path.startswith(prefix)}
    if folder and not paths:
        raise Refusal(404, f'{folder} does not exist on "{revision}"', "EntryNotFound")
    for path in list(paths):
        while (path := path.rpartition("/")[0]).startswith(prefix) and path not in ("", folder):
            paths.add(path)
    if not recursive:
        paths = {path for path in paths if "/" not in path.removeprefix(prefix)}
    return list_paths(repo, commit.sha, sorted(paths), expand, hashes)


def list_paths(
    repo: Repo, revision: str, paths: list[str], expand: bool, hashes: dict[str, str]
) -> list[dict[str, Any]]:
    """`hashes` are Xet's names of contents, by SHA-256."""
    commit = repo.at(revision)
    return [_entry(repo, commit, path, expand, hashes) for path in paths if _contents(commit, path)]


def _contents(commit: Commit, path: str) -> list[tuple[str, File]]:
    """Of the file at `path`, or of everything in the folder."""
    if path in commit.files:
        return [(path, commit.files[path])]
    return [(name, file) for name, file in commit.files.items() if name.startswith(f"{path}/")]


def _entry(repo: Repo, commit: Commit, path: str, expand: bool, hashes: dict[str, str]) -> dict[str, Any]:
    here = _contents(commit, path)
    oid = hashlib.sha1(repr(here).encode()).hexdigest()
    entry: dict[str, Any] = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if file := commit.files.get(path):
        entry |= {"type": "file", "oid": file.oid, "size": file.size}
        if file.is_lfs:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
            entry |= {"xetHash": hashes[file.sha256]} if file.sha256 in hashes else {}
    if expand:
        last = commit
        while last.parent and _contents(repo.by_sha[last.parent], path) == here:
            last = repo.by_sha[last.parent]
        entry["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
    return entry
