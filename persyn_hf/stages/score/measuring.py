"""Measure answers through the journal by models that run here: the student, and reward models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends import loading as models
from persyn_hf.backends import templates
from persyn_hf.backends.chat import Row
from persyn_hf.backends.launching.plan import plan_of
from persyn_hf.backends.scoring import Measured, Values, score_rows
from persyn_hf.backends.scoring.launched import read_left, score_launched
from persyn_hf.backends.scoring.likelihood import MEASURES
from persyn_hf.backends.scoring.measure import measure
from persyn_hf.backends.scoring.open_scorer import open_scorer
from persyn_hf.errors import RecipeError
from persyn_hf.stage import Context
from persyn_hf.stages.score.settings import Settings


def likelihoods(settings: Settings, context: Context, rows: Sequence[Row]) -> list[Values]:
    """Measure every row (conversation and answer) under the student; returns `MEASURES` of each row, in order."""
    student = context.student
    if student is None or student.model is None:
        raise RecipeError(
            "`score` needs a student with a `model` to measure learnability; "
            "name one, or set `learnability: none` and `alpha: 0`"
        )
    template = models.read_template(student.chat_template)
    identity = models.identify(student.model, student.revision)
    under = ["likelihood 2", identity, template, settings.max_length, settings.dtype]
    tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
    if templates.look_at(tokenizer, student.model).changes:  # what such a template wrote was scored once
        under.append("as said")
    options = {
        "model": student.model,
        "revision": student.revision,
        "max_length": settings.max_length,
        "chat_template": student.chat_template,
        "dtype": settings.dtype,
    }
    batch_tokens = settings.batch_tokens
    return by_scorer(settings, context, rows, under, f"score {student.name}", "likelihood", options, batch_tokens)


def likelihood_columns(measured: Sequence[Values] | None, size: int) -> dict[str, list[Any]]:
    """Return the columns of `MEASURES` and `mean_logprob`; without a measurement they are None, and nothing is cut."""
    if measured is None:
        return {name: [None] * size for name in ("mean_logprob", *MEASURES[:3])} | {"truncated": [False] * size}
    columns = {name: [values[place] for values in measured] for place, name in enumerate(MEASURES)}
    pairs = zip(columns["sum_logprob"], columns["num_tokens"], strict=True)
    return columns | {"mean_logprob": [total / tokens if tokens else None for total, tokens in pairs]}


def by_scorer(
    settings: Settings,
    context: Context,
    rows: Sequence[Row],
    under: Sequence[Any],
    what: str,
    kind: str,
    options: dict[str, Any],
    batch_tokens: int | None,
) -> list[Values]:
    """Measure rows by the scorer of `kind` and `options`, in this process or in those of `accelerate launch`.

    `under` names all that the values depend on other than the row; the journal keeps them by it.
    """
    folder = context.work_dir / kind
    plan = plan_of(settings, "score")

    def score(todo: Sequence[Row], skip: frozenset[int]) -> Measured:
        if plan is None:
            scorer = open_scorer(kind, **options, device=settings.device)
            return score_rows(scorer, todo, batch_tokens=batch_tokens, skip=skip)
        return score_launched(
            plan,
            folder,
            todo,
            under,
            kind=kind,
            options=options,
            batch_tokens=batch_tokens,
            skip=skip,
        )

    return measure(
        rows,
        under,
        journal_of(context),
        context.progress,
        what,
        score,
        planned=folder.with_suffix(".json"),
        left=read_left(folder),
    )


def journal_of(context: Context) -> Path:
    """Return the store's journal; one of the step's own where there is no store."""
    return context.journal or context.work_dir / "journal.sqlite"
