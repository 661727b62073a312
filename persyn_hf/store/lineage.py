"""Where an artifact comes from: the chain of its inputs back to the prompts, shown or checked file by file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Input
from persyn_hf.store.stored import Stored


@dataclass(frozen=True, kw_only=True)
class Checked:
    """An artifact found whole: every file, its digest, its refs and its links to its inputs."""

    ref: str
    kind: str
    digest: str
    files: int


@dataclass(frozen=True, kw_only=True)
class Node:
    """An artifact and what it was made from."""

    ref: str
    kind: str
    digest: str
    counts: Mapping[str, int]
    cost: Mapping[str, Any]
    inputs: "tuple[Node, ...]" = ()
    keyword: str = ""  # what the stage that read it calls it; "" at the root


def verify(store: Store, ref: str) -> list[Checked]:
    """Check an artifact and everything it was made from; each artifact once, the one asked for first.

    Raises:
        DamagedArtifact: the first broken link: names the artifact, the file, the digest found and the one needed.
        StoreError: `ref` itself is not in the store.
    """
    waiting = [store.get(ref)]
    checked: dict[str, Checked] = {}
    while waiting:
        stored = waiting.pop(0)
        if stored.ref in checked:
            continue
        stored.check()
        _check_refs(store, stored)
        waiting += [_input(store, stored, keyword, item) for keyword, item in stored.manifest.inputs.items()]
        checked[stored.ref] = Checked(
            ref=stored.ref, kind=stored.kind, digest=stored.digest, files=len(stored.manifest.files) + 1
        )
    return list(checked.values())


def tree(store: Store, ref: str) -> Node:
    """The artifact with its inputs, their inputs and so on; nothing but the manifests is read.

    Raises:
        DamagedArtifact: an input is missing or holds other content than was read.
    """
    made: dict[tuple[str, str], Node] = {}

    def node(stored: Stored, keyword: str) -> Node:
        if (stored.ref, keyword) not in made:
            manifest = stored.manifest
            made[stored.ref, keyword] = Node(
                ref=stored.ref,
                kind=stored.kind,
                digest=stored.digest,
                counts=manifest.counts,
                cost=manifest.cost,
                inputs=tuple(node(_input(store, stored, word, item), word) for word, item in manifest.inputs.items()),
                keyword=keyword,
            )
        return made[stored.ref, keyword]

    return node(store.get(ref), "")


def _input(store: Store, stored: Stored, keyword: str, item: Input) -> Stored:
    try:
        found = store.get(item.ref)
    except DamagedArtifact:
        raise
    except StoreError:
        raise DamagedArtifact(
            f"{stored.ref}: its input `{keyword}`, {item.ref} with digest {item.digest}, is not in the store "
            f"{store.root}; copy its folder there from the store that made it, or run its recipe again"
        ) from None
    if found.digest != item.digest:
        found.check()  # a damaged manifest is named as such, not as another artifact
        raise DamagedArtifact(
            f"{stored.ref}: its input `{keyword}`, {item.ref}, has digest {found.digest}, needed {item.digest}; "
            f"restore {found.ref_file} or make {stored.ref} anew"
        )
    return found


def _check_refs(store: Store, stored: Stored) -> None:
    """Every tag of the repository, and `main`, must name a commit that is there."""
    snapshots = stored.path.parent
    for name, commit in store.refs(stored.repo, stored.kind).items():
        if commit not in [folder.name for folder in snapshots.iterdir()]:
            raise DamagedArtifact(
                f"{stored.repo}@{name}: the file refs/{name} holds {commit[:80]!r}, needed is the name of a folder in "
                f"{snapshots}; restore it (its artifact's digest begins with its commit) or delete it"
            )
