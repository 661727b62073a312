"""Judge answers: the criteria of `score.quality`, each a function from answers to numbers.

A criterion gives a number, higher is better, or None where it could not judge: never 0 for that.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from persyn_hf.backends import loading as models
from persyn_hf.backends.grading.numbered import number_all
from persyn_hf.backends.grading.verdicts import row_of
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.scoring.measure import measure
from persyn_hf.core.criteria import mix_criteria
from persyn_hf.schemas import criterion_column
from persyn_hf.stage import Context
from persyn_hf.stages.score.criteria import Cell, Judged, Quality
from persyn_hf.stages.score.measuring import by_scorer, journal_of
from persyn_hf.stages.score.settings import Settings


RIGHT_OR_WRONG = ("correct", "pass_rate")  # criteria whose least value is known: 0, wrong


def of_answers(settings: Settings, context: Context, answers: Sequence[Judged]) -> dict[str, Quality]:
    """Return what each criterion of the settings says of every answer, raw, in order; None: it could not judge."""
    found = {name: CRITERIA[name](settings, context, answers) for name in settings.weights}
    return {name: said if isinstance(said, Quality) else Quality(values=said) for name, said in found.items()}


def columns_of(
    settings: Settings,
    found: Mapping[str, Quality],
    columns: Mapping[str, Sequence[Any]],
    answered: Sequence[Cell],
    cells: Sequence[Cell],
) -> dict[str, list[Any]]:
    """Return `quality_raw`, one value per cell; where several criteria are weighted, also a column of each.

    Where judges were asked, `verdicts` is a column, too.

    columns: `prompt_id` and `teacher` of the cells. A failed teacher has what `of_failed` says of each criterion, but
    to prompts of whose answers that says nothing: it does not count there.
    """
    spread = {name: _spread(settings, name, said.values, answered, cells) for name, said in found.items()}
    verdicts: dict[str, list[Any]] = {}
    for said in found.values():
        if said.verdicts is not None:
            of_cell = dict(zip(answered, said.verdicts, strict=True))
            verdicts = {"verdicts": [of_cell.get(cell) for cell in cells]}
    if not settings.is_mixed:
        (raw,) = spread.values()
        return {"quality_raw": raw, **verdicts}
    made = {criterion_column(name): values for name, values in spread.items()}
    how = settings.normalisation, settings.in_part, settings.near_tie
    return {**made, "quality_raw": mix_criteria(columns, spread, settings.weights, *how), **verdicts}


def _spread(
    settings: Settings,
    criterion: str,
    said: Sequence[float | None],
    answered: Sequence[Cell],
    cells: Sequence[Cell],
) -> list[float | None]:
    """Spread what a criterion says of the answers over all cells, those of failed teachers too."""
    values = dict(zip(answered, said, strict=True))
    judged = {prompt_id for (prompt_id, _), value in values.items() if value is not None}
    silent = {prompt_id for prompt_id, _ in answered} - judged if settings.is_mixed else set[str]()
    failed = of_failed(criterion, said)
    return [values[cell] if cell in values else None if cell[0] in silent else failed for cell in cells]


def summary(settings: Settings, found: Mapping[str, Quality]) -> Quality:
    """Return the counts, metrics and cost of all criteria.

    Where there are several, the metrics have of each its weight, of 1 in all, and over the answers its mean and the
    share without a value.
    """
    metrics: dict[str, Any] = {}
    if settings.is_mixed:
        metrics["criteria"] = {name: _line(settings, name, said.values) for name, said in found.items()}
    counts: dict[str, int] = {}
    cost: dict[str, Any] = {}
    for said in found.values():
        counts |= said.counts
        metrics |= said.metrics
        cost |= said.cost
    return Quality(values=(), counts=counts, metrics=metrics, cost=cost)


def _line(settings: Settings, criterion: str, said: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in said if value is not None]
    return {
        "weight": settings.weights[criterion] / sum(settings.weights.values()),
        "mean": sum(known) / len(known) if known else None,
        "unjudged": 1 - len(known) / max(len(said), 1),
    }


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
    rows = [row_of(answer.prompt, answer.response["response"]) for answer in answers]
    with Journal(journal_of(context)) as journal:
        return number_all(settings.command, journal, context.progress, rows)


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
