"""`python evaluation_run.py FOLDER EXECUTOR KILL [TASK]`: an evaluation that kills itself.

EXECUTOR: the setting as JSON, or null. KILL: the number of answers after which it does. TASK: the first of TASKS.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context, Silent
from persyn_hf.stages import evaluate


ROOT = Path(__file__).parents[2]
STUDENT = ROOT / "recipes" / "tiny" / "zoo" / "llama-long"
QUESTIONS = {"path": str(ROOT / "recipes" / "tiny" / "test.jsonl"), "limit": 24}
TRUTHFUL = {"harness": "truthfulqa_mc2", "path": str(ROOT / "tests" / "data" / "truthfulqa_sample.csv"), "limit": 4}
TASKS = (
    {"name": "weighed", "metric": "inverse_perplexity", **QUESTIONS},
    {"name": "asked", **QUESTIONS},
    {"name": "truthful", **TRUTHFUL},
)
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # where this program finds its modules


class Killing(Silent):
    """Progress that kills its process after a number of units; it remembers what was done before it began."""

    def __init__(self, at: int = 0) -> None:
        self.left = at
        self.known: dict[str, int] = {}

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        self.known[what] = done

    def advance(self, count: int = 1, work: float | None = None) -> None:
        self.left -= count
        if -count < self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def evaluated(folder: Path, executor: Any = None, progress: Any = None, **changes: Any) -> Any:
    """The rows and the metrics of an evaluation, as plain JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"tasks": TASKS, "dtype": "float32", "max_tokens": 24, "batch_size": 2, "executor": executor, **changes}
    context = Context(
        seed=0, work_dir=folder, student=Student(name="s", model=str(STUDENT)), progress=progress or Silent()
    )
    result = evaluate.run(read_section(evaluate.Settings, values, "evaluate"), context)
    return json.loads(json.dumps([result.data.to_list(), result.metrics]))  # type: ignore[union-attr]


if __name__ == "__main__":
    place, where, kill, *first = sys.argv[1:]
    names = [task["name"] for task in TASKS]
    asked = TASKS[names.index(first[0]) :] if first else TASKS
    evaluated(Path(place), json.loads(where), Killing(int(kill)), tasks=asked)
