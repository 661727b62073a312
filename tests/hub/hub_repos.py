"""What the local Hub remembers: accounts, repositories, their commits, and blobs on disk."""

import base64
import fnmatch
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


REGULAR_LIMIT = 10 * 1024 * 1024  # bytes; the Hub takes larger files as LFS only
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.gz *.h5 *.jpeg *.jpg *.model *.msgpack *.npy *.npz *.onnx *.parquet *.pickle "
    "*.pkl *.png *.pt *.pth *.rar *.safetensors *.tar *.tgz *.webp *.xz *.zip *.zst"
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split())


class Refusal(Exception):
    """An error answer. `code` is what the Hub's clients choose their class of error by."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body
        self.headers: dict[str, str] = {}


@dataclass(frozen=True)
class Token:
    user: str
    role: str  # "write" or "read"


class Accounts:
    def __init__(self) -> None:
        self.orgs: dict[str, tuple[str, ...]] = {}  # of each user
        self.tokens: dict[str, Token] = {}

    def issue(self, user: str, role: str) -> str:
        assert user in self.orgs and role in ("write", "read")
        token = f"hf_{secrets.token_hex(17)}"
        self.tokens[token] = Token(user, role)
        return token

    def user_of(self, authorization: str | None) -> str | None:
        found = self.tokens.get((authorization or "").removeprefix("Bearer "))
        return found.user if found else None

    def identify(self, authorization: str | None) -> Token | None:
        if authorization is None:
            return None
        found = self.tokens.get(authorization.removeprefix("Bearer "))
        if found is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return found

    def belongs(self, token: Token | None, namespace: str) -> bool:
        return token is not None and (namespace == token.user or namespace in self.orgs[token.user])


class Blobs:
    """Contents by SHA-256, never in memory as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.root / sha256

    def add(self, chunks: Iterable[bytes], expected: str | None = None) -> tuple[str, int]:
        """SHA-256 and size. Nothing stays where the chunks break off or are not the expected ones."""
        digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self.root, prefix="incoming-")
        try:
            with open(handle, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                size = file.tell()
            found = digest.hexdigest()
            if expected not in (None, found):
                raise Refusal(400, f"The content's SHA-256 is {found}, not {expected}")
            os.replace(name, self.path(found))
        finally:
            Path(name).unlink(missing_ok=True)
        return found, size


@dataclass(frozen=True)
class File:
    sha256: str  # of the content, which is the name of its blob
    size: int  # bytes
    oid: str  # git's name of the blob: of the pointer, where the content is in LFS
    is_lfs: bool
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.oid


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_file(sha256: str, size: int) -> File:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return File(sha256, size, git_oid(pointer), is_lfs=True, pointer_size=len(pointer))


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    message: str
    author: str
    date: str
    parent: str | None
    files: dict[str, File]  # by path


@dataclass
class Repo:
    id: str
    type: str  # "dataset", "model" or "space"
    blobs: Blobs
    private: bool = False
    gated: str | bool = False  # "auto", "manual" or False
    accepted: set[str] = field(default_factory=set)  # users whom a gated repository lets in
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    by_sha: dict[str, Commit] = field(default_factory=dict)
    lfs: dict[str, int] = field(default_factory=dict)  # sizes of what was uploaded, committed or not
    parts: dict[str, dict[int, str]] = field(default_factory=dict)  # of files that come in several

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    @property
    def commits(self) -> list[Commit]:
        """Of `main`, newest first."""
        return list(self.history("main"))

    def history(self, revision: str) -> Iterator[Commit]:
        commit: Commit | None = self.at(revision)
        while commit is not None:
            yield commit
            commit = self.by_sha[commit.parent] if commit.parent else None

    def at(self, revision: str) -> Commit:
        revision = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.by_sha:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.by_sha[sha]

    def file(self, revision: str, path: str) -> File:
        commit = self.at(revision)
        if path not in commit.files:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.headers["X-Repo-Commit"] = commit.sha
            raise refusal
        return commit.files[path]

    def read(self, path: str, revision: str = "main") -> bytes:
        return self.blobs.path(self.file(revision, path).sha256).read_bytes()

    def takes_as_lfs(self, revision: str, path: str, size: int, sample: bytes) -> bool:
        rules = self.read(".gitattributes", revision) if ".gitattributes" in self.at(revision).files else b""
        patterns = [line.split()[0] for line in rules.decode().splitlines() if "filter=lfs" in line]
        name = path.rpartition("/")[2]
        by_name = any(fnmatch.fnmatch(path if "/" in pattern else name, pattern) for pattern in patterns)
        return by_name or size > REGULAR_LIMIT or b"\0" in sample

    def commit(self, branch: str, author: str, header: dict[str, Any], operations: list[dict[str, Any]]) -> Commit:
        """All of the operations or none of them: the branch moves last."""
        if branch not in self.branches and self.by_sha:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.branches.get(branch)
        if header.get("parentCommit") not in (None, head):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.by_sha[head].files) if head else {}
        for operation in operations:
            self._apply(files, operation["key"], operation["value"])
        sha = hashlib.sha1(repr((self.id, self.type, head, len(self.by_sha), sorted(files.items()))).encode())
        commit = Commit(
            sha=sha.hexdigest(),
            title=header["summary"],
            message=header.get("description", ""),
            author=author,
            date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            parent=head,
            files=dict(sorted(files.items())),
        )
        self.by_sha[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit

    def _apply(self, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            content = base64.b64decode(value["content"])
            if len(content) > REGULAR_LIMIT:
                raise Refusal(400, f"Your push was rejected because it contains files larger than 10 MiB: {path}")
            sha256, size = self.blobs.add([content])
            files[path] = File(sha256, size, git_oid(content), is_lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in self.lfs:
                raise Refusal(400, f"Your push was rejected because an LFS pointer has no file: {path}")
            files[path] = lfs_file(value["oid"], self.lfs[value["oid"]])
        elif key == "deletedFile":
            if path not in files:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            del files[path]
        elif key == "deletedFolder":
            inside = [name for name in files if name.startswith(f"{path.rstrip('/')}/")]
            if not inside:
                raise Refusal(404, "A folder with this name doesn't exist", "EntryNotFound")
            for name in inside:
                del files[name]
        else:
            raise Refusal(400, f"Unknown operation {key}")
