"""Judge answers: the criteria of `score.quality`, each a function from answers to numbers.

A criterion gives a number, higher is better, or None where it could not judge: never 0 for that.
"""

from collections.abc import Callable, Sequence
from functools import partial

from persyn_hf.backends import loading as models
from persyn_hf.backends.scoring.measure import measure
from persyn_hf.stage import Context
from persyn_hf.stages.score.commanded import by_command
from persyn_hf.stages.score.criteria import Judged, Quality
from persyn_hf.stages.score.measuring import by_scorer, journal_of
from persyn_hf.stages.score.settings import Settings


RIGHT_OR_WRONG = ("correct", "pass_rate")  # criteria whose least value is known: 0, wrong


def of_answers(settings: Settings, context: Context, answers: Sequence[Judged]) -> Quality:
    """Return the quality of every answer before normalisation, in order; None where it could not be judged."""
    found = CRITERIA[settings.quality](settings, context, answers)
    return found if isinstance(found, Quality) else Quality(values=found)


def of_failed(criterion: str, judged: Sequence[float | None]) -> float | None:
    """Return the quality of a teacher that did not answer: wrong, or the least that was measured, if any was."""
    known = [value for value in judged if value is not None]
    if not known:
        return None
    return 0.0 if criterion in RIGHT_OR_WRONG else min(known)


def _by_column(column: str, settings: Settings, context: Context, answers: Sequence[Judged]) -> list[float | None]:
    """Return what a column of the responses says."""
    values = [answer.response[column] for answer in answers]
    return [None if value is None else float(value) for value in values]


def _by_pass_rate(settings: Settings, context: Context, answers: Sequence[Judged]) -> list[float | None]:
    return [answer.pass_rate for answer in answers]


def _by_reward_model(settings: Settings, context: Context, answers: Sequence[Judged]) -> list[float | None]:
    """Return the reward model's raw score of every answer, as a user would see it; None: too long for the model."""
    rows = [(answer.prompt["messages"], answer.response["response"]) for answer in answers]
    model = settings.reward_model
    assert model.model is not None  # the settings' check
    what = f"judge with {model.model}"
    if model.server.urls:  # its weights are not here to be digested, so its name stands for them
        from persyn_hf.backends.scoring.reward_endpoint import judge

        score = partial(judge, model.model, model.server, max_length=model.max_length)
        under = ["reward server 1", model.model, model.revision, model.max_length]
        planned = context.work_dir / "reward_model.json"
        values = measure(rows, under, journal_of(context), context.progress, what, score, planned=planned)
        return [value for (value,) in values]
    identity = models.identify(model.model, model.revision)
    options = {
        "model": model.model,
        "revision": model.revision,
        "max_length": model.max_length,
        "dtype": model.dtype,
    }
    under = ["reward model 1", identity, model.max_length, model.dtype]
    values = by_scorer(settings, context, rows, under, what, "reward_model", options, model.batch_tokens)
    return [value for (value,) in values]


def _by_command(settings: Settings, context: Context, answers: Sequence[Judged]) -> list[float | None]:
    """Return what a command of the user's says."""
    return by_command(settings, context, [(answer.prompt, answer.response) for answer in answers])


def _by_judge(settings: Settings, context: Context, answers: Sequence[Judged]) -> Quality:
    """Return what a language model says."""
    from persyn_hf.stages.score.judging import judge

    assert settings.judge is not None  # the settings' check
    return judge(settings.judge, context, answers)


# A criterion with counts, metrics or a cost of its own returns a `Quality`.
Criterion = Callable[[Settings, Context, Sequence[Judged]], list[float | None] | Quality]

CRITERIA: dict[str, Criterion] = {
    "correct": partial(_by_column, "is_correct"),
    "pass_rate": _by_pass_rate,
    "column": partial(_by_column, "quality"),
    "reward_model": _by_reward_model,
    "command": _by_command,
    "judge": _by_judge,
}
