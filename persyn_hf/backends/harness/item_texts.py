"""The texts of the items of a task that the harness ships, as what may leak into training data."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.backends.harness.lm import quiet
from persyn_hf.backends.harness.questions import Source
from persyn_hf.backends.harness.stock import load_stock
from persyn_hf.errors import InputError, PersynError, reason, require


def stock_texts(name: str, source: Source | None = None) -> dict[str, list[str]]:
    """Return the items' texts of a task, or of each task of a group, by its name; `source` as of `load_stock`.

    A text is what the task itself says may have leaked, else what a student is asked.

    Raises:
        PersynError: the harness is missing, knows no such task, or cannot load its items.
    """
    require("lm_eval", extra="eval", feature=f"Reading the items of the task `{name}`")
    try:
        tasks = load_stock(name, source)
        with quiet():
            return {key: [_text(task, doc) for doc in task.eval_docs] for key, task in tasks.items()}
    except PersynError:
        raise
    except Exception as error:  # noqa: BLE001  # tasks, and the libraries below them, raise anything
        raise InputError(f"the items of the task {name} cannot be read: {reason(error)}") from None


def _text(task: Any, doc: Mapping[str, Any]) -> str:
    leaked = task.config.should_decontaminate
    text = task.doc_to_decontamination_query(doc) if leaked else task.doc_to_text(doc)
    if isinstance(text, int):  # Winogrande: the choices are what differs before a common end
        text = task.doc_to_choice(doc)[0]
    return str(text)
