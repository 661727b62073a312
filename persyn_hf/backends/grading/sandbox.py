"""Run code that a model wrote in a sandbox, or not at all.

bubblewrap.py   here, in namespaces of its own
containers.py   in a container of Docker or Podman
piston.py       on a server of Piston

Each runs `inside.py`, with the same payload and by the same verdicts.
"""

import json
import secrets
import threading
from typing import Any, Protocol

from persyn_hf.backends.grading import bubblewrap, containers, inside, piston
from persyn_hf.backends.grading.settings import MIB, SandboxSettings
from persyn_hf.backends.grading.watched import Ran
from persyn_hf.errors import PersynError


MARK = 32  # hex digits
TRIAL_S = 30  # of a busy machine


class Engine(Protocol):
    """A way to make sandboxes: a module."""

    BOUNDS_PROCESSES: bool  # by itself: the kernel's bound would count other sandboxes of the same user
    TRIAL: str  # a program that prints what `fault` looks at

    def run(self, settings: SandboxSettings, given: bytes, seconds: float, stop: threading.Event) -> Ran:
        """Run `inside.py` in a new sandbox with `given` as its input; without a sandbox the output is empty.

        Raises:
            EngineError: the program that makes sandboxes is not installed.
        """

    def fault(self, settings: SandboxSettings, said: str, ran: Ran) -> PersynError | None:
        """Say what is wrong with a machine on which the trial ran so; `said` is what it printed, empty if nothing."""


ENGINES: dict[str, Engine] = {
    "bubblewrap": bubblewrap,
    "docker": containers,
    "podman": containers,
    "piston": piston,
}


def run_inside(
    settings: SandboxSettings, payload: dict[str, Any], seconds: float, stop: threading.Event
) -> tuple[Ran, bytes]:
    """Do in a new sandbox what `payload` says (inside.py); returns the run, and the mark that passed tests write.

    `seconds` is of processor time of each process; by the clock a run has `WALL` times that.

    Raises:
        EngineError: the program that makes sandboxes is not installed.
    """
    engine = ENGINES[settings.engine]
    bounds = {
        "memory": settings.memory_mb * MIB,
        "seconds": seconds,
        "file": settings.disk_mb * MIB,
        "processes": None if engine.BOUNDS_PROCESSES else settings.processes,
    }
    data = json.dumps(payload | {"bounds": bounds}).encode()
    mark = secrets.token_hex(MARK // 2).encode()
    given = f"{len(data)} {len(mark)}\n".encode() + data + mark
    return engine.run(settings, given, seconds, stop), mark


def try_sandbox(settings: SandboxSettings, seconds: float) -> None:
    """Refuse a machine on which code cannot be run in a sandbox.

    Raises:
        EngineError: there is no such engine here, it makes no sandbox, or the sandbox lacks a bound.
        InputError: the Python of the settings does not run in it.
    """
    engine = ENGINES[settings.engine]
    if settings.url is None:
        seconds = max(seconds, TRIAL_S)  # a server may allow no more than `seconds`
    payload = {"kind": "program", "code": engine.TRIAL, "input": ""}
    ran, _ = run_inside(settings, payload, seconds, threading.Event())
    has_run = ran.output.startswith(inside.STARTED)
    said = ran.output.removeprefix(inside.STARTED).decode(errors="replace") if has_run else ""
    fault = engine.fault(settings, said, ran)
    if fault is not None:
        raise fault
