"""Show the progress of a run: bars in a terminal, a line a minute elsewhere, a heartbeat file for `persyn status`."""

import contextlib
import json
import os
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichBars

from persyn_hf.console import say
from persyn_hf.errors import BudgetReached, UnderWay
from persyn_hf.formats import duration
from persyn_hf.text import one_line, readable


NUMBERS = 52  # characters of a line of bars for all but name and bar: 10,000,000/10,000,000, rate, two times
ENDS = {KeyboardInterrupt: "interrupted", BudgetReached: "stopped", UnderWay: "detached"}  # all others have failed
LOG_S = 60  # seconds between two lines about what goes on, where there are no bars


class RunProgress:
    """The `Progress` of a run. The heartbeat is written once a second at most, by rename, so it is always whole."""

    def __init__(self, heartbeat: Path, console: Console, num_steps: int, recipe: str) -> None:
        """Prepare the progress of `recipe` with `num_steps` steps; `heartbeat` is the file to write."""
        self._heartbeat, self._console, self._num_steps = heartbeat, console, num_steps
        bar = 40 if console.width >= 2 * NUMBERS + 40 else 8
        self._room = max(12, console.width - NUMBERS - bar)
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=bar),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: Any = None
        self._state: dict[str, Any] = {
            "pid": os.getpid(),
            "recipe": recipe,
            "state": "running",
            "step": None,
            "what": None,
            "teachers": {},
        }
        self._step_number, self._begun, self._written, self._before = 0, 0.0, 0.0, 0
        self._label = ""
        self._said = time.monotonic()
        self._work: float | None = None  # of the units that are left; None: all take the same
        self._worked = 0.0
        self._lock = threading.RLock()  # clients tell from their own threads that they wait

    def __enter__(self) -> "RunProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bars.stop()
        end = "finished" if kind is None else ENDS.get(kind, "failed")
        self._state["waiting"] = None
        self._state |= {"state": end, "error": None if end in ("finished", "interrupted") else readable(error)}
        self._beat(force=True)

    def step(self, key: str, stage: str) -> None:
        """Begin a step: its key and stage are shown, and the figures of teachers are cleared."""
        self._step_number += 1
        self._label = f"[{self._step_number}/{self._num_steps}] {key}"
        self._state |= {"step": key, "stage": stage, "number": self._step_number, "num_steps": self._num_steps}
        self._state["teachers"] = {}
        self.start(stage, 0)

    def note(self, text: str) -> None:
        """Print one line about the step, above the bars."""
        self._said = time.monotonic()
        say(f"{self._label}: {text}", self._console)

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        """Begin a piece of work of `total` units (0: not known), of which earlier runs have left `done`."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._begun = time.monotonic()
        self._before = done
        self._work, self._worked = work, 0.0
        self._state |= {"what": what, "done": done, "total": total, "per_second": None, "eta_s": None}
        named = shortened(f"{self._label} · {what}", self._room)
        self._task = self._bars.add_task(named, total=total or None, completed=done, rate="", left="")
        self._beat(force=True)

    def advance(self, count: int = 1, work: float | None = None) -> None:
        """Count `count` more units as done; the rate and the time left follow."""
        self._state["done"] += count
        seconds = time.monotonic() - self._begun
        rate = (self._state["done"] - self._before) / seconds if seconds > 0 else 0.0
        left = max(0, self._state["total"] - self._state["done"])
        self._worked += work or 0.0
        eta_s: float | None
        if self._work and self._worked:
            eta_s = max(0.0, self._work - self._worked) * seconds / self._worked
        else:
            eta_s = left / rate if rate else None
        self._state |= {"per_second": round(rate, 2), "eta_s": None if eta_s is None else round(eta_s)}
        left_text = "" if eta_s is None else str(timedelta(seconds=round(eta_s)))
        self._bars.update(self._task, advance=count, rate=f"{rate:.1f}/s", left=left_text)
        if not self._console.is_terminal and time.monotonic() - self._said >= LOG_S:
            ends = "" if eta_s is None else f", {duration(eta_s)} left"
            done, total = self._state["done"], self._state["total"]
            self.note(f"{self._state['what']}: {done:,} of {total:,}, {rate:.1f}/s{ends}")
        self._beat()

    def waiting(self, reason: str | None) -> None:
        """Note that a server is waited for, and since when, or that it is there again."""
        with self._lock:
            known = self._state.get("waiting")
            if reason is None:
                self._state["waiting"] = None
            elif known is None:
                self._state["waiting"] = {"reason": one_line(reason), "since": time.time()}
            self._beat(force=True)

    def tally(self, teacher: str, **numbers: Any) -> None:
        """Set figures of a teacher; those that are not named stay."""
        if "errors" in numbers:  # their reasons are what servers say
            said, numbers["errors"] = numbers["errors"], Counter()
            for reason, times in said.items():
                numbers["errors"][one_line(reason)] += times
        figures = self._state["teachers"].get(teacher, {"begun": None, "before": 0})
        self._state["teachers"][teacher] = {**figures, **numbers, "updated": time.time()}
        self._beat()

    def _beat(self, force: bool = False) -> None:
        """Write the heartbeat file, unless it was written less than a second ago."""
        now = time.time()
        with self._lock:
            if not force and now - self._written < 1.0:
                return
            self._written = now
            temporary = self._heartbeat.with_suffix(".tmp")
            with contextlib.suppress(OSError):  # on a full disk the run has something of its own to say
                temporary.write_text(json.dumps({**self._state, "updated": now}), encoding="utf-8")
                temporary.replace(self._heartbeat)


def shortened(text: str, room: int) -> str:
    """Return a text of at most `room` characters: where it is longer, its beginning and its end around `…`."""
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}…{text[len(text) - end :]}"
