"""Training data for other trainers: the rows of an `sft` artifact as JSON lines."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from persyn_hf.errors import StoreError
from persyn_hf.store.disk import out_faults
from persyn_hf.store.local import Store


BATCH = 1000  # rows in memory
INFO = "dataset_info.json"

# The entry by which LLaMA-Factory reads messages in OpenAI's form.
SHAREGPT = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training row in TRL's prompt-completion form."""
    return {"prompt": row["prompt"], "completion": row["completion"]}


def _conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training row as one conversation, OpenAI's messages."""
    return {"messages": [*row["prompt"], *row["completion"]]}


FORMATS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"jsonl": _plain, "llama-factory": _conversation}


def export(store: Store, ref: str, to: str, out: Path) -> list[Path]:
    """Write the rows of an `sft` artifact as JSON lines into a folder, and return the files that were written.

    The form `jsonl` is TRL's prompt-completion form. The form `llama-factory` is a conversation per row and an entry
    of `dataset_info.json`, whose other entries stay. Train that with `mask_history: true`, because the loss is on the
    last answer alone.

    Args:
        ref: NAMESPACE/NAME or NAMESPACE/NAME@TAG.
        to: a key of `FORMATS`.
        out: the folder, which is made where it is not there.

    Raises:
        StoreError: there is no such artifact, it is no `sft`, or the folder cannot be written.
    """
    stored = store.get(ref, kind="sft")
    name = f"{stored.repo.rpartition('/')[2]}-{stored.tag}"
    path = out / f"{name}.jsonl"
    with out_faults(out):
        out.mkdir(parents=True, exist_ok=True)
        info = _read_info(out / INFO) if to == "llama-factory" else {}
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            for batch in store.read_dataset(stored).iter(batch_size=BATCH):
                rows = zip(batch["prompt"], batch["completion"], strict=True)
                made = (FORMATS[to]({"prompt": prompt, "completion": completion}) for prompt, completion in rows)
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        os.replace(part, path)
        if to != "llama-factory":
            return [path]
        part = out / f"{INFO}.part"
        entry = {"file_name": path.name, **SHAREGPT}
        part.write_text(json.dumps(info | {name: entry}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, out / INFO)
    return [path, out / INFO]


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
