"""Follow an artifact back to the prompts by the inputs in its manifest, to show the chain or to check every file.

Each artifact is looked for in the store first, then on the Hub. To show a chain only manifests are fetched. To check
it every file is fetched and its digest computed here: what a server says of its files does not count.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.hub.read import download, download_manifest
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import MANIFEST, Input, is_card
from persyn_hf.store.stored import Stored


HARMLESS = ("", ".md", ".png", ".jpg", ".jpeg", ".svg", ".gif", ".pdf")  # endings of files that nobody loads as data

DEEPEST = 200  # steps of a chain; that of a student has ten


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The report on an artifact that was found whole: every file, its digest, its refs and its links to its inputs."""

    ref: str
    kind: str
    digest: str
    files: int
    on_hub: bool


@dataclass(frozen=True, kw_only=True)
class Node:
    """An artifact of a chain, with the nodes of what it was made from."""

    ref: str
    kind: str
    digest: str
    counts: Mapping[str, int]
    cost: Mapping[str, Any]
    licences: Mapping[str, str | None]
    on_hub: bool
    inputs: "tuple[Node, ...]" = ()
    keyword: str = ""  # what the stage that read it calls it; "" at the root

    @classmethod
    def of(cls, stored: Stored, inputs: "Iterable[Node]", on_hub: bool) -> "Node":
        """Return the node of a stored artifact, without a keyword, above the nodes of its inputs."""
        manifest = stored.manifest
        return cls(
            ref=stored.ref,
            kind=stored.kind,
            digest=stored.digest,
            counts=manifest.counts,
            cost=manifest.cost,
            licences=manifest.licences,
            on_hub=on_hub,
            inputs=tuple(inputs),
        )


def verify(store: Store, ref: str) -> list[Checked]:
    """Check an artifact and everything it was made from; return a report on each, once, the one asked for first.

    An example: me/student@v1 was made from me/sft@v1, and its manifest notes that this had the digest 9c04...

    - Every file of me/student@v1 is read and compared with the digest in its manifest; a changed file is named.
    - Every tag of the repository must name a commit that is there.
    - me/sft@v1 is opened. Where its digest is 9c04..., the link holds, and me/sft@v1 is checked in the same way.
    - Where its digest is another one, the student was made from something else than the artifact that is there now.
      Where that artifact is damaged itself, the damage is named instead.

    Raises:
        DamagedArtifact: the first broken link: names the artifact, the file, the digest found and the one needed.
        StoreError: `ref` itself is neither in the store nor on the Hub.
    """
    waiting = [open_artifact(store, ref)]
    checked: dict[str, Checked] = {}
    while waiting:
        stored = waiting.pop(0)
        if stored.ref in checked:
            continue
        here = _is_here(store, stored)
        stored.check(as_written=here)
        if here:
            _check_refs(store, stored)
        else:
            _check_strays(stored)
        for keyword, item in stored.manifest.inputs.items():
            with _telling_missing(stored.ref, keyword, item):
                source = open_artifact(store, item.ref)
            if source.digest != item.digest and _is_here(store, source):
                source.check()  # a damaged manifest is named as such, not as another artifact
            _check_link(stored.ref, keyword, item, source.digest, _is_here(store, source))
            waiting.append(source)
        checked[stored.ref] = Checked(
            ref=stored.ref,
            kind=stored.kind,
            digest=stored.digest,
            files=len(stored.manifest.files) + 1,
            on_hub=not here,
        )
    return list(checked.values())


def tree(store: Store, ref: str) -> Node:
    """Return the artifact with its inputs, their inputs and so on; nothing but the manifests is read.

    Raises:
        DamagedArtifact: an input is missing, holds other content than was read, or was made from what it made itself.
        StoreError: `ref` itself is neither in the store nor on the Hub.
    """
    made: dict[str, Node] = {}

    def node(ref: str, above: tuple[str, ...]) -> Node:
        """Return the node of an artifact; each artifact is opened once."""
        check_above(ref, above)
        stored = open_artifact(store, ref, whole=False)
        manifest, here = stored.manifest, _is_here(store, stored)
        if not here and stored.digest != manifest.content_digest():
            raise DamagedArtifact(
                f"{stored.ref} on the Hub: its {MANIFEST} gives digest {stored.digest}, needed is "
                f"{manifest.content_digest()} by what else it says; ask its publisher for one that was not edited"
            )
        inputs = []
        for keyword, item in manifest.inputs.items():
            with _telling_missing(stored.ref, keyword, item):
                source = made.get(item.ref) or node(item.ref, (*above, ref))
            _check_link(stored.ref, keyword, item, source.digest, not source.on_hub)
            inputs.append(replace(source, keyword=keyword))
        made[ref] = Node.of(stored, inputs, on_hub=not here)
        return made[ref]

    return node(ref, ())


def check_above(ref: str, above: Sequence[str]) -> None:
    """Refuse a chain that leads from an artifact back to it, or that has more steps than `DEEPEST`.

    Args:
        above: what the artifact was reached by, the first one first.

    Raises:
        DamagedArtifact: names the chain.
    """
    if ref in above or len(above) > DEEPEST:
        fault = "leads back to it" if ref in above else f"has more than {DEEPEST} steps"
        raise DamagedArtifact(
            f"{ref}: the chain of what it was made from {fault}, which no run makes: "
            f"{' <- '.join([*above[-3:], ref])}; a {MANIFEST} was changed by hand, restore it from a copy"
        )


def open_artifact(store: Store, ref: str, whole: bool = True, kind: str | None = None) -> Stored:
    """Return an artifact of the store or, fetched into the Hugging Face cache and not checked, of the Hub.

    Args:
        whole: whether every file is fetched from the Hub; else its manifest only.
        kind: what is needed, by which the error says what may be meant.

    Raises:
        StoreError: it is neither in the store nor on the Hub.
    """
    if store.has(ref):
        return store.get(ref)
    return download(ref, store, kind) if whole else download_manifest(ref, store, kind)


@contextmanager
def _telling_missing(ref: str, keyword: str, item: Input) -> Iterator[None]:
    """Turn a `StoreError` within into a `DamagedArtifact`: an input that is nowhere breaks the chain."""
    try:
        yield
    except DamagedArtifact:
        raise
    except StoreError as error:
        raise DamagedArtifact(
            f"{ref}: its input `{keyword}` with digest {item.digest} is missing; {error}; "
            "ask for it where it was made, or run its recipe again"
        ) from None


def _check_link(ref: str, keyword: str, item: Input, digest: str, here: bool) -> None:
    """Raise `DamagedArtifact` where an input has another digest than the one that was read."""
    if digest != item.digest:
        remedy = "restore it from a copy" if here else "ask its publisher for the one that was read"
        raise DamagedArtifact(
            f"{ref}: its input `{keyword}`, {item.ref}{'' if here else ' on the Hub'}, has digest {digest}, needed "
            f"{item.digest}; {remedy}, or make {ref} anew"
        )


def _is_here(store: Store, stored: Stored) -> bool:
    """Tell whether an artifact lies in the store, not in the cache of the Hub."""
    return stored.path.is_relative_to(store.root)


def _check_strays(stored: Stored) -> None:
    """Refuse a file on the Hub that the manifest does not list and that would be loaded with the others."""
    for path in sorted(stored.path.rglob("*")):
        name = path.relative_to(stored.path).as_posix()
        expected = path.is_dir() or name == MANIFEST or name in stored.manifest.files or is_card(name)
        if not expected and not name.startswith(".") and path.suffix not in HARMLESS:
            raise DamagedArtifact(
                f"{stored.ref} on the Hub: the file {name} is not in its {MANIFEST}, so nothing says where it comes "
                "from; ask its publisher to remove it"
            )


def _check_refs(store: Store, stored: Stored) -> None:
    """Refuse a tag of the repository, or `main`, that names a commit that is not there."""
    snapshots = stored.path.parent
    for name, commit in store.refs(stored.repo, stored.kind).items():
        if commit not in [folder.name for folder in snapshots.iterdir()]:
            raise DamagedArtifact(
                f"{stored.repo}@{name}: the file refs/{name} holds {commit[:80]!r}, needed is the name of a folder in "
                f"{snapshots}; restore it (its artifact's digest begins with its commit) or delete it"
            )
