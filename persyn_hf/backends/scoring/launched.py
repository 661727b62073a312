"""Scoring in the processes of `accelerate launch`: started, read as they go, and gone for certain at the end.

Every process (worker.py) appends its batches to a file of its own. What is read there goes to the journal; what a
killed run has left there is taken over by the next one (`read_left`), so a kill costs at most a batch per process.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends import launch
from persyn_hf.backends.chat import Row
from persyn_hf.backends.scoring import Measured, Values


TASK, ROWS = "task.json", "rows.jsonl"
WORKER = "persyn_hf.backends.scoring.worker"


def score_launched(
    config: str,
    folder: Path,
    rows: Sequence[Row],
    under: Sequence[Any],
    *,
    kind: str,
    options: dict[str, Any],
    batch_tokens: int | None = None,
    skip: frozenset[int] = frozenset(),
    key: str = "score.accelerate",
) -> Measured:
    """As `score_rows` with the scorer of `kind` and `options`, in the processes that the file `config` names.

    `folder` is emptied: what it holds must be in the journal. `under`, see `journalled.measure`, is for `read_left`.
    `key` is what names the config in a recipe.
    """
    cpu = bool(launch.read_config(config, key, "answers are scored").use_cpu)
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
        "cpu": cpu,
        "key": key,
        "under": list(under),
    }
    (folder / TASK).write_text(json.dumps(task), encoding="utf-8")
    offsets: dict[Path, int] = {}
    left, status = len(rows) - len(skip), None
    for status in launch.launch(config, WORKER, folder):  # noqa: B007
        for numbers, values in _read_new(folder, offsets):
            left -= len(numbers)
            yield numbers, values
    if status or left:
        raise launch.fault(folder, status, f"while {left} rows were still to be scored; what was measured is kept")


def read_left(folder: Path) -> Iterator[tuple[Sequence[Any], Row, Values]]:
    """What a killed run measured there: `under`, row, values."""
    try:
        task = json.loads((folder / TASK).read_text(encoding="utf-8"))
        rows = read_rows(folder)
    except (FileNotFoundError, ValueError):  # killed while the folder was filled or emptied; torn by a power cut
        return
    for numbers, values in _read_new(folder, {}):
        for number, found in zip(numbers, values, strict=True):
            yield task["under"], rows[number], found


def read_rows(folder: Path) -> list[Row]:
    with (folder / ROWS).open(encoding="utf-8") as file:
        return [(messages, response) for messages, response in map(json.loads, file)]


def _read_new(folder: Path, offsets: dict[Path, int]) -> Measured:
    """Batches that were written whole since the last call."""
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
