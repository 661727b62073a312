"""The seam between those who have answers and those who grade them: rows in, verdicts out.

A grader is math-verify (`MathGrader`), a command of the user's (`command.py`) or tests in a sandbox (`tested.py`).
`generate` and `score` know this module only, and `opening.py` alone knows which setting names which grader.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Row:
    """An answer to grade. Graders are not told which teacher gave it."""

    reference: str | None
    answer: str
    prompt_id: str = ""
    messages: Sequence[Mapping[str, str]] = ()


def row_of(prompt: Mapping[str, Any], answer: str) -> Row:
    """Return an answer to a row of the prompts dataset as graders read it."""
    reference = prompt["reference"]
    return Row(
        reference=None if reference is None else str(reference),
        answer=answer,
        prompt_id=prompt["prompt_id"],
        messages=prompt["messages"],
    )


@dataclass(frozen=True)
class Ungraded:
    """The verdict of a grader that has failed: null, counted under `reason`, and asked for again by the next run."""

    reason: str  # one word: hung, died, silent


Verdict = bool | float | None  # None: the grader says that it cannot tell


class Judging(Protocol):
    """A way to grade answers. It is used by one thread at a time."""

    name: str  # all that verdicts depend on besides the row: the journal keeps them under it
    needs_reference: bool  # rows without a reference are not graded

    def covered(self, row: Row) -> list[Any]:
        """Return, as plain JSON, all of a row that its verdict depends on."""

    def grade(self, rows: Sequence[Row]) -> list[Verdict | Ungraded]:
        """Return a verdict for each row, in order.

        Raises:
            EngineError: it works for no row at all; the sentence says why.
        """

    def interrupt(self) -> None:
        """Have `grade`, which may run in another thread, end soon by an error, where it takes long."""

    def close(self) -> None:
        """End all processes."""
