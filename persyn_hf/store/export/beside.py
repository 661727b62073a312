"""Write the files by which LLaMA-Factory and ms-swift find rows of messages, as OpenAI has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persyn_hf.errors import StoreError
from persyn_hf.store.export.forms import Beside
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


INFO = "dataset_info.json"
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def llama_factory(*columns: str, ranking: bool = False) -> Callable[[Store, Stored, Path], Beside]:
    """Add an entry to `dataset_info.json`, whose other entries stay.

    Args:
        columns: those that it reads beside `messages`, by LLaMA-Factory's names.
        ranking: whether each row is a pair.
    """
    entry = {"formatting": "sharegpt", "columns": {name: name for name in ("messages", *columns)}, "tags": TAGS}

    def beside(store: Store, stored: Stored, path: Path) -> Beside:
        info = path.with_name(INFO)
        pairs = {"ranking": True} if ranking else {}
        return {info: _read_info(info) | {path.stem: {"file_name": path.name, **pairs, **entry}}}

    return beside


def ms_swift(store: Store, stored: Stored, path: Path) -> Beside:
    """Write the list that `--custom_dataset_info` reads."""
    info: Any = [{"dataset_path": str(path.resolve()), "dataset_name": path.stem}]
    return {path.with_name(f"{path.stem}-info.json"): json.dumps(info, indent=2, ensure_ascii=False) + "\n"}


def _read_info(path: Path) -> dict[str, Any]:
    """Return the `dataset_info.json` that a folder of LLaMA-Factory holds already, empty where there is none."""
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise StoreError(f"{path} must hold a JSON object of datasets, and does not; mend it, or give another folder")
    return info
