"""The criterion `judge`: answers judged by a language model, one by one or in pairs, by one judge or a panel."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.asking import Heard
from persyn_hf.backends.judging.panel import hear_panel, means_of, verdicts_of
from persyn_hf.backends.judging.questions import Question, Shown
from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.cost import ledger
from persyn_hf.core.reliability import krippendorff_alpha
from persyn_hf.core.tournament import strengths
from persyn_hf.stage import Context
from persyn_hf.stages.score.criteria import Judged, Quality
from persyn_hf.stages.score.measuring import journal_of


def judge(settings: JudgeSettings, context: Context, answers: Sequence[Judged]) -> Quality:
    """Have every judge of the panel judge all answers; thoughts of teachers are not shown.

    Raises:
        BudgetReached: the run's limits allow no more.
        UnderWay: batches are under way, and the run is not to wait for them.
        EngineError: a judge cannot be run, or too many of its replies hold no verdict.
        RecipeError: the rubric cannot be used.
    """
    shown = [Shown(prompt=answer.prompt, text=answer.response["response"]) for answer in answers]
    with Journal(journal_of(context), recipe=context.recipe) as journal:
        questions, panel = hear_panel(settings, context, journal, shown)
    verdicts = verdicts_of(questions, panel)
    metrics: dict[str, Any] = {"judges": {heard.judge.label: _line(heard) for heard in panel}}
    if settings.mode == "pairwise":
        values = _strengths(shown, questions, verdicts)
        units = _of_pairs(verdicts)
        metrics["position"] = {
            heard.judge.label: position_bias(row) for heard, row in zip(panel, verdicts, strict=True)
        }
    else:
        values = means_of(len(answers), questions, verdicts)
        units = verdicts
    if len(panel) > 1:
        metrics["agreement"] = _agreement(units)
    faults = sum((heard.faults for heard in panel), Counter[str]())
    counts = {"replies": sum(len(some) for heard in panel for some in heard.verdicts)}
    counts |= {f"unread_{fault}": number for fault, number in sorted(faults.items())}
    if read_rubric(settings.rubric, settings.mode, settings.scale).needs_reference:
        counts["no_reference"] = sum(answer.prompt["reference"] is None for answer in answers)
    costs = {heard.judge.payee: heard.cost for heard in panel}
    cost = ledger(costs, {heard.judge.payee: heard.new for heard in panel})
    said = _said(answers, questions, panel)
    return Quality(values=values, verdicts=said, counts=counts, metrics=metrics, cost=cost)


def _said(
    answers: Sequence[Judged], questions: Sequence[Question], panel: Sequence[Heard]
) -> list[list[dict[str, Any]] | None]:
    """Return what the judges replied on each answer; of two in one question it stands with the one shown first."""
    said: list[list[dict[str, Any]] | None] = [None] * len(answers)
    for heard in panel:
        for question, verdicts, reasons in zip(questions, heard.verdicts, heard.reasons, strict=True):
            first, *other = question.places
            shown = f"as A, against {answers[other[0]].response.get('teacher', 'another answer')}" if other else ""
            said[first] = (said[first] or []) + [
                {
                    "judge": heard.judge.label,
                    "shown": shown,
                    "verdict": verdict.value,
                    "reason": reason,
                    "fault": verdict.fault,
                }
                for verdict, reason in zip(verdicts, reasons, strict=True)
            ]
    return said


def _line(heard: Heard) -> dict[str, Any]:
    """Return a judge's line of the metrics; `unread`: the share of its replies that hold no verdict."""
    values = [value for value in heard.means if value is not None]
    replies = sum(map(len, heard.verdicts))
    return {
        "questions": len(heard.verdicts),
        "mean": float(np.mean(values)) if values else None,
        "unread": heard.faults.total() / replies if replies else 0.0,
    }


def _strengths(shown: Sequence[Shown], questions: Sequence[Question], verdicts: FloatArray) -> list[float | None]:
    """Return the Bradley-Terry strength of each answer among those to its prompt, over all judges.

    A judge's verdict counts where it has one in both orders: one alone is half its taste for a place.
    """
    places: dict[str, list[int]] = {}
    for place, answer in enumerate(shown):
        places.setdefault(answer.prompt["prompt_id"], []).append(place)
    won: Mapping[str, FloatArray] = {name: np.zeros((len(some), len(some))) for name, some in places.items()}
    judges = len(verdicts)
    for name, some in places.items():  # equal texts tie, as often as others are compared
        texts = [shown[place].text for place in some]
        same = np.array([[a == b for b in texts] for a in texts]) & ~np.eye(len(some), dtype=bool)
        won[name][same] = judges
    for at in range(0, len(questions), 2):
        first, second = questions[at].places
        some = places[questions[at].prompt_id]
        row, column = some.index(first), some.index(second)
        both = verdicts[:, at : at + 2][~np.isnan(verdicts[:, at : at + 2]).any(axis=1)]
        wins = float((both[:, 0] + 1 - both[:, 1]).sum())
        won[questions[at].prompt_id][row, column] = wins
        won[questions[at].prompt_id][column, row] = 2 * len(both) - wins
    values: list[float | None] = [None] * len(shown)
    for name, some in places.items():
        for place, value in zip(some, strengths(won[name]), strict=True):
            values[place] = None if np.isnan(value) else float(value)
    return values


def _of_pairs(verdicts: FloatArray) -> FloatArray:
    """Return the share of its two games that the first answer of each pair has won, (judges, pairs)."""
    pairs: FloatArray = (verdicts[:, 0::2] + 1 - verdicts[:, 1::2]) / 2
    return pairs


def position_bias(verdicts: FloatArray) -> dict[str, Any]:
    """Return how a judge takes the two orders of a pair, of the pairs with a verdict in both.

    verdicts (2 P,): for each pair the verdict in one order and in the other; 1: the answer shown first is better.
    consistent: the share where the same answer wins, or both are ties. first, second: where whichever stands there
    wins twice.

    Example: (1, 0), (1, 1), (0.5, 0.5), (1, 0.5) are consistent in 2 of 4; `first` is 1/4.
    """
    both = np.sign(np.asarray(verdicts, dtype=np.float64).reshape(-1, 2) - 0.5)
    both = both[~np.isnan(both).any(axis=1)]
    if not len(both):
        return {"pairs": 0, "consistent": None, "first": None, "second": None}
    return {
        "pairs": len(both),
        "consistent": float((both[:, 0] == -both[:, 1]).mean()),
        "first": float((both == 1).all(axis=1).mean()),
        "second": float((both == -1).all(axis=1).mean()),
    }


def _agreement(units: FloatArray) -> dict[str, Any]:
    """Return Krippendorff's alpha (interval) of the panel, and the number of units with two verdicts or more."""
    alpha = krippendorff_alpha(units)
    shared = int(((~np.isnan(units)).sum(axis=0) > 1).sum())
    return {"alpha": None if np.isnan(alpha) else alpha, "units": shared}
