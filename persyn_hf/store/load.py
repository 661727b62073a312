"""Load an artifact by its reference, from the store or from the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.contract import ModelSchema
from persyn_hf.errors import StoreError
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def load_artifact(
    ref: str, config: str | None = None, split: str | None = None, store: Store | str | Path | None = None
) -> "Dataset | DatasetDict | str":
    """Load "NAMESPACE/NAME@TAG" from the store or, where it is not there, from the Hub.

    Args:
        ref: NAMESPACE/NAME@TAG; without a tag, the newest of the store.
        config: one config (a teacher, a task); null: all of them together.
        split: one split; null: all of them, as a `DatasetDict`.
        store: a store or its root; null: `PERSYN_STORE`, else `./artifacts`.

    Returns:
        A `Dataset` where `split` is given, else a `DatasetDict`; for a model the path of its folder.

    Raises:
        StoreError: neither holds it, or it has no such config or split.
        DamagedArtifact: a file does not match its digest.
    """
    from datasets import DatasetDict

    store = store if isinstance(store, Store) else Store(store)
    stored = open_checked(ref, store)
    if isinstance(SCHEMAS[stored.kind], ModelSchema):
        return str(stored.path)
    rows = stored.manifest.rows
    if split is not None or config not in (None, *rows):
        return store.read_dataset(stored, config, split)
    splits = sorted({name for key, parts in rows.items() if config in (None, key) for name in parts})
    return DatasetDict({name: store.read_dataset(stored, config, name) for name in splits})


def open_checked(ref: str, store: Store, kind: str | None = None) -> Stored:
    """Open an artifact of the store or, where it is not there, of the Hub, and check its files.

    `kind` is what is needed, by which the error says what may be meant.

    Raises:
        StoreError: neither holds it.
        DamagedArtifact: a file does not match its digest.
    """
    from persyn_hf.store.lineage import open_artifact

    if not isinstance(ref, str):
        raise StoreError(f"`ref` must be NAMESPACE/NAME@TAG, got {type(ref).__name__}")
    here = store.has(ref)
    stored = open_artifact(store, ref, kind=kind)
    stored.check(as_written=here)
    return stored
