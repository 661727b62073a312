"""Figures of the students' accuracies: strategies, ablation (the paper's Fig. 2), alpha after training (Fig. 4)."""

from collections.abc import Sequence
from typing import Any

from persyn_hf.recipe import names
from persyn_hf.recipe.strategies import KINDS, alpha_of
from persyn_hf.report.outcomes import Outcomes, Trial


COLOURS = ("#3b6fb6", "#c2572b", "#3f8f5f", "#8a5aa8", "#b08d2c", "#4aa3a8", "#a8475f", "#6b6b6b")
# Kinds of the ablation and their labels: the whole method, then what is left of it without a part of the reward.
ABLATION = {"persyn": "PerSyn"} | {kind: f"without {KINDS[kind].ablates}" for kind in KINDS if KINDS[kind].ablates}


def experiment_figures(students: Sequence[Outcomes]) -> dict[str, Any]:
    """Draw the figures that the stored evaluations allow, by name: `strategies-STUDENT`, `ablation` and others."""
    figures = {f"strategies-{each.student.name}": _strategies(each) for each in students if len(each.trials) > 1}
    ablated = [each for each in students if set(ABLATION) <= {trial.kind for trial in each.trials}]
    if ablated:
        figures["ablation"] = _ablation(ablated)
    swept = [each for each in students if len(_by_alpha(each)) > 1]
    if swept:
        figures["alpha-after-training"] = _alpha(swept)
    return figures


def _strategies(outcomes: Outcomes) -> Any:
    """Draw a student's accuracy before SFT and after each strategy."""
    figure, axes = _new(7, 1.2 + 0.36 * len(outcomes.trials))
    for row, trial in enumerate(outcomes.trials):
        colour = COLOURS[0] if trial.strategy else "#9a9a9a"
        value, low, high = outcomes.score(row)
        axes.barh(row, value, xerr=[[value - low], [high - value]], color=colour, error_kw={"lw": 1, "capsize": 2})
        axes.text(high + 0.005, row, f"{value:.1%}", va="center", fontsize=8)
    axes.set_yticks(range(len(outcomes.trials)), [trial.label for trial in outcomes.trials])
    axes.invert_yaxis()
    axes.set_xlabel(f"held-out accuracy of {outcomes.student.name} (95 % interval)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.margins(x=0.12)
    return figure


def _ablation(students: Sequence[Outcomes]) -> Any:
    """Draw three bars per student: the whole method, and the method without either part of the reward."""
    figure, axes = _new(2.5 + 1.6 * len(students), 3.2)
    for number, (name, label) in enumerate(ABLATION.items()):
        for place, each in enumerate(students):
            row = next(row for row, trial in enumerate(each.trials) if trial.kind == name)
            value, low, high = each.score(row)
            look = {"color": COLOURS[number], "label": "" if place else label, "error_kw": {"lw": 1, "capsize": 2}}
            axes.bar(place + 0.27 * (number - 1), value, 0.25, yerr=[[value - low], [high - value]], **look)
    axes.set_xticks(range(len(students)), [each.student.name for each in students])
    _accuracy_axis(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _alpha(students: Sequence[Outcomes]) -> Any:
    """Draw a line per student over alpha, the weight of learnability by which its teachers were chosen."""
    figure, axes = _new(6, 3.6)
    for number, each in enumerate(students):
        points = [(alpha, *each.score(row)) for alpha, row in sorted(_by_alpha(each).items())]
        alphas, values, lows, highs = zip(*points, strict=True)
        axes.plot(alphas, values, "o-", color=COLOURS[number % len(COLOURS)], markersize=4, label=each.student.name)
        axes.fill_between(alphas, lows, highs, color=COLOURS[number % len(COLOURS)], alpha=0.12, linewidth=0)
    axes.set_xlabel("alpha, the weight of learnability")
    _accuracy_axis(axes)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _by_alpha(outcomes: Outcomes) -> dict[float, int]:
    """Return the row of the first trial of each alpha; the ablations are those of 0 and 1."""
    rows: dict[float, int] = {}
    for row, trial in enumerate(outcomes.trials):
        alpha = _alpha_of(trial)
        if alpha is not None:
            rows.setdefault(alpha, row)
    return rows


def _alpha_of(trial: Trial) -> float | None:
    """Return the alpha of a trial whose strategy goes by the recipe's router and nothing else; else None."""
    strategy = trial.strategy
    if strategy is None or strategy.router or strategy.per_prompt > 1 or strategy.escalate or strategy.budget:
        return None
    if KINDS[strategy.kind].chooses != "router" or alpha_of(strategy) is not None:
        return alpha_of(strategy)
    rewards = trial.part.stored.get(names.matrix_rewards(trial.student))
    return None if rewards is None else rewards.manifest.settings.get("alpha")


def _accuracy_axis(axes: Any) -> None:
    """Label the vertical axis as accuracy in percent."""
    axes.set_ylabel("held-out accuracy (95 % interval)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _new(width: float, height: float) -> tuple[Any, Any]:
    """Return an empty figure of a size in inches and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
