"""Open the grader that a recipe names."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any, Literal

from persyn_hf.backends.grading.judge import RULES
from persyn_hf.backends.grading.pool import Verifier
from persyn_hf.backends.grading.settings import CommandSettings, SandboxSettings
from persyn_hf.backends.grading.verdicts import Judging, Row, Ungraded, Verdict


Kind = Literal["math", "command", "tests"]


class MathGrader:
    """math-verify, in its pool of processes."""

    needs_reference = True

    def __init__(self, timeout_s: float) -> None:
        self.name = f"math-verify {importlib.metadata.version('math-verify')}, rules {RULES}, {timeout_s} s"
        self._verifier = Verifier(timeout_s=timeout_s)

    def covered(self, row: Row) -> list[Any]:
        return [row.reference, row.answer]

    def grade(self, rows: Sequence[Row]) -> list[Verdict | Ungraded]:
        return [*self._verifier.grade([(row.reference or "", row.answer) for row in rows])]

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self._verifier.close()


def open_grader(kind: Kind, *, timeout_s: float, command: CommandSettings, sandbox: SandboxSettings) -> Judging:
    """Open a grader of answers that are right or wrong; nothing is started before its first row.

    Raises:
        PersynError: it cannot work here (`check_grader`).
    """
    if kind == "command":
        from persyn_hf.backends.grading.command import CommandGrader

        return CommandGrader(command)
    if kind == "tests":
        from persyn_hf.backends.grading.tested import CodeGrader

        return CodeGrader(sandbox, timeout_s)
    return MathGrader(timeout_s)


def check_grader(kind: Kind, *, timeout_s: float, command: CommandSettings, sandbox: SandboxSettings) -> None:
    """Refuse a grader that cannot work on this machine, before an answer is paid for.

    Raises:
        InputError, EngineError, RecipeError: the command is not found or fails on no lines at all; the sandbox cannot
        be made.
    """
    if kind == "command":
        from persyn_hf.backends.grading.command import try_command

        try_command(command)
    if kind == "tests":
        from persyn_hf.backends.grading.sandbox import try_sandbox

        try_sandbox(sandbox, timeout_s)
