"""Judge answers by a command of the user's: the criterion `command` of `score.quality`."""

from collections.abc import Mapping, Sequence
from typing import Any

from persyn_hf.backends.grading.command import CommandGrader
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.verdicts import Row
from persyn_hf.backends.journal import Journal
from persyn_hf.stage import Context
from persyn_hf.stages.score.measuring import journal_of
from persyn_hf.stages.score.settings import Settings


AT_A_TIME = 256  # answers: what they get is kept before the next ones are graded


def by_command(
    settings: Settings, context: Context, answers: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[float | None]:
    """Return the number that the command gives each answer: true is 1; None: it cannot tell, or it failed.

    An answer is the row of its prompt and the row of its response.
    """
    rows = [
        Row(
            reference=None if prompt["reference"] is None else str(prompt["reference"]),
            answer=response["response"],
            prompt_id=prompt["prompt_id"],
            messages=prompt["messages"],
        )
        for prompt, response in answers
    ]
    context.progress.start("judge with the command", len(rows))
    values: list[float | None] = []
    command = CommandGrader(settings.command, numbers=True)
    with Journal(journal_of(context)) as journal, Grader(journal, command) as grader:
        for start in range(0, len(rows), AT_A_TIME):
            some = rows[start : start + AT_A_TIME]
            values += grader.judge(some)
            context.progress.advance(len(some))
    return values
