"""The state of a run, from its heartbeat file and its journal: while it runs, and after it was killed."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from persyn_hf.backends.engines.batch.notes import Note, Notes
from persyn_hf.backends.journal import read_spent
from persyn_hf.errors import StoreError
from persyn_hf.formats import time_span
from persyn_hf.report.tables import Table
from persyn_hf.store.manifest import fault_of
from persyn_hf.text import readable


Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e15)]
Words = Annotated[str, AfterValidator(readable)]

ERROR = {"stopped": "stopped", "detached": "under way"}  # what stands before the last words of a run; else: error


class _Strict(BaseModel):
    """A part of the heartbeat; what another version of persyn-hf writes beside it is not read."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Asked(_Strict):
    """The figures of a teacher in the step that runs: its answers, and failed ones by their reasons."""

    done: Count
    total: Count
    before: Count = 0  # of `done`, those that earlier runs have left
    begun: Seconds | None = None  # of the clock, as `updated`
    updated: Seconds
    errors: dict[str, Count] = Field(default_factory=dict)


class Waiting(_Strict):
    """What a run waits for, and since when."""

    reason: Words
    since: Seconds


class Heartbeat(_Strict):
    """The content of `status.json`, which a run writes once a second."""

    pid: int = Field(ge=1, lt=2**31)
    recipe: Words
    state: Words  # running, finished, interrupted, stopped, detached, failed
    updated: Seconds
    step: Words | None = None
    number: Count = 0  # of the step
    num_steps: Count = 0
    what: Words | None = None
    done: Count = 0
    total: Count = 0  # 0: not known
    per_second: Seconds | None = None
    eta_s: Seconds | None = None
    error: Words | None = None
    teachers: dict[str, Asked] = Field(default_factory=dict)
    waiting: Waiting | None = None


def read_heartbeat(path: Path) -> Heartbeat:
    """Return the heartbeat of a run.

    Raises:
        StoreError: the file is damaged, or cannot be read.
    """
    try:
        return Heartbeat.model_validate_json(path.read_bytes())
    except OSError as error:
        fault = str(error.strerror)
    except ValidationError as error:
        fault = fault_of(error)
    raise StoreError(
        f"{path}, where a run writes its state, is damaged or cannot be read ({fault}); delete it, the next "
        "`persyn run` writes it anew"
    )


class Standing(NamedTuple):
    """The lines and tables that `persyn status` prints."""

    lines: list[str]
    tables: list[Table]


def standing(state_dir: Path) -> Standing | None:
    """Return the state of the last run of a store, None where there was none; may raise as `read_heartbeat` does."""
    heartbeat = state_dir / "status.json"
    if not heartbeat.exists():
        return None
    state = read_heartbeat(heartbeat)
    running = state.state == "running" and _alive(state.pid)
    word = state.state if running or state.state != "running" else "killed (run the same command again to go on)"
    word = "ended, batches are under way (run the same command again to collect them)" if word == "detached" else word
    age = time.time() - state.updated
    lines = [f"{state.recipe}: {word}, process {state.pid}, last sign {age:.0f} s ago"]
    if state.step:
        lines.append(f"step {state.number} of {state.num_steps}: {state.step}")
        goes_on = running and state.waiting is None
        rate = f", {state.per_second}/s, {time_span(state.eta_s)} left" if goes_on and state.per_second else ""
        if state.total:
            lines.append(f"{state.what}: {state.done:,} of {state.total:,}{rate}")
    if running and state.waiting is not None:
        lines.append(f"waiting since {time_span(time.time() - state.waiting.since)}: {state.waiting.reason}")
    if state.error:
        lines.append(f"{ERROR.get(state.state, 'error')}: {state.error}")
    lines += [f"{name}: {_kinds(teacher.errors)}" for name, teacher in state.teachers.items() if teacher.errors]
    tables = [_teachers(state, running and state.waiting is None)] if state.teachers else []
    journal = state_dir / "journal.sqlite"
    spent, notes = read_spent(journal, state.recipe), list(Notes.beside(journal))
    tables += [_paid(state.recipe, spent)] if spent else []
    return Standing(lines, [*tables, *([_batches(notes)] if notes else [])])


def _teachers(state: Heartbeat, running: bool) -> Table:
    """Return the table of the answers of the step that runs, a row per teacher."""
    rows = []
    for name, teacher in state.teachers.items():
        fresh = teacher.done - teacher.before
        seconds = teacher.updated - (teacher.begun or teacher.updated)
        rate = fresh / seconds if fresh > 0 and seconds > 0 else None
        left = teacher.total - teacher.done
        rows.append(
            [
                name,
                f"{teacher.done:,}",
                f"{teacher.total:,}",
                "" if rate is None else f"{rate:,.1f}",
                time_span(left / rate) if rate and left and running else "",
                f"{sum(teacher.errors.values()):,}",
            ]
        )
    return Table(
        name="teachers",
        title=f"Responses of step {state.step}",
        header=["teacher", "done", "of", "per second", "left", "failed in this run"],
        rows=rows,
    )


def _paid(recipe: str, spent: Mapping[str, Any]) -> Table:
    """Return the table of what all runs of the recipe have paid for, a row per teacher."""
    rows = [
        [
            name,
            f"{line.requests:,}",
            f"{about}{line.prompt_tokens:,}{more}",
            f"{about}{line.completion_tokens:,}{more}",
            time_span(line.seconds),
            f"{line.truncated:,}",
            f"{line.errors.total():,}",
        ]
        for name, line in spent.items()
        for about, more in [("~ " if line.counted_here else "", " + ?" if line.uncounted else "")]
    ]
    missing, here = (sum(getattr(line, name) for line in spent.values()) for name in ("uncounted", "counted_here"))
    notes = [
        f"~: the tokens of {here:,} answers were counted here, their servers have not" if here else "",
        f"+ ?: the tokens of {missing:,} answers are unknown, their servers have not counted them" if missing else "",
    ]
    return Table(
        name="paid",
        title=f"Paid for by {recipe}, all its runs and steps",
        header=["teacher", "requests", "prompt tokens", "completion tokens", "engine time", "cut off", "failed"],
        rows=rows,
        note="; ".join(filter(None, notes)),
    )


def _batches(notes: Sequence[Note]) -> Table:
    """Return the table of the batches that are under way, as they are noted here; nobody is asked how far they are."""
    rows = [
        [
            readable(note.payee or note.model),
            readable(note.recipe),
            readable(note.service),
            readable(note.batch or "?"),
            f"{len(note.keys):,}",
            time_span(time.time() - note.since) if note.since else "",
        ]
        for note in sorted(notes, key=lambda note: note.since)
    ]
    lost = "?: a run was killed before it knew the batch; the next one looks for it"
    return Table(
        name="batches",
        title="Batches under way, of all recipes of this store",
        header=["teacher", "recipe", "at", "batch", "answers to collect", "sent before"],
        rows=rows,
        note=lost if any(note.batch is None for note in notes) else "",
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
