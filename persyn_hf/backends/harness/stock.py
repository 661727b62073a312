"""Load tasks that lm-evaluation-harness ships."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from persyn_hf.backends.harness.ifeval import is_ifeval, prepare_ifeval
from persyn_hf.backends.harness.lm import quiet
from persyn_hf.backends.harness.questions import Source
from persyn_hf.errors import InputError, reason
from persyn_hf.recipe.strict import nearest


def load_stock(name: str, source: Source | None = None, num_fewshot: int | None = None) -> dict[str, Any]:
    """Load the task of that name, or the tasks of a group, by name; `source` gives other items than the Hub's.

    Raises `InputError` where there is no such task, or it cannot be loaded.
    """
    check_name(name)
    with quiet():
        manager = _manager(name)
        if source is not None and name not in manager.all_subtasks:
            raise InputError(f"`{name}` is a group of tasks; items from a `path` or `dataset` need one task: name it")
        if is_ifeval(name):
            prepare_ifeval()
        wanted: list[Any] = [name]
        if source is not None:
            docs = _documents(source)
            own = {"task": name, "custom_dataset": lambda **_: dict.fromkeys(("train", "validation", "test"), docs)}
            wanted = [{"group": "own", "task": [own]}]  # the harness's way of changing a task that it knows
            num_fewshot = num_fewshot or 0  # it would draw examples from the very items
        try:
            tasks = dict(manager.load(wanted)["tasks"])
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"the task {name} cannot be loaded: {reason(error)}") from None
        for task in tasks.values():
            if num_fewshot is not None or task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=num_fewshot or 0)
    return tasks


def check_name(name: str) -> None:
    """Refuse a name of which the harness knows no task, without loading any; raises `InputError`."""
    with quiet():
        manager = _manager(name)
    if name not in manager.task_index:
        raise InputError(
            f"lm-evaluation-harness has no task `{name}`{_nearest_task(name, manager.all_tasks)}; "
            "a task of your own needs a `path` or a `dataset`"
        )


def _manager(name: str) -> Any:
    """Return the harness's index of the folder that is named like the task, if the task is there, else of all.

    All folders are thousands of files, which take 13 s.
    """
    folder = name.partition("_")[0]
    if folder.isidentifier():
        manager = _index(folder)
        if name in manager.all_subtasks:  # what a group consists of may be elsewhere
            return manager
    return _index(None)


@cache
def _index(folder: str | None) -> Any:
    from lm_eval import tasks

    if folder is None:
        return tasks.TaskManager()
    return tasks.TaskManager(include_path=Path(tasks.__file__).parent / folder, include_defaults=False)


def _documents(source: Source) -> Any:
    from datasets import Dataset

    rows = [_truthfulqa(row) if "Correct Answers" in row else row for row in source.rows()]
    if not rows:
        raise InputError(f"{source.path or source.dataset} holds no items; a task needs at least one")
    return Dataset.from_list(rows)


def _truthfulqa(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a line of TruthfulQA.csv to the form of the Hub's `truthfulqa/truthful_qa`: true answers come first."""
    true, false = (_answers(row[f"{kind} Answers"]) for kind in ("Correct", "Incorrect"))
    return {
        "question": row["Question"].strip(),
        "mc1_targets": _labelled([row["Best Answer"].strip()], false),
        "mc2_targets": _labelled(true, false),
    }


def _answers(cell: str) -> list[str]:
    return [answer.strip() for answer in cell.split(";") if answer.strip()]


def _labelled(true: Sequence[str], false: Sequence[str]) -> dict[str, Any]:
    return {"choices": [*true, *false], "labels": [1] * len(true) + [0] * len(false)}


def _nearest_task(name: str, known: list[str]) -> str:
    hint, _, _ = nearest(name, known).rpartition(" (known:")  # there are thousands: the list itself is of no use
    return hint
