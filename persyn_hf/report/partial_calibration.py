"""The cost of a calibration that pays for a part of its cells, against that of every cell, and the router's gain."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.core.cost import Cost
from persyn_hf.formats import UNKNOWN, known_columns
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.report.results import router_metrics
from persyn_hf.report.strategy_costs import split_costs
from persyn_hf.report.tables import Shown, Table, cost_cells, shown, shown_metric
from persyn_hf.store.manifest import Manifest


PAID = "paid for"


def labelling_table(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return a row per round and one for every cell: cells, their cost, and the gap that the router closes on dev."""
    chosen = _rounds(recipe, manifests)
    costs = {label: _cost(recipe, manifests, line["cells"]) for label, line in chosen.items()}
    columns = known_columns(costs.values())
    ahead = _ahead(chosen)
    rows = [
        [
            label,
            shown("{:,}", line["prompts"]),
            shown("{:,}", sum(line["cells"].values())),
            shown("{:.0%}", line["share"]),
            *cost_cells(columns, costs[label]),
            *([shown("{:.3f}", ahead[label])] if label in ahead else [Shown(UNKNOWN, None)] * bool(ahead)),
            _gap_closed(recipe, manifests, student) if label == PAID else Shown(UNKNOWN, None),
        ]
        for label, line in chosen.items()
    ]
    titles = [column.title for column in columns] + ["a further cell brings"] * bool(ahead)
    return Table(
        name=f"labelling-{student.name}",
        title=f"Labels of the calibration prompts ({recipe.calibration.strategy}) and the router for {student.name}",
        header=["", "prompts", "cells", "share", *titles, "gap closed"],
        rows=rows,
        note="costs: cells at each teacher's mean; the gap is closed on prompts that the router never saw, and "
        "what every cell would have closed is known after a run with `calibration.strategy: full`"
        + _why(chosen)
        + _prior(chosen),
    )


def _rounds(recipe: Recipe, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return what `assign` noted of the cells after each round, by label, and the same for every cell."""
    matrix, prompts = manifests.get(names.matrix_assignments()), manifests.get(names.PROMPTS)
    answered = names.matrix_responses() in manifests
    if matrix is None or prompts is None or not answered or "labelling" not in matrix.metrics:
        return {}
    numbers = range(1, recipe.calibration.rounds)
    rounds = [(number, names.matrix_assignments(names.round_suffix(number))) for number in numbers]
    last, number = matrix.metrics["labelling"], prompts.counts.get("rows_calibration", 0)
    return {
        **{f"round {round}": manifests[key].metrics["labelling"] for round, key in rounds if key in manifests},
        PAID: last,
        "every cell": {"cells": dict.fromkeys(last["cells"], number), "prompts": number, "share": 1.0},
    }


def _ahead(chosen: Mapping[str, Any]) -> dict[str, float]:
    """Return by round what a further cell brings at most, as the round after it has found."""
    lines = list(chosen.items())
    pairs = zip(lines, lines[1:], strict=False)
    found = {label: after.get("ahead", {}).get("per_cell") for (label, _), (_, after) in pairs}
    return {label: value for label, value in found.items() if value is not None}


def _why(chosen: Mapping[str, Any]) -> str:
    """Say whether calibration ended before all was spent, and why; empty where it was not to."""
    looks = [line["ahead"] for line in chosen.values() if "ahead" in line]
    if not looks:
        return ""
    last = looks[-1]
    rule = (
        f"; a further cell brings: reward at most, summed over the {last['pool']:,} pool prompts, its price is "
        f"{last['price']:g}"
    )
    round = next((number for number, look in enumerate(looks, 1) if look["stop"]), None)
    return rule + ("" if round is None else f"; calibration ended after round {round}, as a further cell does not pay")


def _prior(chosen: Mapping[str, Any]) -> str:
    """Say what the last round has made of the prior; empty where there is none."""
    found = chosen.get(PAID, {}).get("prior")
    if found is None:
        return ""
    if not max(found["count"].values()):
        return "; the prior counts for nothing, as the rewards so far do not bear it out"
    return (
        f"; the prior knows {found['prompts']:,} calibration prompts, and counts for "
        f"{max(found['count'].values()):.1f} rewards of a teacher, as the rewards of the round before bear it out"
    )


def _cost(recipe: Recipe, manifests: Mapping[str, Manifest], cells: Mapping[str, int]) -> Cost:
    """Return the cost of some cells, at each teacher's mean over the calibration cells that were paid for."""
    paid = manifests[names.matrix_assignments()].metrics["labelling"]["cells"]
    costs = split_costs(recipe, manifests[names.matrix_responses()], "calibration")
    return sum((cost * (cells.get(name, 0) / max(1, paid.get(name, 0))) for name, cost in costs.items()), Cost())


def _gap_closed(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Shown:
    """Return the gap that the first router with a value closes, with its interval."""
    for metrics in router_metrics(recipe, manifests, student).values():
        cell = metrics["router"]["gap_closed"]
        if cell["value"] is not None:
            return shown_metric("{:.0%}", cell)
    return Shown(UNKNOWN, None)
