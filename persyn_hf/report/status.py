"""The state of a run, from its heartbeat file and its journal: while it runs, and after it was killed."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from persyn_hf.backends.journal import read_spent
from persyn_hf.formats import time_span
from persyn_hf.report.tables import Table


class Standing(NamedTuple):
    """The lines and tables that `persyn status` prints."""

    lines: list[str]
    tables: list[Table]


def standing(state_dir: Path) -> Standing | None:
    """Return the state of the last run of a store, None where there was none."""
    heartbeat = state_dir / "status.json"
    if not heartbeat.exists():
        return None
    state = json.loads(heartbeat.read_text())
    if state["state"] == "running" and not _alive(state["pid"]):
        state["state"] = "killed (run the same command again to go on)"
    age = time.time() - state["updated"]
    lines = [f"{state['recipe']}: {state['state']}, process {state['pid']}, last sign {age:.0f} s ago"]
    if state["step"]:
        lines.append(f"step {state['number']} of {state['num_steps']}: {state['step']}")
        going = state["state"] == "running" and state.get("per_second")
        rate = f", {state['per_second']}/s, {time_span(state['eta_s'])} left" if going else ""
        if state["total"]:
            lines.append(f"{state['what']}: {state['done']:,} of {state['total']:,}{rate}")
    if state.get("error"):
        lines.append(f"{'stopped' if state['state'] == 'stopped' else 'error'}: {state['error']}")
    lines += [f"{name}: {_kinds(t['errors'])}" for name, t in state["teachers"].items() if t["errors"]]
    tables = [_teachers(state)] if state["teachers"] else []
    spent = read_spent(state_dir / "journal.sqlite", state["recipe"])
    return Standing(lines, [*tables, *([_paid(state["recipe"], spent)] if spent else [])])


def _teachers(state: Mapping[str, Any]) -> Table:
    """Return the table of the answers of the step that runs, a row per teacher."""
    rows = []
    for name, teacher in state["teachers"].items():
        fresh = teacher["done"] - teacher["before"]
        seconds = teacher["updated"] - (teacher["begun"] or teacher["updated"])
        rate = fresh / seconds if fresh > 0 and seconds > 0 else None
        left = teacher["total"] - teacher["done"]
        rows.append(
            [
                name,
                f"{teacher['done']:,}",
                f"{teacher['total']:,}",
                "" if rate is None else f"{rate:,.1f}",
                time_span(left / rate) if rate and left and state["state"] == "running" else "",
                f"{sum(teacher['errors'].values()):,}",
            ]
        )
    return Table(
        name="teachers",
        title=f"Responses of step {state['step']}",
        header=["teacher", "done", "of", "per second", "left", "failed in this run"],
        rows=rows,
    )


def _paid(recipe: str, spent: Mapping[str, Any]) -> Table:
    """Return the table of what all runs of the recipe have paid for, a row per teacher."""
    rows = [
        [
            name,
            f"{line.requests:,}",
            f"{line.prompt_tokens:,}{more}",
            f"{line.completion_tokens:,}{more}",
            time_span(line.seconds),
            f"{line.truncated:,}",
            f"{line.errors.total():,}",
        ]
        for name, line in spent.items()
        for more in [" + ?" if line.uncounted else ""]
    ]
    missing = sum(line.uncounted for line in spent.values())
    return Table(
        name="paid",
        title=f"Paid for by {recipe}, all its runs and steps",
        header=["teacher", "requests", "prompt tokens", "completion tokens", "engine time", "cut off", "failed"],
        rows=rows,
        note=f"+ ?: the tokens of {missing:,} answers are unknown, their servers have not counted them"
        if missing
        else "",
    )


def _kinds(errors: Mapping[str, int]) -> str:
    """Return the three commonest reasons for failed answers, with their numbers, and how many others there are."""
    most = sorted(errors.items(), key=lambda item: -item[1])
    shown = [f"{number} x {reason}" for reason, number in most[:3]]
    rest = sum(number for _, number in most[3:])
    return "; ".join([*shown, f"{rest} others"] if rest else shown)


def _alive(pid: int) -> bool:
    """Tell whether a process runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs for somebody else
        return True
    return True
