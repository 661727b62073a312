"""Grade by math-verify, in worker processes that can be killed.

math-verify's own time-out needs signals in the main thread and does not interrupt big-integer arithmetic: an answer
like `$9999999^{9999999}$` hangs it. So each row has `timeout_s` of processor time, after which the kernel ends the
process that judges it, and the verdict of that row is None. Processor time, because a row must not be judged by what
else runs on a busy machine.

A worker (worker.py) is a plain child process with line-wise pipes, so it imports nothing of the program that starts
it. It forks the process that judges, which has 1 GiB of address space; all of them together have at most half of the
machine's memory. An example of what goes through the pipes, with `timeout_s` 1:

    pool -> worker      [1.0, [["4", null], ["4", "$4$"], ["4", "$9999999^{9999999}$"], ["4", "$5$"]]]
    worker -> pool      1 true          the reference "4" can be used: a reference is tried before its first answer,
                                        so that an answer is not blamed for it
                        2 true          "$4$" agrees
                        3 null          after one second of processor time the kernel has ended the forked process;
                                        the worker says null for the row it was at, and forks another
                        4 false         the rest of the list is judged there

A worker that says nothing for `WALL` times `timeout_s` is killed by the pool: the row that it was at stays None, and
its other rows wait for it or for another worker.
"""

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO

from persyn_hf.backends.grading.worker import MEMORY
from persyn_hf.backends.references import any_of
from persyn_hf.core.references import alternatives
from persyn_hf.errors import EngineError


CHUNK = 16  # rows sent to a worker at a time, one at last, while it has fewer than that; it answers row by row
AHEAD = 5000  # characters that wait for a busy worker: at 12 bytes each they fit into a pipe, so nobody waits for it
NAP_S = 0.002  # between two looks at what workers have said: a look takes a tenth of the time of a row
WORTH_A_WORKER = 64  # rows: a worker takes half a second to start
START_S = 120  # a worker imports sympy: half a second, more on a busy machine
WALL = 4  # times its processor time that a row may take
WORKER = "persyn_hf.backends.grading.worker"
MOST = min(8, os.cpu_count() or 1)  # workers of a pool
SPARES = 2  # workers that are kept for the next pool: every step of a recipe has one

_spares: list["_Worker"] = []
os.register_at_fork(after_in_child=_spares.clear)  # two programs at one pipe would mix their rows

Task = tuple[int, str, str | None]  # row, reference, answer (None: does the reference parse?)


class Verifier:
    """A pool of graders. The first one of a program takes half a second to start.

    Rows of one reference go to the same worker, which keeps it parsed; a worker that has nothing to do takes rows of
    others. A reference that hangs is tried once, and all its rows are None.
    """

    def __init__(self, workers: int = MOST, timeout_s: float = 5.0) -> None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._timeout_s = timeout_s
        self._workers = [_Worker() for _ in range(max(1, min(workers, memory // (2 * MEMORY))))]
        self._started = 1  # number of workers in use
        self._selector = selectors.DefaultSelector()
        self._references: dict[str, bool | None] = {}

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, except a few that wait for the next pool, without their memory."""
        for worker in self._workers:
            if worker.process is not None:
                self._selector.unregister(worker.output)
                worker.retire()
        self._selector.close()

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Judge (reference, answer) pairs, in order; where the reference is alternatives, one that agrees is enough.

        True: the answer agrees with the reference. False: it does not, or it holds nothing that can be parsed. None:
        the reference does not parse, or grading crashed or took more than `timeout_s`.
        """
        each = [(reference, answer) for several, answer in pairs for reference in alternatives(several)]
        verdicts: list[bool | None] = [None] * len(each)
        self._run([(row, *pair) for row, pair in enumerate(each)], verdicts)
        return _together(verdicts, [reference for reference, _ in pairs])

    def parses(self, references: Sequence[str]) -> list[bool | None]:
        """Tell of each reference whether it can be used for grading; None where that took too long or crashed."""
        each = [reference for several in references for reference in alternatives(several)]
        new = dict.fromkeys(reference for reference in each if reference not in self._references)
        self._run([(0, reference, None) for reference in new], [])
        return _together([self._references[reference] for reference in each], references)

    def _run(self, tasks: list[Task], verdicts: list[bool | None]) -> None:
        self._started = max(self._started, min(len(self._workers), len(tasks) // WORTH_A_WORKER))
        workers = self._workers[: self._started]
        for task in tasks:
            workers[hash(task[1]) % len(workers)].waiting.append(task)
        try:
            self._loop(workers, verdicts)
        except BaseException:
            for worker in workers:  # what is left in the pipes belongs to no later call
                worker.waiting.clear()
                self._stop(worker)
            raise

    def _loop(self, workers: list["_Worker"], verdicts: list[bool | None]) -> None:
        while True:
            for worker in workers:
                left = sum(len(other.waiting) for other in workers)
                share = min(CHUNK, 1 + left // (2 * len(workers)))
                if left and len(worker.tasks) < share:
                    self._occupy(worker, workers, share)
            watched = [worker for worker in workers if worker.tasks or worker.is_starting]
            if not any(worker.tasks or worker.waiting for worker in workers):
                return
            wait = max(0.0, min((worker.deadline for worker in watched), default=0.0) - time.monotonic())
            selection = self._selector.select(wait)
            time.sleep(NAP_S)
            for selected, _ in selection:
                if not self._receive(selected.data, verdicts):
                    self._give_up(selected.data)
            for worker in watched:
                if (worker.tasks or worker.is_starting) and worker.deadline <= time.monotonic():
                    self._give_up(worker)

    def _occupy(self, worker: "_Worker", workers: list["_Worker"], share: int) -> None:
        """Start a worker, or give it up to `share` rows: its own, else the last ones of the worker with the most."""
        if worker.is_ready and not worker.tasks and not worker.is_idle:
            self._stop(worker)  # killed while it had nothing to do
        if worker.process is None:
            worker.start()
            self._selector.register(worker.output, selectors.EVENT_READ, worker)
        if worker.is_starting:
            return
        source = worker.waiting or max((other.waiting for other in workers), key=len)
        next_one, take = (0, source.popleft) if source is worker.waiting else (-1, source.pop)
        room = AHEAD - sum(map(_length, worker.tasks)) if worker.tasks else sys.maxsize
        asked = {reference for _, reference, _ in worker.tasks}
        tasks: list[Task] = []
        while source and len(tasks) < share and (room := room - _length(source[next_one])) > 0:
            task = take()
            _, reference, answer = task
            if answer is not None and reference not in self._references and reference not in asked:
                tasks.append((-1, reference, None))  # by itself: if it hangs, the answer is not to blame
            asked.add(reference)
            if answer is None or self._references.get(reference, True):
                tasks.append(task)
        if tasks:
            worker.send(tasks, self._timeout_s)

    def _receive(self, worker: "_Worker", verdicts: list[bool | None]) -> bool:
        """Take in what a worker has said, and return False where it has ended."""
        received = os.read(worker.output.fileno(), 65536)
        *lines, worker.pending = (worker.pending + received).split(b"\n")
        for line in lines:
            worker.deadline = time.monotonic() + WALL * self._timeout_s
            if line == b"ready":
                worker.is_ready = True
                continue
            number, said = line.split()
            if int(number) == worker.judged + 1:  # the first word on a task counts
                worker.judged += 1
                row, reference, answer = worker.tasks.popleft()
                verdict = json.loads(said)
                if answer is None:
                    self._references[reference] = verdict
                else:
                    verdicts[row] = verdict
        return bool(received)

    def _give_up(self, worker: "_Worker") -> None:
        """End a worker and give up the row that it is at, which stays None; its other rows wait again."""
        if worker.is_starting:
            raise EngineError(
                "a grader process ended or hung before it was ready; "
                f"see what `{sys.executable} -c 'import math_verify'` says"
            )
        if worker.tasks:
            _, reference, answer = worker.tasks.popleft()
            if answer is None:
                self._references[reference] = None
        worker.waiting.extendleft(reversed(worker.tasks))
        self._stop(worker)

    def _stop(self, worker: "_Worker") -> None:
        if worker.process is not None:
            self._selector.unregister(worker.output)
            worker.stop()


@dataclass
class _Worker:
    """A child process with the rows that wait for it, the rows that it has, and the deadline of its present row."""

    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False
    judged: int = 0  # tasks since its start
    pending: bytes = b""
    deadline: float = 0.0
    tasks: deque[Task] = field(default_factory=deque)
    waiting: deque[Task] = field(default_factory=deque)

    @property
    def is_starting(self) -> bool:
        return self.process is not None and not self.is_ready

    @property
    def output(self) -> IO[bytes]:
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout

    def start(self) -> None:
        """Take over the process of a spare worker, or start one."""
        while _spares:
            spare = _spares.pop()
            if spare.is_idle:
                self.process, self.judged, self.is_ready = spare.process, spare.judged, True
                return
            spare.stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the program, which ends its workers
        )
        self.deadline = time.monotonic() + START_S

    def retire(self) -> None:
        """Give the process to whoever needs one next, or end it."""
        if not self.is_idle or len(_spares) >= SPARES:
            self.stop()
            return
        self.send([], 0)
        _spares.append(_Worker(process=self.process, judged=self.judged, is_ready=True))
        self.process, self.is_ready, self.judged = None, False, 0

    @property
    def is_idle(self) -> bool:
        return self.is_ready and not self.tasks and self.process is not None and self.process.poll() is None

    def send(self, tasks: list[Task], timeout_s: float) -> None:
        assert self.process is not None and self.process.stdin is not None
        if not self.tasks:
            self.deadline = time.monotonic() + WALL * timeout_s
        self.tasks.extend(tasks)
        with contextlib.suppress(BrokenPipeError):  # it has died: reading its output will say so
            self.process.stdin.write(json.dumps([timeout_s, [task[1:] for task in tasks]]).encode() + b"\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the process that it has forked
        self.output.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process, self.tasks, self.pending, self.is_ready, self.judged = None, deque(), b"", False, 0


@atexit.register
def _stop_spares() -> None:
    while _spares:
        _spares.pop().stop()


def _together(verdicts: Sequence[bool | None], references: Sequence[str]) -> list[bool | None]:
    """Return one verdict for each reference, from those of its alternatives."""
    left = iter(verdicts)
    return [any_of([next(left) for _ in alternatives(reference)]) for reference in references]


def _length(task: Task) -> int:
    return 2 * len(task[1]) + len(task[2] or "")
