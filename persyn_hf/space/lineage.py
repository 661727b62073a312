"""The origin of an artifact: its versions, its inputs back to the prompts, its card as text."""

from dataclasses import dataclass, replace

from persyn_hf.contract import ModelSchema
from persyn_hf.report.show import Branch, drawing
from persyn_hf.schemas import SCHEMAS
from persyn_hf.space.collection import Shelf
from persyn_hf.store.cards.markdown import HUB
from persyn_hf.store.lineage import Node
from persyn_hf.store.manifest import CARD
from persyn_hf.store.stored import Stored


LONGEST = 40_000  # characters of a card


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of an artifact. `absent`: inputs that are not here as they were read, by reference, and why."""

    stored: Stored
    versions: list[Stored]
    chain: Branch
    absent: dict[str, str]
    card: str


def origin(shelf: Shelf, stored: Stored) -> Origin:
    """Return where an artifact of a shelf comes from, as far as the shelf holds it."""
    absent: dict[str, str] = {}
    chain = drawing(_node(shelf, stored, absent))
    path = stored.path / CARD
    card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    versions = [item for item in shelf.items.values() if (item.repo, item.kind) == (stored.repo, stored.kind)]
    return Origin(stored=stored, versions=versions, chain=chain, absent=absent, card=card[:LONGEST])


def _node(shelf: Shelf, stored: Stored, absent: dict[str, str], keyword: str = "") -> Node:
    """Return the node of an artifact; inputs that are not here are noted in `absent`."""
    inputs = []
    for word, item in stored.manifest.inputs.items():
        source = shelf.input(stored, word)
        if source is not None:
            inputs.append(_node(shelf, source, absent, word))
        elif item.ref in shelf.items:
            absent[item.ref] = f"what is here under this name has digest {shelf.items[item.ref].digest[:12]}"
        else:
            absent[item.ref] = shelf.missing.get(item.ref, "it is not among the artifacts that are shown")
    return replace(Node.of(stored, inputs, on_hub=stored.ref in shelf.fetched), keyword=keyword)


def hub_address(ref: str, kind: str) -> str:
    """Return where an artifact is on the Hub, if it was published under its name."""
    repo, _, tag = ref.partition("@")
    return f"{HUB}{'' if isinstance(SCHEMAS[kind], ModelSchema) else 'datasets/'}{repo}/tree/{tag}"
