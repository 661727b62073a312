"""Figures of the students' accuracies: strategies, ablation (the paper's Fig. 2), alpha after training (Fig. 4)."""

from collections.abc import Sequence
from typing import Any

from persyn_hf.recipe import names
from persyn_hf.recipe.strategies import KINDS, alpha_of
from persyn_hf.report.outcomes import Outcomes, Trial


COLOURS = ("#3b6fb6", "#c2572b", "#3f8f5f", "#8a5aa8", "#b08d2c", "#4aa3a8", "#a8475f", "#6b6b6b")
# Kinds of the ablation and their labels: the whole method, then what is left of it without a part of the reward.
ABLATION = {"persyn": "PerSyn"} | {kind: f"without {KINDS[kind].ablates}" for kind in KINDS if KINDS[kind].ablates}


def experiment_figures(found: Sequence[Outcomes]) -> dict[str, Any]:
    """By name, those that the stored evaluations allow."""
    figures = {f"strategies-{each.student.name}": _strategies(each) for each in found if len(each.trials) > 1}
    ablated = [each for each in found if set(ABLATION) <= {trial.kind for trial in each.trials}]
    if ablated:
        figures["ablation"] = _ablation(ablated)
    swept = [each for each in found if len(_by_alpha(each)) > 1]
    if swept:
        figures["alpha-after-training"] = _alpha(swept)
    return figures


def _strategies(found: Outcomes) -> Any:
    """Accuracy before SFT and after each strategy."""
    figure, axes = _new(7, 1.2 + 0.36 * len(found.trials))
    for row, trial in enumerate(found.trials):
        colour = COLOURS[0] if trial.strategy else "#9a9a9a"
        value, low, high = found.score(row)
        axes.barh(row, value, xerr=[[value - low], [high - value]], color=colour, error_kw={"lw": 1, "capsize": 2})
        axes.text(high + 0.005, row, f"{value:.1%}", va="center", fontsize=8)
    axes.set_yticks(range(len(found.trials)), [trial.label for trial in found.trials])
    axes.invert_yaxis()
    axes.set_xlabel(f"held-out accuracy of {found.student.name} (95 % interval)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.margins(x=0.12)
    return figure


def _ablation(found: Sequence[Outcomes]) -> Any:
    """Three bars per student."""
    figure, axes = _new(2.5 + 1.6 * len(found), 3.2)
    for number, (name, label) in enumerate(ABLATION.items()):
        for place, each in enumerate(found):
            row = next(row for row, trial in enumerate(each.trials) if trial.kind == name)
            value, low, high = each.score(row)
            look = {"color": COLOURS[number], "label": "" if place else label, "error_kw": {"lw": 1, "capsize": 2}}
            axes.bar(place + 0.27 * (number - 1), value, 0.25, yerr=[[value - low], [high - value]], **look)
    axes.set_xticks(range(len(found)), [each.student.name for each in found])
    _accuracy_axis(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _alpha(found: Sequence[Outcomes]) -> Any:
    """A line per student over the weight of learnability that its teachers were chosen by."""
    figure, axes = _new(6, 3.6)
    for number, each in enumerate(found):
        points = [(alpha, *each.score(row)) for alpha, row in sorted(_by_alpha(each).items())]
        alphas, values, lows, highs = zip(*points, strict=True)
        axes.plot(alphas, values, "o-", color=COLOURS[number % len(COLOURS)], markersize=4, label=each.student.name)
        axes.fill_between(alphas, lows, highs, color=COLOURS[number % len(COLOURS)], alpha=0.12, linewidth=0)
    axes.set_xlabel("alpha, the weight of learnability")
    _accuracy_axis(axes)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _by_alpha(found: Outcomes) -> dict[float, int]:
    """The trial of each alpha; ablations are those of 0 and 1."""
    rows: dict[float, int] = {}
    for row, trial in enumerate(found.trials):
        alpha = _alpha_of(trial)
        if alpha is not None:
            rows.setdefault(alpha, row)
    return rows


def _alpha_of(trial: Trial) -> float | None:
    """Of a strategy that goes by the recipe's router and nothing else."""
    strategy = trial.strategy
    if strategy is None or strategy.router or strategy.per_prompt > 1 or strategy.escalate or strategy.budget:
        return None
    if KINDS[strategy.kind].chooses != "router" or alpha_of(strategy) is not None:
        return alpha_of(strategy)
    rewards = trial.part.stored.get(names.matrix_rewards(trial.student))
    return None if rewards is None else rewards.manifest.settings.get("alpha")


def _accuracy_axis(axes: Any) -> None:
    axes.set_ylabel("held-out accuracy (95 % interval)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _new(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
