"""Run a program that is not trusted to end: its time, memory, processes and output are watched, and it is killed.

The clock, and the memory and number of all processes that the program has started, are looked at every `LOOK_S`. So a
program may pass a bound for that long. Time in which it waits for a processor does not count as its own, up to
`STARVED` times its bound: nothing is judged by what else runs on a busy machine. Where a system has no `/proc` (macOS)
memory and processes are not bounded, and all time counts.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from persyn_hf.text import first_line


LOOK_S = 0.005
STARVED = 10
WORDS = 1 << 14  # bytes of standard error that are kept: the last ones
FAMILY = 1000  # processes of a program that are looked at
PAGE = os.sysconf("SC_PAGE_SIZE")

Passed = Literal["time", "memory", "processes", "output", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds of one run. None: there is none."""

    seconds: float  # by the clock
    by_line: bool = False  # the seconds begin anew with every line of output
    memory: int | None = None  # bytes that all processes of the program have in memory together
    processes: int | None = None
    output: int = 1 << 20  # bytes of standard output


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The record of a run. `passed`: the bound for which the program was killed; None: it has ended by itself."""

    output: bytes
    words: str  # the end of standard error
    status: int  # the exit status; -9 where it was killed
    passed: Passed | None


def reason_of(ran: Ran) -> str:
    """Return the line of standard error that says what is wrong: warnings may stand before it, and help behind it."""
    lines = [line for line in ran.words.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and "level=warning" not in line]
    return first_line((errors or lines[-1:] or [f"it ended with status {ran.status}"])[0])


def run_watched(
    command: Sequence[str],
    given: bytes,
    bounds: Bounds,
    *,
    environment: Mapping[str, str],
    inherited: Sequence[int] = (),
    stop: threading.Event | None = None,
) -> Ran:
    """Run a program in a session of its own with `given` as its standard input, and return when all of it is gone.

    It inherits the open files `inherited`. Once `stop` is set, it is killed. Raises `OSError` where it does not start.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        pass_fds=inherited,
        start_new_session=True,  # Ctrl-C is for persyn, which ends the program
    )
    with contextlib.suppress(OSError):  # where the machine runs out of memory, the program is killed first
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
    watch = _Watch(process, given, bounds)
    try:
        while watch.look() and not (stop is not None and stop.is_set()):
            pass
        if stop is not None and stop.is_set():
            watch.passed = watch.passed or "stopped"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        watch.close()
        process.wait()
    words = watch.words.decode(errors="replace")
    return Ran(output=bytes(watch.output), words=words, status=process.returncode, passed=watch.passed)


class _Watch:
    """The three pipes of a process, and what has come out of them."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes, bounds: Bounds) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process, self._bounds, self._given = process, bounds, memoryview(given)
        self._pipes = (process.stdin, process.stdout, process.stderr)
        self._selector = selectors.DefaultSelector()
        for pipe, event in zip(self._pipes, (selectors.EVENT_WRITE, *2 * (selectors.EVENT_READ,)), strict=True):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, event)
        self._begun, self._waited = time.monotonic(), 0.0  # of this line: when it began, and what was waited before
        self._next_look = 0.0
        self.output, self.words = bytearray(), bytearray()
        self.passed: Passed | None = None

    def look(self) -> bool:
        """Wait for at most `LOOK_S`, take in what has come, and say whether the program goes on."""
        has_ended = self._process.poll() is not None
        selected = self._selector.select(0 if has_ended else LOOK_S) if self._selector.get_map() else []
        if not self._selector.get_map() and not has_ended:
            time.sleep(LOOK_S / 10)  # it has closed its output and ends, or does something else
        for key, _ in selected:
            self._transfer(key.fileobj)
        if has_ended and not any(key.fileobj is not self._pipes[0] for key, _ in selected):
            return False
        self.passed = self._bound_passed()
        return self.passed is None

    def close(self) -> None:
        self._selector.close()
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _transfer(self, pipe: object) -> None:
        stdin, stdout, stderr = self._pipes
        if pipe is stdin:
            try:
                self._given = self._given[os.write(stdin.fileno(), self._given[: 1 << 16]) :]
            except BrokenPipeError:  # it reads no more
                self._given = memoryview(b"")
            if not self._given:
                self._selector.unregister(stdin)
                with contextlib.suppress(BrokenPipeError):
                    stdin.close()
            return
        source = stdout if pipe is stdout else stderr
        received = os.read(source.fileno(), 1 << 16)
        if not received:
            self._selector.unregister(source)
        elif source is stdout:
            self.output += received
            if self._bounds.by_line and b"\n" in received:
                self._begun = time.monotonic()
                self._waited = max(map(_waited, _family(self._process.pid, FAMILY)))
        else:
            self.words += received
            del self.words[:-WORDS]

    def _bound_passed(self) -> Passed | None:
        now = time.monotonic()
        if len(self.output) > self._bounds.output:
            return "output"
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_S
        family = _family(self._process.pid, self._bounds.processes or FAMILY)
        if self._bounds.processes is not None and len(family) > self._bounds.processes:
            return "processes"
        if self._bounds.memory is not None and sum(map(_resident, family)) > self._bounds.memory:
            return "memory"
        late = now - self._begun - self._bounds.seconds
        if late > 0:
            waited = max(map(_waited, family)) - self._waited
            if late > min(waited, (STARVED - 1) * self._bounds.seconds):
                return "time"
        return None


def _family(pid: int, most: int) -> list[int]:
    """Return the numbers of a process and of all that it and its children have started: `most` and a few at most."""
    family = [pid]
    for member in family:  # it grows meanwhile; a fork bomb outgrows whoever counts it to its end
        if len(family) > most:
            break
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{task}/children") as file:
                    family += map(int, file.read().split())
    return family


def _waited(pid: int) -> float:
    """Return the seconds that a process was ready to run and had no processor; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _resident(pid: int) -> int:
    """Return the bytes that a process has in memory; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
