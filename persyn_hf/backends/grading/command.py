"""Grade by a command of the user's: rows go in as lines of JSON, one verdict per line comes out.

An example of what goes through the pipes of `run: [python, ./my_grader.py]`, which is started for some rows at a time:

    persyn -> command   {"prompt_id": "1f...", "prompt": [{"role": ...}], "reference": "4", "answer": "It is 4"}
                        {"prompt_id": "07...", "prompt": [...], "reference": "5", "answer": "6"}
                        (end of input)
    command -> persyn   true
                        false

The first line belongs to the first row, and so on. A command has failed that prints no line for `timeout_s`, takes too
much memory, ends with another status than 0, or prints another number of lines or other things than verdicts. Nothing
that it said then counts. Its rows are graded anew in parts, down to the one on which it fails alone: that one is null.
(Python prints each line at once there, by `PYTHONUNBUFFERED`; others may keep lines back.)
"""

import hashlib
import json
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from persyn_hf.backends.grading.settings import CommandSettings
from persyn_hf.backends.grading.verdicts import Row, Ungraded, Verdict
from persyn_hf.backends.grading.watched import Bounds, Ran, run_watched
from persyn_hf.errors import EngineError, InputError, RecipeError
from persyn_hf.text import first_line, readable


AT_A_TIME = 32  # rows of one process: its start is shared by them, and a command that keeps lines back has their time
MOST = 8  # processes
LINE = 4096  # bytes of a line of output at most
TRIED = 5  # rows on which it fails before any row is graded: it works for none
GIB = 1 << 30
PYTHON = re.compile(r"python3?")
SCRIPT = re.compile(r"[\w.-]+\.(py|sh|js|mjs|ts|rb|pl|php|lua|jl|[Rr])")
REASONS = {
    "time": "hung",
    "memory": "out_of_memory",
    "processes": "died",
    "output": "talked",
    "stopped": "stopped",
}
# Becomes a command that the kernel ends when this process ends, where the kernel can.
LAUNCHER = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9)
except (AttributeError, OSError):
    pass
os.execvp(sys.argv[1], sys.argv[1:])
"""


class CommandGrader:
    """A grader of the user's. `numbers`: a verdict may be a number, and true is 1; else it is true, false or null."""

    needs_reference = False

    def __init__(self, settings: CommandSettings, *, numbers: bool = False) -> None:
        self._settings, self._numbers = settings, numbers
        self._program = program_of(settings)
        self.name = json.dumps(["command 1", *map(_described, settings.run), *(["numbers"] if numbers else [])])
        self._stop = threading.Event()
        self._has_worked = False
        self._in_vain = 0  # rows that it failed on before it graded any

    def covered(self, row: Row) -> list[Any]:
        return [list(row.messages), row.reference, row.answer]

    def grade(self, rows: Sequence[Row]) -> list[Verdict | Ungraded]:
        """Have rows graded: the first ones one by one, until one is; then some in each process."""
        begun = self._begin(rows)
        left = rows[len(begun) :]
        workers = self._workers()
        size = max(1, min(AT_A_TIME, -(-len(left) // workers)))
        chunks = [left[start : start + size] for start in range(0, len(left), size)]
        with ThreadPoolExecutor(workers) as pool:
            try:
                return begun + [verdict for graded in pool.map(self._graded, chunks) for verdict in graded]
            except BaseException:
                self.interrupt()  # the others are not waited for
                raise

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()

    def _workers(self) -> int:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        room = int(memory // (2 * self._settings.memory_gb * GIB))
        return self._settings.workers or max(1, min(MOST, os.cpu_count() or 1, room))

    def _begin(self, rows: Sequence[Row]) -> list[Verdict | Ungraded]:
        """Grade one row after another until the command has graded one, ever.

        Raises:
            EngineError: `TRIED` rows were tried in vain.
        """
        begun: list[Verdict | Ungraded] = []
        for row in rows:
            if self._has_worked:
                break
            ran = self._run([row])
            verdicts, _ = read_verdicts(ran, 1, self._numbers)
            begun += verdicts or [Ungraded(_reason(ran))]
            self._has_worked = verdicts is not None
            self._in_vain += not self._has_worked
            if self._in_vain == TRIED:
                kinds = "true, false, null or a number" if self._numbers else "true, false or null"
                raise EngineError(
                    f"the command `{_shown(self._settings.run)}` graded none of the first {TRIED} answers: it "
                    f"{_did(ran)}; it must print {kinds} for each line that it is given (docs/graders.md)"
                )
        return begun

    def _graded(self, rows: Sequence[Row]) -> list[Verdict | Ungraded]:
        """Grade rows by one process; by more, where it fails: the rows before the one that it failed at, it, the rest.

        Where that is the first one, the command may have kept lines back: the rows are halved.
        """
        ran = self._run(rows)
        verdicts, at = read_verdicts(ran, len(rows), self._numbers)
        if verdicts is not None:
            return [*verdicts]
        if len(rows) == 1:
            return [Ungraded(_reason(ran))]
        half = len(rows) // 2
        parts = (rows[:at], rows[at : at + 1], rows[at + 1 :]) if 0 < at < len(rows) else (rows[:half], rows[half:])
        return [verdict for part in parts if part for verdict in self._graded(part)]

    def _run(self, rows: Sequence[Row]) -> Ran:
        bounds = Bounds(
            seconds=self._settings.timeout_s,
            by_line=True,
            memory=int(self._settings.memory_gb * GIB),
            output=LINE * (len(rows) + 1),
        )
        ran = _start(self._program, "".join(map(_line, rows)).encode(), bounds, self._stop)
        if ran.passed == "stopped":
            raise EngineError("grading was stopped; run again, what was graded is kept")
        return ran


def read_verdicts(ran: Ran, number: int, numbers: bool) -> tuple[list[Verdict] | None, int]:
    """Read the verdicts that a command has printed on `number` rows, and the row at which it failed.

    They count only where it has ended well and printed as many lines as it was given, each a verdict: a line too much
    or too few would move all that follow to other answers.
    """
    lines = ran.output.split(b"\n")
    lines = lines[:-1] if not lines[-1].strip() else lines
    verdicts: list[Verdict] = []
    for line in lines:
        verdict = _verdict(line, numbers)
        if isinstance(verdict, Ungraded):
            return None, len(verdicts)
        verdicts.append(verdict)
    has_ended_well = ran.passed is None and ran.status == 0
    return (verdicts if has_ended_well and len(verdicts) == number else None), len(verdicts)


def _verdict(line: bytes, numbers: bool) -> Verdict | Ungraded:
    try:
        found = json.loads(line)
        if found is None or isinstance(found, bool):
            return float(found) if numbers and found is not None else found
        if numbers and isinstance(found, int | float) and math.isfinite(float(found)):
            return float(found)
    except (ValueError, RecursionError, OverflowError):
        pass
    return Ungraded("no_verdict")


def program_of(settings: CommandSettings) -> list[str]:
    """Return the command as it is started.

    Raises:
        RecipeError: there is none, or a script is named without its place.
        InputError: the program is not found.
    """
    if not settings.run:
        raise RecipeError("`command` of the recipe names no program; write `command: {run: [python, ./my_grader.py]}`")
    program, *arguments = settings.run
    for argument in (program, *arguments):
        if SCRIPT.fullmatch(argument) and not (argument == program and shutil.which(program)):
            raise RecipeError(
                f"`command.run` names the script `{argument}` without its place; write `./{argument}` if it lies "
                "beside the recipe"
            )
    if PYTHON.fullmatch(program):
        return [sys.executable, *arguments]
    found = shutil.which(program)
    if found is None:
        why = "may not be run (chmod +x)" if Path(program).is_file() else "is not found"
        raise InputError(f"the program `{program}` of `command.run` {why}; install it, or give its whole path")
    return [found, *arguments]


def try_command(settings: CommandSettings) -> None:
    """Refuse a command that is not found, or that fails with words when it is given no lines at all."""
    bounds = Bounds(seconds=settings.timeout_s, memory=int(settings.memory_gb * GIB), output=LINE)
    ran = _start(program_of(settings), b"", bounds, threading.Event())
    if ran.passed or ran.output.strip() or (ran.status and ran.words.strip()):
        raise InputError(
            f"the command `{_shown(settings.run)}` was given no lines, to try it, and {_did(ran)}; it must then end "
            "without a word (docs/graders.md)"
        )


def _start(program: Sequence[str], given: bytes, bounds: Bounds, stop: threading.Event) -> Ran:
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *program]
    return run_watched(launched, given, bounds, environment=os.environ | {"PYTHONUNBUFFERED": "1"}, stop=stop)


def _line(row: Row) -> str:
    said = {"prompt_id": row.prompt_id, "prompt": [dict(turn) for turn in row.messages]}
    return json.dumps(said | {"reference": row.reference, "answer": row.answer}) + "\n"


def _described(argument: str) -> str:
    """Return an argument as verdicts depend on it: a file by its name and content."""
    path = Path(argument)
    if not (path.is_absolute() and path.is_file()):
        return argument
    with path.open("rb") as file:
        return f"{path.name}#{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _shown(run: Sequence[str]) -> str:
    return readable(" ".join(Path(part).name if part.startswith("/") else part for part in run))[:200]


def _reason(ran: Ran) -> str:
    return REASONS[ran.passed] if ran.passed else "died" if ran.status else "no_verdict"


def _did(ran: Ran) -> str:
    """Say what a command did, for use in a sentence."""
    said = first_line(ran.output.decode(errors="replace"), 100)
    match ran.passed:
        case "time":
            return "did not end in time (`command.timeout_s`)" if not said else f"hung after `{said}`"
        case "memory":
            return "took more memory than `command.memory_gb`"
        case "output":
            return f"printed too much, beginning with `{said}`"
    if ran.status:
        words = [line for line in readable(ran.words).split("\n") if line.strip()]
        return f"ended with status {ran.status}" + (f" and said: {first_line(words[-1])}" if words else "")
    return f"printed `{said}`" if said else "printed nothing"
