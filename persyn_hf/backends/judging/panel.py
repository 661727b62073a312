"""Have a panel of judges answer questions about answers, and read what it says of each."""

from collections.abc import Sequence

import numpy as np

from persyn_hf.backends.engines.batch.notes import Sender
from persyn_hf.backends.engines.spending import open_budget
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.asking import Bench, Heard
from persyn_hf.backends.judging.opening import payees
from persyn_hf.backends.judging.questions import Question, Shown, make_questions
from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.core.arrays import FloatArray
from persyn_hf.stage import Context


def hear_panel(
    settings: JudgeSettings, context: Context, journal: Journal, shown: Sequence[Shown]
) -> tuple[list[Question], list[Heard]]:
    """Have every judge judge the answers, through the journal and within the run's limits.

    Raises:
        BudgetReached: the run's limits allow no more.
        EngineError: a judge cannot be run, or too many of its replies hold no verdict.
        RecipeError: the rubric cannot be used.
    """
    rubric = read_rubric(settings.rubric, settings.mode, settings.scale)
    questions = make_questions(settings, rubric, shown)
    bench = Bench(
        settings=settings,
        rubric=rubric,
        seed=context.seed,
        journal=journal,
        budget=open_budget(context.limits, journal, context.recipe, {**context.payees, **payees(settings)}),
        progress=context.progress,
        sender=Sender(recipe=context.recipe, waits=context.limits.wait_for_batches),
    )
    return questions, bench.hear_all(settings.judges, questions)


def verdicts_of(questions: Sequence[Question], panel: Sequence[Heard]) -> FloatArray:
    """Return the mean verdict of each judge on each question, (judges, questions); NaN where it has none."""
    return np.array([heard.means for heard in panel], dtype=np.float64).reshape(len(panel), len(questions))


def means_of(number: int, questions: Sequence[Question], verdicts: FloatArray) -> list[float | None]:
    """Return the mean over the panel of each of `number` answers that were judged one by one.

    None where a judge has none: judges differ in severity.
    """
    values: list[float | None] = [None] * number
    for question, mean in zip(questions, verdicts.mean(axis=0), strict=True):
        values[question.places[0]] = None if np.isnan(mean) else float(mean)
    return values
