"""The frontier of reward against cost: what a budget buys, from what `assign` left in its metrics."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.report.tables import Shown, Table, shown
from persyn_hf.store.manifest import Manifest


UNITS = {"generations": "answers", "tokens": "tokens", "flops": "FLOPs", "money": "money"}


def frontiers(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> dict[str, Manifest]:
    """Return the assignments of every strategy with a budget that counts a cost, by the strategy's name."""
    keys = {strategy.name: names.assignments(student, strategy) for strategy in recipe.strategies}
    stored = {name: manifests[key] for name, key in keys.items() if key in manifests}
    return {name: manifest for name, manifest in stored.items() if "frontier" in manifest.metrics}


def frontier_table(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return a table of the points of every strategy's frontier, then of the point that its budget came to."""
    rows = []
    for name, manifest in frontiers(recipe, manifests, student).items():
        unit = UNITS[manifest.settings["budget"]["cost"]]
        for point in manifest.metrics["frontier"].values():
            rows.append([name, "", *_cells(point["cost"], unit, point["reward"], point["price"])])
        cost, budget = _chosen(manifest)
        rows.append([name, "chosen", *_cells(cost, unit, budget["predicted_reward"], budget["price"])])
    return Table(
        name=f"frontier-{student.name}",
        title=f"What a budget buys for {student.name}: predicted reward against cost, per routed prompt",
        header=["strategy", "", "cost", "predicted reward", "reward per unit more"],
        rows=rows,
        note="the best that any assignment reaches at that cost, within the strategy's shares",
    )


def _cells(cost: float, unit: str, reward: float, price: float) -> list[str]:
    """Return cost, reward and price of one point as cells."""
    return [Shown(f"{cost:.4g} {unit}", cost), shown("{:.3f}", reward), shown("{:.3g}", price)]


def _chosen(manifest: Manifest) -> tuple[float, dict[str, Any]]:
    """Return the cost of one routed prompt as it was assigned, and the figures of the budget."""
    budget = manifest.metrics["budget"]
    return budget["cost"] / max(budget["prompts"], 1), budget


def draw_frontier(name: str, manifest: Manifest) -> Any:
    """Draw predicted reward over cost, both per routed prompt; the dot is the assignment."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    points = list(manifest.metrics["frontier"].values())
    axes.plot([p["cost"] for p in points], [p["reward"] for p in points], marker=".", color="#3b6fb6", label="best")
    cost, budget = _chosen(manifest)
    axes.plot([cost], [budget["predicted_reward"]], "o", color="#c2572b", label=name)
    unit = UNITS[manifest.settings["budget"]["cost"]]
    axes.set(xlabel=f"{unit} per routed prompt", ylabel="predicted reward")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
