"""Grading by math-verify, in worker processes that can be killed.

math-verify's own time-out needs signals in the main thread and does not interrupt big-integer arithmetic: an answer
like `$9999999^{9999999}$` hangs it. So the parent keeps the time here: a worker that spends more than `timeout_s` on
one row is killed and replaced, and that row is null. Workers are plain child processes of this module (line-wise JSON
over pipes), so they import nothing of the program that starts them.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO

from persyn_hf.errors import EngineError


CHUNK = 16  # rows sent to a worker at a time; it answers row by row
START_S = 120  # a worker imports sympy: 1 to 2 seconds, more on a busy machine
PLAIN = re.compile(r"\s*[-+]?\s*[$€£]?\s*[-+]?(\d{1,3}(,\d{3})+|\d*)(\.\d+)?\s*%?\s*\Z")
DELIMITED = re.compile(r"\$[^$]+\$|\\\(.+\\\)|\\\[.+\\\]|\\boxed\s*\{", re.DOTALL)

Task = tuple[int, str, str | None]  # row, reference, answer (None: does the reference parse?)


class Verifier:
    """A pool of graders. Start it once per stage: each worker needs a second or two."""

    def __init__(self, workers: int = 1, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._workers = [_Worker() for _ in range(max(1, workers))]
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            self._stop(worker)
        self._selector.close()

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Judge (reference, answer) pairs, in order.

        True: the answer agrees with the reference. False: it does not, or it holds nothing that can be parsed. None:
        the reference does not parse, or grading crashed or took more than `timeout_s`.
        """
        return self._run([(row, reference, answer) for row, (reference, answer) in enumerate(pairs)])

    def parses(self, references: Sequence[str]) -> list[bool]:
        """Say of each reference whether it can be used for grading."""
        found = self._run([(row, reference, None) for row, reference in enumerate(references)])
        return [verdict is True for verdict in found]

    def _run(self, tasks: list[Task]) -> list[bool | None]:
        verdicts: list[bool | None] = [None] * len(tasks)
        waiting = deque(tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK))
        try:
            self._loop(waiting, verdicts)
        except BaseException:
            for worker in self._workers:  # what is left in the pipes belongs to no later call
                self._stop(worker)
            raise
        return verdicts

    def _loop(self, waiting: deque[list[Task]], verdicts: list[bool | None]) -> None:
        while True:
            for worker in self._workers:
                worth_a_start = worker is self._workers[0] or len(waiting) >= 4
                if waiting and not worker.tasks and (worker.process is not None or worth_a_start):
                    self._send(worker, waiting.popleft())
            busy = [worker for worker in self._workers if worker.tasks]
            if not busy:
                return
            wait = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            for selected, _ in self._selector.select(wait):
                if not self._receive(selected.data, verdicts):
                    self._abandon(selected.data, waiting)
            now = time.monotonic()
            for worker in busy:
                if worker.tasks and worker.deadline <= now:
                    self._abandon(worker, waiting)

    def _send(self, worker: "_Worker", tasks: list[Task]) -> None:
        if worker.process is None:
            worker.start(self._timeout_s)
            self._selector.register(worker.output, selectors.EVENT_READ, worker)
        worker.tasks = deque(tasks)
        worker.deadline = time.monotonic() + (self._timeout_s if worker.ready else START_S)
        with contextlib.suppress(BrokenPipeError):  # it has died: reading its output will say so
            worker.input.write(json.dumps([task[1:] for task in tasks]) + "\n")
            worker.input.flush()

    def _receive(self, worker: "_Worker", verdicts: list[bool | None]) -> bool:
        """Take in what a worker has said; False: it has died."""
        received = os.read(worker.output.fileno(), 65536)
        worker.pending += received
        *lines, worker.pending = worker.pending.split(b"\n")
        for line in lines:
            worker.deadline = time.monotonic() + self._timeout_s
            if line == b"ready":
                worker.ready = True
            else:
                verdicts[worker.tasks.popleft()[0]] = json.loads(line)
        return bool(received)

    def _abandon(self, worker: "_Worker", waiting: deque[list[Task]]) -> None:
        """Give up the row that a worker is at (it stays None) and hand the others out again."""
        ready, tasks = worker.ready, worker.tasks
        self._stop(worker)
        if not ready:
            raise EngineError(
                "a grader process ended or hung before it was ready; "
                f"see what `{sys.executable} -c 'import math_verify'` says"
            )
        if len(tasks) > 1:
            waiting.appendleft(list(tasks)[1:])

    def _stop(self, worker: "_Worker") -> None:
        if worker.process is None:
            return
        self._selector.unregister(worker.output)
        worker.stop()


@dataclass
class _Worker:
    """A child process, the rows it has been given, and the moment at which its present row is given up."""

    process: subprocess.Popen[str] | None = None
    ready: bool = False
    pending: bytes = b""
    deadline: float = 0.0
    tasks: deque[Task] = field(default_factory=deque)

    @property
    def input(self) -> TextIO:
        assert self.process is not None and self.process.stdin is not None
        return self.process.stdin  # type: ignore[return-value]

    @property
    def output(self) -> TextIO:
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout  # type: ignore[return-value]

    def start(self, timeout_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="surrogatepass",
        )
        self.ready, self.pending = False, b""

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.stdout and self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin and self.process.stdin.close()
        self.process.wait()
        self.process, self.tasks, self.ready = None, deque(), False


@lru_cache(maxsize=4096)
def parse_reference(reference: str) -> tuple[Any, ...]:
    """Parse a reference answer; empty: it cannot be used for grading.

    A bare `2\\sqrt{3}` would be read as 2, so what is neither a plain number nor already marked as mathematics is read
    as `$2\\sqrt{3}$` first.
    """
    from math_verify import parse

    as_given = bool(PLAIN.match(reference) or DELIMITED.search(reference))
    for text in [reference] if as_given else [f"${reference.strip()}$", reference]:
        found = parse(text, parsing_timeout=None)
        if any(not isinstance(expression, str) for expression in found):
            return tuple(found)
    return ()


def judge(reference: str, answer: str | None) -> bool | None:
    """One verdict, with no time limit; see `Verifier.grade`. Without an answer: does the reference parse?"""
    from math_verify import parse, verify

    try:
        gold = parse_reference(reference)
        if answer is None:
            return bool(gold)
        if not gold:
            return None
        return bool(verify(list(gold), parse(answer, parsing_timeout=None), timeout_seconds=None, raise_on_error=True))
    except Exception:  # noqa: BLE001  # sympy raises anything; an answer that cannot be judged is null, and counted
        return None


def _work(timeout_s: float) -> None:
    """A worker's life: a line of tasks in, one line per verdict out, until the input ends.

    The parent may be killed while a row hangs, so each row also sets an alarm that ends this process without Python's
    help; it is later than the parent's own time-out.
    """
    import logging

    logging.disable(logging.WARNING)
    import math_verify  # noqa: F401  # the slow part of the start

    _limit_memory()
    _say("ready")
    for line in sys.stdin:
        for reference, answer in json.loads(line):
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 2 * timeout_s + 1)
            verdict = judge(reference, answer)
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
            _say(json.dumps(verdict))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _limit_memory() -> None:
    """At most 4 GiB of address space: a tower of powers must not take the machine with it."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = 4 << 30 if hard == resource.RLIM_INFINITY else min(4 << 30, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    _work(float(sys.argv[1]))
