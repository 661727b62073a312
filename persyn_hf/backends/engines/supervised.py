"""Run a command so that it and all of its children are gone once its user is gone, however that user ends.

The user (`Kept`) starts this file as a program of its own, the keeper, and holds the keeper's standard input open. The
keeper starts the command in a new session, so Ctrl-C in the terminal reaches neither. An example, a vLLM server:

    persyn run  --pipe-->  keeper  --fork-->  vllm serve (own session)  -->  its workers, one of which may leave the
                                                                             session: the keeper adopts orphans

    who ends                      who notices, and how                        what follows
    the user calls `stop`         keeper: SIGTERM                             it ends session and orphans, then itself
    the user is killed (-9)       keeper: its input is closed, or it has      the same
                                  another parent
    the command ends              keeper: waitpid                             it ends what is left of the session, and
                                                                              exits with the command's status
    the keeper is killed (-9)     kernel: SIGTERM to the command              `poll` of the user kills the session
    user and keeper are killed    kernel: SIGTERM to the command              the command has to end its children

To end the session is SIGTERM, then SIGKILL after `grace` seconds.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Protocol


PATIENCE = 20.0  # seconds to wait for what got SIGKILL; it takes long only where a driver or a disk holds it
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux's prctl


class Process(Protocol):
    """A process that was started, here (`Kept`) or on other machines (`slurm.SlurmStep`)."""

    @property
    def group(self) -> int:
        """The process group, on this machine, of what keeps it or of itself."""

    def poll(self) -> int | None:
        """Return the exit status as a shell counts it; None while it runs."""

    def stop(self) -> None:
        """End it with all of its children, and return when they are gone."""


class Kept:
    """A command under its keeper. Its output is appended to `log`; `grace` is the seconds from SIGTERM to SIGKILL."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path, grace: float = 10
    ) -> None:
        isolated = ("-I", "-S")  # the keeper needs neither our folder nor any package
        program = [sys.executable, *isolated, __file__, str(grace), *command]
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                program,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        assert self._keeper.stdout is not None
        self.group = int(self._keeper.stdout.readline() or 0)  # process group of the command; 0: it never started

    def poll(self) -> int | None:
        """Return the exit status of the command as a shell counts it (128 + signal); None while it runs."""
        status = self._keeper.poll()
        if status is None or status >= 0:
            return status
        deadline = time.monotonic() + PATIENCE  # the keeper itself was killed, so its work is left to this process
        while self.group and _signal(self.group, signal.SIGKILL) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.group = 0  # another process may get the number
        return 128 - status

    def stop(self) -> None:
        """End the command with all of its children, and return when they are gone."""
        self._keeper.terminate()  # closing its input may not do: a fork of this process has it too
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            assert pipe is not None
            pipe.close()
        self._keeper.wait()
        self.poll()


def main(grace: float, command: Sequence[str]) -> int:
    """Keep a command until it or its user ends, and return its exit status."""
    user = os.getppid()
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER)  # orphans of the command become children of the keeper, which can wait for them
    child = os.fork()
    if child == 0:
        _become(command)
    pid = status = 0
    try:
        os.write(1, f"{child}\n".encode())
        while not pid and not asked and os.getppid() == user:  # a fork of the user may hold the input open after it
            if select.select([0], [], [], 0.2)[0]:
                break
            pid, status = os.waitpid(child, os.WNOHANG)
    finally:
        _end(child, grace)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: Sequence[str]) -> NoReturn:
    """Turn this fresh fork into the command, in a session of its own and with the usual signals."""
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # where keeper and user are both killed, this is what is left
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _end(group: int, grace: float) -> None:
    """Send SIGTERM to the group and SIGKILL to what is left after `grace` seconds; return when all of it is gone."""
    _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while _signal(group, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
        _collect()
    deadline = time.monotonic() + PATIENCE
    while (_collect() or _signal(group, 0)) and time.monotonic() < deadline:
        _signal(group, signal.SIGKILL)
        for orphan in _children():
            _signal(-orphan, signal.SIGKILL)
        time.sleep(0.05)


def _collect() -> bool:
    """Collect the children that have ended, and tell whether others are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """List the children of this process, such as those that left the command's group; [] without /proc."""
    try:
        return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group (to one process: its id below zero), and tell whether there was one."""
    try:
        os.kill(-group, number)
    except OSError:
        return False
    return True


def _prctl(option: int, value: int = 1) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
