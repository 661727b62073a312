"""Training rows of an `sft` artifact, in the forms of TRL, LLaMA-Factory, ms-swift and Axolotl.

The loss is on the last answer alone: earlier answers of a conversation are the prompt's. Each form says so in its
reader's way.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from persyn_hf.errors import StoreError
from persyn_hf.store.export.forms import BATCH, Beside, Form, Row, Wishes, nothing_beside
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


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

# Axolotl reads from each turn whether it is trained on. `turn` trains the end of these turns, too.
AXOLOTL = """\
# Put this into Axolotl's config.
datasets:
  - path: {path}
    ds_type: json
    type: chat_template
    field_messages: messages
    message_field_training: train
    roles_to_train: []
    train_on_eos: turn
"""


def _plain(row: Row) -> Row:
    """Return a training row in TRL's prompt-completion form."""
    return {"prompt": row["prompt"], "completion": row["completion"]}


def _conversation(row: Row) -> Row:
    """Return a training row as one conversation, OpenAI's messages."""
    return {"messages": [*row["prompt"], *row["completion"]]}


def _marked(row: Row) -> Row:
    """Return a training row as a conversation whose turns say whether they are trained on."""
    prompt, completion = ([{**turn, "train": of} for turn in row[part]] for part, of in PARTS)
    return {"messages": [*prompt, *completion]}


PARTS = (("prompt", False), ("completion", True))


def _rows(make: Callable[[Row], Row]) -> Callable[[Store, Stored, Wishes, Counter[str]], Iterator[Row]]:
    def rows(store: Store, stored: Stored, wishes: Wishes, counts: Counter[str]) -> Iterator[Row]:
        for batch in store.read_dataset(stored).iter(batch_size=BATCH):
            for prompt, completion in zip(batch["prompt"], batch["completion"], strict=True):
                yield make({"prompt": prompt, "completion": completion})

    return rows


def _llama_factory(store: Store, stored: Stored, path: Path) -> Beside:
    """Add an entry to `dataset_info.json`, whose other entries stay."""
    info = path.with_name(INFO)
    return {info: _read_info(info) | {path.stem: {"file_name": path.name, **SHAREGPT}}}


def _ms_swift(store: Store, stored: Stored, path: Path) -> Beside:
    """Write the list that `--custom_dataset_info` reads."""
    info: Any = [{"dataset_path": str(path.resolve()), "dataset_name": path.stem}]
    return {path.with_name(f"{path.stem}-info.json"): json.dumps(info, indent=2, ensure_ascii=False) + "\n"}


def _axolotl(store: Store, stored: Stored, path: Path) -> Beside:
    """Write the part of Axolotl's config that names the file."""
    return {path.with_suffix(".yaml"): AXOLOTL.format(path=json.dumps(str(path.resolve()), ensure_ascii=False))}


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


FORMS = {
    "jsonl": Form(kind="sft", rows=_rows(_plain), beside=nothing_beside, named=False),
    "messages": Form(kind="sft", rows=_rows(_conversation), beside=nothing_beside),
    "llama-factory": Form(kind="sft", rows=_rows(_conversation), beside=_llama_factory, named=False),
    "ms-swift": Form(kind="sft", rows=_rows(_conversation), beside=_ms_swift),
    "axolotl": Form(kind="sft", rows=_rows(_marked), beside=_axolotl),
}
