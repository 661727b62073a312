"""Training rows of an `sft` artifact, in the forms of TRL, LLaMA-Factory, ms-swift and Axolotl.

The loss is on the last answer alone: earlier answers of a conversation are the prompt's. Each form says so in its
reader's way.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from persyn_hf.store.export.beside import llama_factory, ms_swift
from persyn_hf.store.export.forms import BATCH, Beside, Form, Row, Wishes, nothing_beside
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


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


def _axolotl(store: Store, stored: Stored, path: Path) -> Beside:
    """Write the part of Axolotl's config that names the file."""
    return {path.with_suffix(".yaml"): AXOLOTL.format(path=json.dumps(str(path.resolve()), ensure_ascii=False))}


FORMS = {
    "jsonl": Form(kind="sft", rows=_rows(_plain), beside=nothing_beside, named=False),
    "messages": Form(kind="sft", rows=_rows(_conversation), beside=nothing_beside),
    "llama-factory": Form(kind="sft", rows=_rows(_conversation), beside=llama_factory(), named=False),
    "ms-swift": Form(kind="sft", rows=_rows(_conversation), beside=ms_swift),
    "axolotl": Form(kind="sft", rows=_rows(_marked), beside=_axolotl),
}
