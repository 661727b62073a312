"""Grade code by its tests, each run in a sandbox of its own (sandbox.py)."""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from persyn_hf.backends.grading import inside
from persyn_hf.backends.grading.code_tests import (
    CodeTests,
    code_of,
    of_reference,
    prompt_code,
    same_output,
    same_result,
)
from persyn_hf.backends.grading.sandbox import run_inside, try_sandbox
from persyn_hf.backends.grading.settings import MIB, SandboxSettings
from persyn_hf.backends.grading.verdicts import Row, Ungraded, Verdict
from persyn_hf.errors import EngineError


RULES = 1  # raised when the same tests and answer may get another verdict: what is stored goes by it
MOST = 8  # sandboxes at a time


class CodeGrader:
    """Tests as references: true where all pass, false where one fails or the code passes a bound of the sandbox.

    Null: the tests cannot be read, or need a package that is not there.
    """

    needs_reference = True

    def __init__(self, settings: SandboxSettings, timeout_s: float) -> None:
        self._settings, self._timeout_s = settings, timeout_s
        own = "{}.{}".format(*sys.version_info) if settings.engine == "bubblewrap" else f"of the {settings.engine}"
        said = settings.model_dump_json(exclude={"url"})
        self.name = f"tests, rules {RULES}, {timeout_s} s, Python {settings.python or own}, {said}"
        self._stop = threading.Event()
        self._is_tried = False

    def covered(self, row: Row) -> list[Any]:
        return [row.reference, row.answer, [turn["content"] for turn in row.messages]]

    def grade(self, rows: Sequence[Row]) -> list[Verdict | Ungraded]:
        """Have rows graded, some at a time."""
        if rows and not self._is_tried:
            try_sandbox(self._settings, self._timeout_s)
            self._is_tried = True
        with ThreadPoolExecutor(_workers(self._settings)) as pool:
            try:
                return [*pool.map(self._verdict, rows)]
            except BaseException:
                self.interrupt()
                raise

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()

    def _verdict(self, row: Row) -> Verdict | Ungraded:
        tests = of_reference(row.reference or "")
        if tests is None:
            return None
        code = code_of(row.answer, tests.entry_point or tests.function)
        if tests.tests is not None:
            return self._run_tests(tests, prompt_code(row.messages, tests.entry_point), code)
        for given, expected in tests.cases:
            verdict = self._run_case(tests.function, code, given, expected)
            if verdict is not True:
                return verdict
        return True

    def _run_tests(self, tests: CodeTests, prompt: str, code: str) -> Verdict | Ungraded:
        payload = {"kind": "tests", "prompt": prompt, "code": code, **vars(tests)}
        output, mark, _ = self._run(payload)
        if output == inside.UNUSABLE:
            return None
        if not output.startswith(inside.STARTED):
            return Ungraded("no_sandbox")
        return output == inside.STARTED + mark

    def _run_case(self, function: str | None, code: str, given: str, expected: str) -> Verdict | Ungraded:
        kind = "program" if function is None else "call"
        output, _, has_ended_well = self._run({"kind": kind, "code": code, "function": function, "input": given})
        if not output.startswith(inside.STARTED):
            return Ungraded("no_sandbox")
        said = output.removeprefix(inside.STARTED).decode(errors="replace")
        return has_ended_well and (same_output if function is None else same_result)(said, expected)

    def _run(self, payload: dict[str, Any]) -> tuple[bytes, bytes, bool]:
        """Run in a new sandbox; returns the output, the mark of tests that passed, and whether it ended well."""
        ran, mark = run_inside(self._settings, payload, self._timeout_s, self._stop)
        if ran.passed == "stopped":
            raise EngineError("grading was stopped; run again, what was graded is kept")
        return ran.output, mark, ran.passed is None and ran.status == 0


def _workers(settings: SandboxSettings) -> int:
    """Return how many sandboxes there may be at a time: for as many as this machine has processors and memory."""
    if settings.url is not None:
        return MOST
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(MOST, os.cpu_count() or 1, memory // (2 * settings.memory_mb * MIB)))
