"""The artifacts that the Space shows: opened by reference, and which of them belong together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from persyn_hf.contract import ModelSchema
from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import nearest, read_section
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.disk import file_digest
from persyn_hf.store.lineage import open_artifact
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import MANIFEST, is_card, read_manifest
from persyn_hf.store.stored import Stored, tag_order


RELATED = ("prompts", "rewards", "responses", "router")  # kinds that tell more of an assignment
# Files of a router that is some arrays: a prompt can be tried on it. Others hold language models, or encoders.
LIGHT = {"router.json", "vocabulary.json", "tfidf.safetensors", "head.safetensors"}
READ = ("assignments", "prompts", "rewards", "responses")  # kinds of which rows are shown


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A set of artifacts by reference. `missing`: inputs that are neither here nor to be had, with the reason."""

    items: Mapping[str, Stored]
    missing: Mapping[str, str] = field(default_factory=dict)
    fetched: frozenset[str] = frozenset()  # the references of what came from the Hub

    @property
    def assignments(self) -> list[Stored]:
        """The assignments that choose; `all`, which sends every prompt to every teacher, is left out."""
        assignments = [item for item in self.items.values() if item.kind == "assignments"]
        return [item for item in assignments if item.manifest.settings.get("kind") != "all"]

    def get(self, ref: str) -> Stored:
        """Return an artifact by its reference.

        Raises:
            StoreError: it is not among those that are shown.
        """
        if ref not in self.items:
            refs = [item.ref for item in self.assignments]
            raise StoreError(f"`{ref}` is not shown here{nearest(ref, refs)}; choose one of the list")
        return self.items[ref]

    def input(self, stored: Stored, keyword: str) -> Stored | None:
        """Return what an artifact was made from, by keyword; None unless it is here with the content that was read."""
        named = stored.manifest.inputs.get(keyword)
        item = self.items.get(named.ref) if named else None
        return item if item and named and item.digest == named.digest else None

    def same_prompts(self, one: Stored, other: Stored) -> bool:
        """Tell whether two assignments are about the same prompts."""
        named = [item.manifest.inputs.get("prompts") for item in (one, other)]
        return named[0] is not None and named[1] is not None and named[0].digest == named[1].digest

    def rewards(self, assignment: Stored) -> list[Stored]:
        """Return rewards for the student of an assignment under one setting, first those that it was decided by."""
        own = [item for word in ("rewards", "pool_rewards") if (item := self.input(assignment, word))]
        others = [item for item in self._beside(assignment, "rewards") if _student(item) == _student(assignment)]
        candidates = list({item.ref: item for item in [*own, *others]}.values())
        return [item for item in candidates if item.manifest.settings == candidates[0].manifest.settings]

    def responses(self, assignment: Stored) -> list[Stored]:
        """Return answers to the prompts of an assignment, first those that were generated for it."""
        candidates = list(self._beside(assignment, "responses"))
        return sorted(candidates, key=lambda item: not self.answers(item, assignment))

    def answers(self, responses: Stored, assignment: Stored) -> bool:
        """Tell whether responses were generated for an assignment.

        The name counts, too: two strategies may choose alike, and then one of them asks further teachers.
        """
        named = responses.manifest.inputs.get("assignments")
        return named is not None and (named.ref, named.digest) == (assignment.ref, assignment.digest)

    def _beside(self, assignment: Stored, kind: str) -> Iterator[Stored]:
        """Yield the artifacts of a kind that are about the same prompts, newest first."""
        prompts = assignment.manifest.inputs.get("prompts")
        of_kind = [item for item in self.items.values() if item.kind == kind]
        for item in sorted(of_kind, key=lambda item: item.manifest.created_at, reverse=True):
            named = item.manifest.inputs.get("prompts")
            if prompts is not None and named is not None and named.digest == prompts.digest:
                yield item


def teachers_of(stored: Stored) -> list[Teacher]:
    """Return the pool of an artifact in the order of every list of scores."""
    fields = Teacher.model_fields.keys()
    lines = ({key: value for key, value in line.items() if key in fields} for line in stored.manifest.teachers)
    return [read_section(Teacher, line, f"{stored.ref}: teachers") for line in lines]


def asks_several(assignment: Stored) -> bool:
    """Tell whether a prompt may have several rows, one for each teacher that is asked."""
    return bool(assignment.manifest.settings.get("per_prompt", 1) != 1)


def open_shelf(refs: Sequence[str], store: Store) -> Shelf:
    """Open artifacts by reference, with all that they were made from, of the store or, pinned by a tag, of the Hub.

    Without references it is everything that the store holds, the newest version of each repository first. What else
    the store knows about the same prompts is shown, too: answers and rewards are made after an assignment.

    Every file whose rows are shown is read against its digest here, once. Of other artifacts, such as models, only the
    manifest is checked.

    Raises:
        StoreError: an artifact is nowhere, or no assignment is among them.
        DamagedArtifact: a file is not what its manifest says.
    """
    items: dict[str, Stored] = {}
    missing: dict[str, str] = {}
    here = sorted(store.artifacts(), key=lambda item: tag_order(item.tag), reverse=True)
    here.sort(key=lambda item: item.repo)
    waiting = list(refs) or [item.ref for item in here]
    asked = set(waiting)
    while waiting:
        ref = waiting.pop(0)
        if ref in items or ref in missing:
            continue
        try:
            stored = _open(store, ref)
        except StoreError as error:
            if ref in asked:
                raise
            missing[ref] = str(error)
            continue
        items[stored.ref] = stored
        waiting += [item.ref for item in stored.manifest.inputs.values()]
    prompts = {item.digest for item in items.values() if item.kind == "prompts"}
    for item in here if refs else ():
        named = item.manifest.inputs.get("prompts")
        if item.kind in RELATED and named is not None and named.digest in prompts:
            items.setdefault(item.ref, item)
    _check_files(items.values(), store)
    fetched = frozenset(item.ref for item in items.values() if not item.path.is_relative_to(store.root))
    shelf = Shelf(items=items, missing=missing, fetched=fetched)
    return _checked(shelf, f"the store {store.root}" if not refs else ", ".join(refs))


def open_folder(folder: Path) -> Shelf:
    """Open artifacts that lie as plain files in `folder/NAME/TAG`, each with its manifest: the bundled example.

    Raises:
        StoreError: no assignment is among them.
        DamagedArtifact: a file is not what its manifest says.
    """
    items = []
    for path in sorted(folder.rglob(MANIFEST)):
        manifest = read_manifest(path.parent, str(path.parent))
        kind, digest, tag = manifest.kind, manifest.digest, path.parent.name
        wrong = [path] if digest != manifest.content_digest() else []
        rows = [(path.parent / name, needed) for name, needed in manifest.files.items() if not is_card(name)]
        wrong += [file for file, needed in rows if kind in READ and not _is(file, needed)]
        if wrong:
            raise DamagedArtifact(f"{wrong[0]} is missing or was changed since it was made; copy {folder} anew")
        items.append(
            Stored(repo=manifest.repo, kind=kind, tag=tag, digest=digest, path=path.parent, manifest=manifest)
        )
    return _checked(Shelf(items={item.ref: item for item in items}), str(folder))


def _open(store: Store, ref: str) -> Stored:
    """Return an artifact of the store or the Hub; of a model the manifest alone, unless it is a light router."""
    if store.has(ref):
        return store.get(ref)
    if "@" not in ref:
        raise StoreError(
            f"{ref} is not in the store {store.root}, and what the Hub holds changes; name a tag: {ref}@v1"
        )
    stored = open_artifact(store, ref, whole=False)
    files = {name for name in stored.manifest.files if not is_card(name)}
    manifest_will_do = isinstance(SCHEMAS[stored.kind], ModelSchema) and not files <= LIGHT
    return stored if manifest_will_do else open_artifact(store, ref)


def _is(file: Path, digest: str) -> bool:
    """Tell whether a file is there with a digest."""
    return file.is_file() and file_digest(file) == digest


def _check_files(items: Iterable[Stored], store: Store) -> None:
    """Check artifacts, several at a time: the scores of a million prompts alone are half a gigabyte."""

    def check(stored: Stored) -> None:
        """Check every file of an artifact whose rows are shown, and the manifest alone of any other."""
        needed = stored.manifest.content_digest()
        if stored.kind in READ:
            stored.check(as_written=stored.path.is_relative_to(store.root))
        elif stored.digest != needed:
            raise DamagedArtifact(
                f"{stored.ref}: its {MANIFEST} gives digest {stored.digest}, needed is {needed} by what else it says; "
                f"see what is wrong with persyn artifacts verify {stored.ref}"
            )

    with ThreadPoolExecutor() as pool:
        list(pool.map(check, items))


def _checked(shelf: Shelf, where: str) -> Shelf:
    """Return the shelf, or raise a `StoreError` where it holds no assignment."""
    if not shelf.assignments:
        raise StoreError(
            f"{where} holds no assignments, at least one is needed; make some with `persyn run RECIPE`, or name one "
            "of the Hub: NAMESPACE/NAME@TAG"
        )
    return shelf


def _student(stored: Stored) -> object:
    """Return the name of the student that an artifact is about, None where it is about none."""
    return (stored.manifest.student or {}).get("name")
