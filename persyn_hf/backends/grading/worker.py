"""Run a worker of the pool (pool.py): import math-verify once, and fork the process that judges.

The process that judges dies of a row that hangs or eats memory. Another fork costs milliseconds, an import half a
second. A line comes in with a time limit and tasks; a line goes out for each task, with its number since the start and
its verdict. A line without tasks frees the memory that the last ones have left in use.
"""

import contextlib
import json
import logging
import mmap
import os
import signal
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from persyn_hf.backends.grading.judge import judge


MEMORY = 1 << 30  # bytes of address space of a process that judges, of which a fresh one has 0.07


def work() -> None:
    """Judge until the input ends."""
    logging.disable(logging.WARNING)
    import math_verify  # noqa: F401  # the slow part of the start

    _limit_memory()
    _say("ready")
    begun = mmap.mmap(-1, 1)  # tasks of the present list that the child has begun; shared with it
    child: Connection | None = None
    done = 0
    hopeless: set[str] = set()  # references that have ended a child; the next one inherits them
    for line in sys.stdin:
        timeout_s, tasks = json.loads(line)
        if not tasks:
            hopeless.clear()
            if child is not None:
                _reap(child)
                child = None
        while tasks:
            child = child or _fork(begun, hopeless)
            begun[0] = 0
            try:
                child.send((timeout_s, done, tasks))
            except BrokenPipeError:  # killed while it had nothing to do: no row is to blame
                _reap(child)
                child = None
                continue
            try:
                is_spent = child.recv()
            except (EOFError, ConnectionResetError):  # it has been ended, by the kernel most likely
                is_spent = True
                begun[0] = max(begun[0], 1)
                reference, answer = tasks[begun[0] - 1]
                if answer is None:
                    hopeless.add(reference)
                _say(f"{done + begun[0]} null")  # where it has just said another verdict, that one counts
            done, tasks = done + begun[0], tasks[begun[0] :]
            if is_spent:
                _reap(child)
                child = None


def _reap(child: Connection) -> None:
    """Have a child end, where it has not ended yet, and wait until it is gone."""
    child.close()
    os.wait()


def _fork(begun: mmap.mmap, hopeless: set[str]) -> Connection:
    """Fork a process that judges lists of tasks until its input ends, and return the other end of its pipe.

    The alarm of each row is left to the kernel: no Python code runs while an integer is multiplied. After a list, or
    after a row that has left much memory in use, the process says whether that is so.
    """
    ours, theirs = Pipe()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            is_spent = False
            timeout_s, done, tasks = theirs.recv()
            for number, (reference, answer) in enumerate(tasks, start=1):
                signal.setitimer(signal.ITIMER_PROF, timeout_s)
                begun[0] = number
                verdict = None if reference in hopeless else judge(reference, answer)
                signal.setitimer(signal.ITIMER_PROF, 0)
                _say(f"{done + number} {json.dumps(verdict)}")
                if is_spent := _address_space() > MEMORY // 2:
                    break
            theirs.send(is_spent)
    os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _limit_memory() -> None:
    """Limit the address space, on Linux: other systems refuse the limit or ignore it.

    Where the machine runs out of memory all the same, a grader is killed first.
    """
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        Path("/proc/self/oom_score_adj").write_text("1000")


def _address_space() -> int:
    """Return the bytes of address space that are in use; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    work()
