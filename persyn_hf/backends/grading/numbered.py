"""Have a command give each answer a number, through the journal."""

from collections.abc import Sequence

from persyn_hf.backends.grading.command import CommandGrader
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.settings import CommandSettings
from persyn_hf.backends.grading.verdicts import Row
from persyn_hf.backends.journal import Journal
from persyn_hf.stage import Progress


AT_A_TIME = 256  # answers: what they get is kept before the next ones are graded


def number_all(
    settings: CommandSettings, journal: Journal, progress: Progress, rows: Sequence[Row]
) -> list[float | None]:
    """Return the number that the command gives each answer: true is 1; None: it cannot tell, or it failed."""
    progress.start("judge with the command", len(rows))
    values: list[float | None] = []
    with Grader(journal, CommandGrader(settings, numbers=True)) as grader:
        for start in range(0, len(rows), AT_A_TIME):
            some = rows[start : start + AT_A_TIME]
            values += grader.judge(some)
            progress.advance(len(some))
    return values
