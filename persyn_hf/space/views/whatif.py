"""The view of what other weights would have chosen."""

from collections.abc import Callable
from typing import Any

from persyn_hf.core.rewards import How
from persyn_hf.formats import amount, flops
from persyn_hf.report.results import LEARNABILITY
from persyn_hf.space import whatif
from persyn_hf.space.scene import Scene


QUALITY, LEARNED, COST = "#3f8f5f", "#3b6fb6", "#c2572b"


def show(scene: Scene) -> str:
    """Return the choices under the weights of the state as HTML."""
    rewards, state = scene.load(), scene.state
    alpha, how, weight = float(state["alpha"]), state["how"], float(state["lambda"])
    settings = {"alpha": rewards.settings.get("alpha"), "normalisation": rewards.settings.get("normalisation")}
    paper_how: How = "minmax"
    now = whatif.what_if(rewards, alpha, how, weight)
    used = 0.4 if settings["alpha"] is None else settings["alpha"]
    here = whatif.what_if(rewards, used, settings["normalisation"] or "minmax")
    paper = whatif.what_if(rewards, 0.4, paper_how)
    sweep = whatif.curve(rewards, how, weight)
    measure = LEARNABILITY[rewards.measure]
    named = [("mean quality", "quality", QUALITY), (f"mean {measure}", "learnability", LEARNED)]
    named += [("cost", "cost", COST)] if rewards.cost is not None else []
    text = flops if rewards.unit == "FLOPs" else lambda number: f"{amount(number)} {rewards.unit}"
    series = [
        (f"{name}, {_range(sweep, field, text)}", _unit(sweep, field), colour, field == "cost")
        for name, field, colour in named
    ]
    marks = [(0.4, "the paper 0.4")] if used == 0.4 else [(0.4, "the paper"), (used, "the recipe")]
    marks += [(alpha, "now")] if abs(alpha - 0.4) > 0.06 and abs(alpha - used) > 0.06 else []
    return scene.render(
        "whatif",
        now=now,
        here=here,
        paper=paper,
        alpha=alpha,
        normalisation=how,
        weight=weight,
        settings=settings,
        measure=measure,
        cost=lambda outcome: "–" if outcome.cost is None else text(outcome.cost),
        xs=list(sweep),
        series=series,
        marks=marks,
        unit=rewards.unit,
        measured=rewards.prompts,
        sampled=len(rewards.quality),
    )


def _range(sweep: dict[float, Any], field: str, cost_text: Callable[[float], str]) -> str:
    """Return the smallest and the largest value of a field over the sweep, as text."""
    values = [getattr(outcome, field) for outcome in sweep.values()]
    return " to ".join(cost_text(v) if field == "cost" else f"{v:.3g}" for v in (min(values), max(values)))


def _unit(sweep: dict[float, Any], field: str) -> list[float]:
    """Return a field over the sweep, scaled to 0 at its smallest and 1 at its largest value."""
    values = [getattr(outcome, field) for outcome in sweep.values()]
    spread = max(values) - min(values)
    return [(value - min(values)) / spread if spread else 0.5 for value in values]
