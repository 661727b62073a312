"""Send the course of a training to trackers: loss, learning rate, gradient norm, at every logged step."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from persyn_hf.errors import RecipeError


Tracker = Literal["trackio", "wandb", "tensorboard"]

RUNS = Path("runs")  # where TensorBoard looks by custom
FOLDER = "TENSORBOARD_LOGGING_DIR"  # transformers reads it


class Tracked(NamedTuple):
    """The trackers of a training, the name of the recipe, and that of the step."""

    by: Sequence[Tracker] = ()
    project: str = ""
    run: str = ""


def check(trackers: Sequence[Tracker], key: str) -> None:
    """Raise `RecipeError` where the package of a tracker that `key` names is not installed."""
    for tracker in trackers:
        if find_spec(tracker) is None:
            raise RecipeError(
                f"`{key}` names {tracker}, whose package is not installed; pip install {tracker}, or leave it out"
            )


def arguments(tracked: Tracked) -> dict[str, Any]:
    """Return the arguments of transformers' trainer: the project is the recipe's name, the run that of its step.

    A training that goes on after a kill goes on in the same run. TensorBoard's files go to `runs/PROJECT/RUN`, unless
    the environment says where.
    """
    if not tracked.by:
        return {"report_to": "none"}
    project = tracked.project.replace("/", "-") or "persyn"
    if "tensorboard" in tracked.by:
        os.environ.setdefault(FOLDER, str((RUNS / project / tracked.run).resolve()))
    return {"report_to": list(tracked.by), "project": project, "run_name": tracked.run or None}


def metrics(tracked: Tracked) -> dict[str, Any]:
    """Return what a manifest tells of it: nothing where nobody followed."""
    return {"tracked": {**tracked._asdict(), "by": list(tracked.by)}} if tracked.by else {}
