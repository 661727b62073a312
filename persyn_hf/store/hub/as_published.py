"""An artifact as it is to be on the Hub: in what namespace, and with what card."""

import hashlib
from dataclasses import dataclass

from persyn_hf.errors import StoreError
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import CARD, Input, Manifest
from persyn_hf.store.stored import Stored


@dataclass(frozen=True, kw_only=True)
class PublicArtifact:
    """An artifact as it is to be on the Hub."""

    stored: Stored
    manifest: Manifest  # its digest of the card is that of `card`, what others wrote into it apart
    card: str
    evaluated: bool  # the card shows evaluations of a student

    @property
    def repo(self) -> str:
        return self.manifest.repo

    @property
    def ref(self) -> str:
        return f"{self.repo}@{self.stored.tag}"


def public_artifact(store: Store, stored: Stored, namespace: str | None) -> PublicArtifact:
    """Rename what is of the artifact's own namespace; neither refs nor card are part of the content digest."""
    own = stored.repo.partition("/")[0]

    def renamed(manifest: Manifest) -> Manifest:
        def moved(ref: str) -> str:
            return f"{namespace or own}/{ref.partition('/')[2]}" if ref.partition("/")[0] == own else ref

        refs = {word: moved(input_ref(store, stored, item)) for word, item in manifest.inputs.items()}
        inputs = {word: item.model_copy(update={"ref": refs[word]}) for word, item in manifest.inputs.items()}
        return manifest.model_copy(update={"repo": moved(manifest.repo), "inputs": inputs})

    manifest = renamed(stored.manifest)
    if stored.tag == "main":
        raise StoreError(f"{stored.ref} has no tag, and only tags are published; name one of `persyn artifacts ls`")
    evaluations = [renamed(item) for item in _evaluations(store, stored)]
    draft = manifest.model_copy(update={"files": {name: of for name, of in manifest.files.items() if name != CARD}})
    card = render_card(draft, stored.tag, evaluations)
    files = {**draft.files, CARD: hashlib.sha256(card.encode()).hexdigest()}
    manifest = manifest.model_copy(update={"files": files})
    return PublicArtifact(stored=stored, manifest=manifest, card=card, evaluated=bool(evaluations))


def input_ref(store: Store, stored: Stored, item: Input) -> str:
    """The name of an input beside an artifact: of all its tags the artifact's own, as one `version` gives both."""
    repo = item.ref.partition("@")[0]
    ref = f"{repo}@{stored.tag}"
    is_own = repo.partition("/")[0] == stored.repo.partition("/")[0]
    return ref if is_own and store.has(ref) and store.get(ref).digest == item.digest else item.ref


def _evaluations(store: Store, stored: Stored) -> list[Manifest]:
    """What the store knows of how well a student does."""
    if stored.kind != "student":
        return []
    found = {item.digest: item.manifest for item in store.artifacts() if item.kind == "evaluation"}
    return [m for m in found.values() if any(item.digest == stored.digest for item in m.inputs.values())]
