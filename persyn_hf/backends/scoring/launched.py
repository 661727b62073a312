"""Score in the processes of `accelerate launch`.

Every process (worker.py) appends its batches to a file of its own. What is read there goes to the journal. The next
run takes over what a killed run left there (`read_left`), so a kill costs at most one batch per process.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends import launch
from persyn_hf.backends.chat import Row
from persyn_hf.backends.launching.plan import Plan
from persyn_hf.backends.scoring import Measured, Values


TASK, ROWS = "task.json", "rows.jsonl"
WORKER = "persyn_hf.backends.scoring.worker"


def score_launched(
    plan: Plan,
    folder: Path,
    rows: Sequence[Row],
    under: Sequence[Any],
    *,
    kind: str,
    options: dict[str, Any],
    batch_tokens: int | None = None,
    skip: frozenset[int] = frozenset(),
) -> Measured:
    """Measure rows by the scorer of `kind` and `options` in the processes of the plan.

    Finished rows come as from `score_rows`. `folder` is emptied first: what it holds must be in the journal. `under`
    (see `measure.measure`) is kept for `read_left`. Raises the error of a process that fails.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with (folder / ROWS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps([list(messages), response]) + "\n" for messages, response in rows)
    task = {
        "kind": kind,
        "options": options,
        "batch_tokens": batch_tokens,
        "skip": sorted(skip),
        "cpu": plan.cpu,
        "key": plan.key,
        "under": list(under),
    }
    (folder / TASK).write_text(json.dumps(task), encoding="utf-8")
    offsets: dict[Path, int] = {}
    left, status = len(rows) - len(skip), None
    for status in launch.launch(plan, WORKER, folder):  # noqa: B007
        for numbers, values in _read_new(folder, offsets):
            left -= len(numbers)
            yield numbers, values
    if status or left:
        raise launch.fault(
            plan, folder, status, f"while {left} rows were still to be scored; what was measured is kept"
        )


def read_left(folder: Path) -> Iterator[tuple[Sequence[Any], Row, Values]]:
    """Yield what a killed run measured in `folder`, as (`under`, row, values)."""
    try:
        task = json.loads((folder / TASK).read_text(encoding="utf-8"))
        rows = read_rows(folder)
    except (FileNotFoundError, ValueError):  # killed while the folder was filled or emptied; torn by a power cut
        return
    for numbers, values in _read_new(folder, {}):
        for number, of_row in zip(numbers, values, strict=True):
            yield task["under"], rows[number], of_row


def read_rows(folder: Path) -> list[Row]:
    """Read the rows that the processes measure."""
    with (folder / ROWS).open(encoding="utf-8") as file:
        return [(messages, response) for messages, response in map(json.loads, file)]


def _read_new(folder: Path, offsets: dict[Path, int]) -> Measured:
    """Yield the batches that were written whole since the last call; `offsets` remembers how far files were read."""
    for path in sorted(folder.glob("measured-*.jsonl")):
        with path.open("rb") as file:
            file.seek(offsets.get(path, 0))
            whole, end, _ = file.read().rpartition(b"\n")
        offsets[path] = offsets.get(path, 0) + len(whole + end)
        for line in whole.splitlines():
            try:
                numbers, values = json.loads(line)
            except ValueError:  # torn by a power cut: it is measured again
                continue
            yield numbers, values
