"""Artifacts as they are to be on the Hub: in which namespace, and with which card."""

import hashlib
from dataclasses import dataclass

from persyn_hf.errors import StoreError
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import CARD, Input, Manifest
from persyn_hf.store.stored import Stored


@dataclass(frozen=True, kw_only=True)
class PublicArtifact:
    """An artifact as it is to be on the Hub, with its manifest and card for there."""

    stored: Stored
    manifest: Manifest  # its digest of the card is that of `card`, what others wrote into it apart
    card: str
    evaluated: bool  # the card shows evaluations of a student

    @property
    def repo(self) -> str:
        return self.manifest.repo

    @property
    def ref(self) -> str:
        """The reference of the artifact on the Hub, NAMESPACE/NAME@TAG."""
        return f"{self.repo}@{self.stored.tag}"


def public_artifact(store: Store, stored: Stored, namespace: str | None) -> PublicArtifact:
    """Return an artifact of the store as it is to be on the Hub, renamed to a namespace, with its card written anew.

    The artifact and its inputs change their namespace where it is the artifact's own: me/student made from me/sft and
    org/prompts becomes alice/student made from alice/sft and org/prompts. Neither references nor the card are part of
    the content digest, which stays.

    Args:
        namespace: user or organisation on the Hub; null: the artifact's own.

    Raises:
        StoreError: the artifact has no tag.
    """
    own = stored.repo.partition("/")[0]

    def renamed(manifest: Manifest) -> Manifest:
        """Return a manifest with its repository and inputs in the new namespace."""

        def moved(ref: str) -> str:
            """Return a reference in the new namespace, where it is in the artifact's own."""
            return f"{namespace or own}/{ref.partition('/')[2]}" if ref.partition("/")[0] == own else ref

        refs = {word: moved(input_ref(store, stored, item)) for word, item in manifest.inputs.items()}
        inputs = {word: item.model_copy(update={"ref": refs[word]}) for word, item in manifest.inputs.items()}
        return manifest.model_copy(update={"repo": moved(manifest.repo), "inputs": inputs})

    manifest = renamed(stored.manifest)
    if stored.tag == "main":
        raise StoreError(f"{stored.ref} has no tag, and only tags are published; name one of `persyn artifacts ls`")
    evaluations = [renamed(item) for item in _evaluations(store, stored)]
    files = {name: digest for name, digest in manifest.files.items() if name != CARD}
    draft = manifest.model_copy(update={"files": files})
    card = render_card(draft, stored.tag, evaluations)
    files = {**files, CARD: hashlib.sha256(card.encode()).hexdigest()}
    manifest = manifest.model_copy(update={"files": files})
    return PublicArtifact(stored=stored, manifest=manifest, card=card, evaluated=bool(evaluations))


def input_ref(store: Store, stored: Stored, item: Input) -> str:
    """Return the reference by which the published manifest names an input.

    One content may have several tags. The artifact's own tag is taken where it names the same content, because one
    `version` of a recipe gives all its artifacts one tag. Else the name stays that the manifest holds.
    """
    repo = item.ref.partition("@")[0]
    ref = f"{repo}@{stored.tag}"
    is_own = repo.partition("/")[0] == stored.repo.partition("/")[0]
    return ref if is_own and store.has(ref) and store.get(ref).digest == item.digest else item.ref


def _evaluations(store: Store, stored: Stored) -> list[Manifest]:
    """Return the manifests of a student's evaluations in the store, each content once; none for other kinds."""
    if stored.kind != "student":
        return []
    evaluations = {item.digest: item.manifest for item in store.artifacts() if item.kind == "evaluation"}
    return [m for m in evaluations.values() if any(item.digest == stored.digest for item in m.inputs.values())]
