"""Score in the processes of `accelerate launch`.

Every process (worker.py) appends its batches to a file of its own. What is read there goes to the journal. The next
run takes over what a killed run left there (`read_left`), so a kill costs at most one batch per process.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends import launch
from persyn_hf.backends.chat import Row
from persyn_hf.backends.launching import Lost
from persyn_hf.backends.launching.plan import Plan
from persyn_hf.backends.scoring import Measured, Values


ROWS = "rows.jsonl"
LOCAL = ("model", "folder", "chat_template")  # options that may be files or folders of this machine
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
    (see `measure.measure`) is kept for `read_left`. Processes that are lost are started again, for the rows that are
    left. Raises the error of a process that fails.
    """
    task = {
        "kind": kind,
        "options": options,
        "batch_tokens": batch_tokens,
        "cpu": plan.cpu,
        "key": plan.key,
        "under": list(under),
    }
    needs = [value for name, value in options.items() if name in LOCAL and value is not None]
    done, restarts = set(skip), launch.Restarts(plan)
    while True:
        _fill(folder, rows, {**task, "skip": sorted(done)}, plan.processes)
        try:
            yield from _measure(plan, folder, needs, len(rows), done, restarts.again)
            return
        except Lost as lost:
            restarts.spend(lost)


def _measure(plan: Plan, folder: Path, needs: Sequence[str], size: int, done: set[int], again: bool) -> Measured:
    """Yield what the processes measure; `done` gets the numbers of these rows, of `size` in all."""
    offsets: dict[Path, int] = {}
    status = None
    for status in launch.launch(plan, WORKER, folder, needs, again):  # noqa: B007
        yield from _read_new(folder, offsets, done)
    yield from _read_new(folder, offsets, done)  # of the time in which the others were ended
    if left := size - len(done):
        state = f"while {left} rows were still to be scored; what was measured is kept"
        raise launch.fault(plan, folder, status, state)


def _fill(folder: Path, rows: Sequence[Row], task: dict[str, Any], processes: int) -> None:
    """Write what the processes read, and empty files for what they write: NFS may show new ones late."""
    launch.empty(folder)
    with (folder / ROWS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps([list(messages), response]) + "\n" for messages, response in rows)
    for rank in range(processes):
        (folder / f"measured-{rank}.jsonl").touch()
    (folder / launch.TASK).write_text(json.dumps(task), encoding="utf-8")


def read_left(folder: Path) -> Iterator[tuple[Sequence[Any], Row, Values]]:
    """Yield what a killed run measured in `folder`, as (`under`, row, values)."""
    try:
        task = json.loads((folder / launch.TASK).read_text(encoding="utf-8"))
        rows = read_rows(folder)
    except (FileNotFoundError, ValueError):  # killed while the folder was filled or emptied; torn by a power cut
        return
    for numbers, values in _read_new(folder, {}, set()):
        for number, of_row in zip(numbers, values, strict=True):
            yield task["under"], rows[number], of_row


def read_rows(folder: Path) -> list[Row]:
    """Read the rows that the processes measure."""
    with (folder / ROWS).open(encoding="utf-8") as file:
        return [(messages, response) for messages, response in map(json.loads, file)]


def _read_new(folder: Path, offsets: dict[Path, int], done: set[int]) -> Measured:
    """Yield the batches that were written whole since the last call; `done` gets the numbers of their rows.

    `offsets` remembers how far files were read.
    """
    for numbers, values in launch.read_new(folder, "measured-*.jsonl", offsets):
        done.update(numbers)
        yield numbers, values
