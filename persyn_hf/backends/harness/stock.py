"""Load tasks that lm-evaluation-harness ships, and read what it makes of their items."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.lm import quiet
from persyn_hf.backends.harness.questions import Source
from persyn_hf.errors import InputError, reason
from persyn_hf.recipe.strict import nearest


OWN_NAMES = {"truthfulqa_mc1": "mc1", "truthfulqa_mc2": "mc2"}  # where the harness calls a task's only metric `acc`


def load_stock(name: str, source: Source | None = None, num_fewshot: int | None = None) -> dict[str, Any]:
    """Load the task of that name, or the tasks of a group, by name; `source` gives other items than the Hub's.

    Raises `InputError` where there is no such task, or it cannot be loaded.
    """
    with quiet():
        manager = _manager(name)
        if name not in manager.task_index:
            raise InputError(
                f"lm-evaluation-harness has no task `{name}`{_nearest_task(name, manager.all_tasks)}; "
                "a task of your own needs a `path` or a `dataset`"
            )
        if source is not None and name not in manager.all_subtasks:
            raise InputError(f"`{name}` is a group of tasks; items from a `path` or `dataset` need one task: name it")
        if name.startswith("ifeval"):
            _prepare_ifeval()
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


def stock_item(sample: Mapping[str, Any], metric: str | None) -> Answered:
    """Make an item with one metric (None: the task's first) as its score.

    In multiple choice, the likeliest choice is the prediction. A metric that is a list judges several things at once.
    """
    counted = _counted(sample, metric)
    value = None if counted is None else sample[counted]
    parts = _parts(value)
    share = sum(parts) / len(parts) if parts else value
    responses = sample["filtered_resps"]
    if not isinstance(responses[0], str):
        likelihoods = [response[0] for response in responses]
        best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
        prediction = str(sample["arguments"][best][1]).strip()
    else:
        prediction = responses[0]
    doc, target = sample["doc"], sample["target"]
    prompt = next((str(doc[key]) for key in ("question", "prompt", "query", "problem") if key in doc), json.dumps(doc))
    return Answered(
        prompt=prompt,
        reference=None if target is None else str(target),
        prediction=prediction,
        score=None if share is None or not math.isfinite(share) else float(share),  # mc2 of underflowing likelihoods
        parts=parts,
    )


def metric_name(task: str, sample: Mapping[str, Any], metric: str | None) -> str | None:
    """Name the metric that `stock_item` makes the score of; None where the task measures nothing."""
    return OWN_NAMES.get(task) or _counted(sample, metric)


def _counted(sample: Mapping[str, Any], metric: str | None) -> str | None:
    usable = [name for name in sample["metrics"] if _parts(sample[name]) or isinstance(sample[name], (int, float))]
    if metric is not None and metric not in usable:
        raise InputError(f"the task has no metric `{metric}`{nearest(metric, usable)}; see `evaluate.tasks`")
    return metric or next(iter(usable), None)


def _parts(value: Any) -> list[bool]:
    return value if isinstance(value, list) and all(isinstance(part, bool) for part in value) else []


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


def _prepare_ifeval() -> None:
    """Prepare the checks of IFEval: they need nltk to split text, and a fixed seed to guess languages repeatably."""
    try:
        import langdetect
        import nltk
    except ImportError as error:
        raise InputError(f"IFEval needs `{error.name}`: pip install 'persyn-hf[eval]'") from None
    langdetect.DetectorFactory.seed = 0
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        raise InputError(
            "IFEval needs nltk's sentence splitter, which is not on this machine; "
            "fetch it: python -m nltk.downloader punkt_tab"
        ) from None


def _nearest_task(name: str, known: list[str]) -> str:
    hint, _, _ = nearest(name, known).rpartition(" (known:")  # there are thousands: the list itself is of no use
    return hint
