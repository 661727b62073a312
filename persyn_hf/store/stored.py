"""A stored artifact: its address, its place on the disk, and the check of every file of it."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from persyn_hf.contract import ModelSchema
from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.recipe.roles import NAME
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.disk import file_digest
from persyn_hf.store.manifest import MANIFEST, Manifest, is_card, remedy


COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r"v?\d+([.-]\d+)*")
_FOLDER = re.compile(r"(datasets|models)--(.+?)--(.+)")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An artifact in a store or in the cache of the Hub."""

    repo: str  # NAMESPACE/NAME
    kind: str
    tag: str  # `main` where it was asked for without a tag and has none
    digest: str
    path: Path  # snapshot folder, <repository>/snapshots/<commit>
    manifest: Manifest

    @property
    def ref(self) -> str:
        """The reference of the artifact, NAMESPACE/NAME@TAG."""
        return f"{self.repo}@{self.tag}"

    @property
    def ref_file(self) -> Path:
        """The file that gives the tag its commit."""
        return self.path.parent.parent / "refs" / self.tag

    def check(self, as_written: bool = True) -> None:
        """Read every file of the artifact and compare it with the digests of its manifest.

        Args:
            as_written: whether this store wrote it. False: the Hub did, whose commits and blobs have other names
                and where card and manifest may have been edited; only the content is checked then.

        Raises:
            DamagedArtifact: names the file, the digest found and the one needed.
        """
        if as_written:
            self._check_file(MANIFEST, blob_name(self.path / MANIFEST))
        computed = self.manifest.content_digest()
        if self.digest != computed or (as_written and self.path.name != self.manifest.commit):
            raise DamagedArtifact(
                f"{self.ref}: {MANIFEST} gives digest {self.digest} and the commit is {self.path.name}, needed is "
                f"{computed} by the content; {self._remedy(as_written)}"
            )
        for name, needed in self.manifest.files.items():
            if as_written or not is_card(name):
                self._check_file(name, needed, linked=as_written)
        for path in sorted(self.path.rglob("*")) if as_written else ():
            name = path.relative_to(self.path).as_posix()
            if not path.is_dir() and name not in (MANIFEST, *self.manifest.files):
                raise DamagedArtifact(f"{self.ref}: the file {name} is not in its {MANIFEST}; remove {path}")

    def _remedy(self, as_written: bool) -> str:
        """Return what to do about a damaged file, by whether this store wrote it."""
        if not as_written:
            return f"delete {self.path.parent.parent} to fetch it anew, and ask its publisher if it is the same then"
        return remedy(self.ref, str(self.ref_file))

    def _check_file(self, name: str, needed: str, linked: bool = True) -> None:
        """Raise `DamagedArtifact` where a file has another digest or, if `linked`, is no link to its blob."""
        path = self.path / name
        digest = file_digest(path) if path.is_file() else "no file"
        if digest == needed and linked and blob_name(path) != needed:
            digest = f"a link to {blob_name(path) or 'nothing'}"
        if digest != needed:
            raise DamagedArtifact(
                f"{self.ref}: {name} is damaged, found {digest}, needed {needed or 'a link to a blob'} ({path}); "
                f"{self._remedy(linked)}"
            )


def blob_name(path: Path) -> str:
    """Return the blob that a file of a snapshot links to, which is named by its sha256; "" for what is no link."""
    return path.readlink().name if path.is_symlink() else ""


def split_ref(ref: str) -> tuple[str, str]:
    """Split "NAMESPACE/NAME@TAG" into ("NAMESPACE/NAME", "TAG"); without a tag it is `main`.

    Raises:
        StoreError: the tag is none that could be.
    """
    repo, _, tag = ref.partition("@")
    if not NAME.fullmatch(tag or "main"):
        raise StoreError(f"`{ref}` names no artifact; needed is NAMESPACE/NAME or NAMESPACE/NAME@TAG")
    return repo, tag or "main"


def meant(ref: str, artifacts: Iterable[Stored], kind: str | None = None) -> str:
    """Return ", did you mean REF?" with the artifact, of the kind that is needed, that is most like one; else ""."""
    close = difflib.get_close_matches(ref, [item.ref for item in artifacts if kind in (None, item.kind)], n=1)
    return f", did you mean {close[0]}?" if close else ""


def repo_folder(repo: str, kind: str) -> str:
    """Return the name of a repository's folder in a Hugging Face cache: `datasets--NAMESPACE--NAME`.

    Raises:
        StoreError: the repository or the kind has no possible name.
    """
    namespace, _, name = repo.partition("/")
    if not (NAME.fullmatch(namespace) and NAME.fullmatch(name)) or "--" in repo or ".." in repo or len(repo) > 96:
        raise StoreError(
            f"`{repo}` cannot name an artifact; needed is NAMESPACE/NAME of letters, digits, `.`, `_` and `-` "
            "(no `--`, no `..`), together at most 96 characters"
        )
    if kind not in SCHEMAS:
        raise StoreError(f"`{kind}` is no kind of artifact; known are {', '.join(SCHEMAS)}")
    return f"{repo_type(kind)}s--{namespace}--{name}"


def repo_type(kind: str) -> str:
    """Return what the Hub calls the type of repository that holds a kind of artifact: `dataset` or `model`."""
    return "model" if isinstance(SCHEMAS[kind], ModelSchema) else "dataset"


def repo_of(folder: str) -> tuple[str, str] | None:
    """Return a repository and one kind of its type, from the name of its folder; None for other folders."""
    match = _FOLDER.fullmatch(folder)
    return (f"{match[2]}/{match[3]}", TYPE_KINDS[match[1]]) if match else None


TYPE_KINDS = {"datasets": "prompts", "models": "router"}  # any one kind of each repository type


def tag_order(tag: str) -> list[tuple[int, str]]:
    """Return the sort key of a tag that puts v2 before v10."""
    return [(len(part), part) for part in re.split(r"(\d+)", tag)]


def is_older(tag: str, than: str) -> bool:
    """Tell whether both tags are versions and the first is the lower: v2 before v10. Other tags have no order."""
    if not (_VERSION.fullmatch(tag) and _VERSION.fullmatch(than)):
        return False
    first, second = ([int(number) for number in re.findall(r"\d+", name)] for name in (tag, than))
    return first < second


def next_tag(tags: list[str]) -> str:
    """Return the next free tag of v1, v2, ..."""
    numbers = [int(tag[1:]) for tag in tags if re.fullmatch(r"v\d+", tag)]
    return f"v{max(numbers, default=0) + 1}"
