"""Criteria and judges in a report: what they said of the answers, how often nothing, their bias and their cost."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.backends.journal_spent import Spent
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.core.cost import answers_cost
from persyn_hf.formats import UNKNOWN
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.report.strategy_costs import Paid
from persyn_hf.report.tables import Table
from persyn_hf.store.manifest import Manifest


def criteria_table(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return a row per criterion that the quality was weighed of; no rows where it is a single one."""
    stored = manifests.get(names.matrix_rewards(student))
    lines: Mapping[str, Any] = {} if stored is None else stored.metrics.get("criteria", {})
    rows = [
        [
            name,
            _share(line["weight"]),
            UNKNOWN if line["mean"] is None else f"{line['mean']:.3f}",
            _share(line["unjudged"]),
        ]
        for name, line in lines.items()
    ]
    return Table(
        name=f"criteria-{student.name}",
        title=f"Criteria of quality ({student.name})",
        header=["criterion", "weight", "mean, raw", "without a value"],
        rows=rows,
        note="each is normalised per prompt before it is weighted; where it says nothing of a prompt it has no weight",
    )


def judges_table(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return a row per judge of the calibration and dev answers; no rows where no judge has judged them."""
    stored = manifests.get(names.matrix_rewards(student))
    metrics: Mapping[str, Any] = {} if stored is None else stored.metrics
    position = metrics.get("position", {})
    rows = []
    for name, line in metrics.get("judges", {}).items():
        place = position.get(name, {})
        bias = [_share(place.get(key)) for key in ("consistent", "first", "second")] if position else []
        mean = UNKNOWN if line["mean"] is None else f"{line['mean']:.3f}"
        rows.append([name, f"{line['questions']:,}", mean, _share(line["unread"]), *bias])
    alpha = metrics.get("agreement", {}).get("alpha")
    orders = ["both orders agree", "prefers the first", "prefers the second"] if position else []
    return Table(
        name=f"judges-{student.name}",
        title=f"Judges of the answers ({student.name})",
        header=["judge", "questions", "mean verdict", "without a verdict", *orders],
        rows=rows,
        note="" if alpha is None else f"Krippendorff's alpha of the judges (interval): {alpha:.3f}",
    )


def paid_judges(recipe: Recipe, spent: Mapping[str, Spent]) -> dict[str, Paid]:
    """Return, per judge of the recipe, what all its runs have paid it by the journal, each reply once."""
    section = recipe.score.get("judge")
    panel = [] if not section else read_section(JudgeSettings, section, "score.judge").judges
    accounts = {}
    for judge in panel:
        if judge.payee in spent:
            said = spent[judge.payee]
            cost = answers_cost(
                said.requests,
                None if said.uncounted else said.prompt_tokens,
                None if said.uncounted else said.completion_tokens,
                said.seconds,
                gpus=None,
                params_b=judge.params_b,
                price=judge.price,
            )
            truncated, errors = (number / max(1, said.requests) for number in (said.truncated, said.errors.total()))
            accounts[judge.payee] = Paid(cost, truncated, errors, said.counted_here > 0)
    return accounts


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"
