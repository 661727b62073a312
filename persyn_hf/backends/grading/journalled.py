"""Grade answers while teachers still answer; verdicts are kept in the journal and never computed twice."""

import hashlib
import json
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from persyn_hf.backends.grading.verdicts import Judging, Row, Ungraded, Verdict
from persyn_hf.backends.journal import Journal


AT_A_TIME = 512  # rows: what a run that is killed grades anew
WAITING = 2000  # calls of `submit` whose rows wait for a grader that is slower than the teachers


class Grader:
    """A queue in front of a grader. Only the caller's thread touches the journal.

    A verdict that its grader failed to give is not kept in the journal: the next run grades that row anew. In this
    run it is null.
    """

    def __init__(self, journal: Journal, judging: Judging) -> None:
        self._journal = journal
        self._judging = judging
        self.needs_reference = judging.needs_reference
        self._failed: dict[str, str] = {}  # key of a row -> why its grader gave no verdict
        self._waiting: queue.Queue[dict[str, Row] | None] = queue.Queue(WAITING)
        self._graded: queue.SimpleQueue[dict[str, Verdict | Ungraded] | BaseException] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        if self._thread is not None:
            while not self._waiting.empty():  # what nobody waits for any more is graded by the next run
                self._waiting.get_nowait()
            self._waiting.put(None)
            if kind is not None:
                self._judging.interrupt()
            self._thread.join()
        self._judging.close()

    @property
    def failures(self) -> dict[str, int]:
        """Count the rows for which the grader failed in this run, as `grader_REASON`."""
        return {f"grader_{reason}": number for reason, number in sorted(Counter(self._failed.values()).items())}

    def submit(self, rows: Sequence[Row]) -> None:
        """Have rows graded in the background; where too many wait, `judge` grades them when it is asked."""
        self._collect()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        for start in range(0, len(rows), AT_A_TIME):
            with suppress(queue.Full):
                self._waiting.put_nowait({self._key(row): row for row in rows[start : start + AT_A_TIME]})

    def judge(self, rows: Sequence[Row]) -> list[Verdict]:
        """Return the verdicts of rows, in order; they are those of `Judging.grade`, None where it failed."""
        self._waiting.join()
        self._collect()
        keys = [self._key(row) for row in rows]
        verdicts: dict[str, Verdict] = {**self._journal.recall(keys), **dict.fromkeys(self._failed)}
        todo = {key: row for key, row in zip(keys, rows, strict=True) if key not in verdicts}
        missing = list(todo.items())
        for start in range(0, len(missing), AT_A_TIME):
            some = dict(missing[start : start + AT_A_TIME])
            verdicts |= self._keep(dict(zip(some, self._judging.grade(list(some.values())), strict=True)))
        return [verdicts[key] for key in keys]

    def _collect(self) -> None:
        fresh: dict[str, Verdict | Ungraded] = {}
        while not self._graded.empty():
            graded = self._graded.get()
            if isinstance(graded, BaseException):
                raise graded
            fresh |= graded
        self._keep(fresh)

    def _keep(self, graded: dict[str, Verdict | Ungraded]) -> dict[str, Verdict]:
        """Keep verdicts in the journal and failures in memory; returns the verdicts, null for a failure."""
        self._failed |= {key: verdict.reason for key, verdict in graded.items() if isinstance(verdict, Ungraded)}
        fresh = {key: verdict for key, verdict in graded.items() if not isinstance(verdict, Ungraded)}
        if fresh:
            self._journal.keep(fresh)
        return {key: fresh.get(key) for key in graded}

    def _work(self) -> None:
        while (todo := self._waiting.get()) is not None:
            taken = 1
            while len(todo) < AT_A_TIME and not self._waiting.empty():  # a process is started for many rows together
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    self._waiting.task_done()
                    break
                todo, taken = todo | more, taken + 1
            try:
                verdicts = self._judging.grade(list(todo.values()))
                self._graded.put(dict(zip(todo, verdicts, strict=True)))
            except BaseException as error:  # noqa: BLE001  # raised where the caller next looks
                self._graded.put(error)
            finally:
                for _ in range(taken):
                    self._waiting.task_done()

    def _key(self, row: Row) -> str:
        return hashlib.sha256(json.dumps([self._judging.name, *self._judging.covered(row)]).encode()).hexdigest()
