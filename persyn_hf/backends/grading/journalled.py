"""Grade answers while teachers still answer; verdicts are kept in the journal and never computed twice."""

import hashlib
import importlib.metadata
import json
import queue
import threading
from collections.abc import Sequence
from types import TracebackType

from persyn_hf.backends.grading.judge import RULES
from persyn_hf.backends.grading.pool import Verifier
from persyn_hf.backends.journal import Journal


Pair = tuple[str, str]  # reference, answer

AT_A_TIME = 512


class Grader:
    """A queue in front of math-verify. Only the caller's thread touches the journal."""

    def __init__(self, journal: Journal, timeout_s: float) -> None:
        self._journal = journal
        self._verifier = Verifier(timeout_s=timeout_s)
        self._name = f"math-verify {importlib.metadata.version('math-verify')}, rules {RULES}, {timeout_s} s"
        self._waiting: queue.Queue[dict[str, Pair] | None] = queue.Queue()
        self._graded: queue.SimpleQueue[dict[str, bool | None] | BaseException] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        if self._thread is not None:
            while not self._waiting.empty():  # what nobody waits for any more is graded by the next run
                self._waiting.get_nowait()
            self._waiting.put(None)
            self._thread.join()
        self._verifier.close()

    def submit(self, pairs: Sequence[Pair]) -> None:
        """Have (reference, answer) pairs graded in the background."""
        self._collect()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        for start in range(0, len(pairs), AT_A_TIME):
            self._waiting.put({self._key(pair): pair for pair in pairs[start : start + AT_A_TIME]})

    def judge(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """Return the verdicts of (reference, answer) pairs, in order; they are those of `Verifier.grade`."""
        self._waiting.join()
        self._collect()
        keys = [self._key(pair) for pair in pairs]
        verdicts = self._journal.recall(keys)
        todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in verdicts}
        fresh = dict(zip(todo, self._verifier.grade(list(todo.values())), strict=True))
        if fresh:
            self._journal.keep(fresh)
        return [{**verdicts, **fresh}[key] for key in keys]

    def _collect(self) -> None:
        fresh: dict[str, bool | None] = {}
        while not self._graded.empty():
            graded = self._graded.get()
            if isinstance(graded, BaseException):
                raise graded
            fresh |= graded
        if fresh:
            self._journal.keep(fresh)

    def _work(self) -> None:
        while (todo := self._waiting.get()) is not None:
            try:
                self._graded.put(dict(zip(todo, self._verifier.grade(list(todo.values())), strict=True)))
            except BaseException as error:  # noqa: BLE001  # raised where the caller next looks
                self._graded.put(error)
            finally:
                self._waiting.task_done()

    def _key(self, pair: Pair) -> str:
        return hashlib.sha256(json.dumps([self._name, *pair]).encode()).hexdigest()
