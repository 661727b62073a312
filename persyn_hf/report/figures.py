"""Figures of a recipe's results, each as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.frontier import draw_frontier, frontiers
from persyn_hf.report.results import LEARNABILITY, allocations, alpha_sweep, measure_of, router_metrics
from persyn_hf.report.router_figures import router_figures
from persyn_hf.store.manifest import Manifest


FAMILY_COLOURS = ("#3b6fb6", "#c2572b", "#3f8f5f", "#8a5aa8", "#b08d2c", "#4aa3a8", "#a8475f", "#6b6b6b")

LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}  # readable on any colour and hatch


def write_figures(recipe: Recipe, manifests: Mapping[str, Manifest], folder: Path) -> list[Path]:
    """Draw what the stored artifacts allow (`alpha`, `allocation` and others) into a folder; return the files."""
    written: list[Path] = []
    for student in recipe.students:
        sweep = alpha_sweep(manifests, student)
        if sweep:
            used = manifests[names.matrix_rewards(student)].settings.get("alpha")
            written += save_figure(_alpha(recipe.teachers, sweep, used), folder / f"alpha-{student.name}")
        shares = allocations(recipe, manifests, student)
        if shares:
            written += save_figure(draw_allocation(recipe.teachers, shares), folder / f"allocation-{student.name}")
        for name, manifest in frontiers(recipe, manifests, student).items():
            written += save_figure(draw_frontier(name, manifest), folder / f"frontier-{student.name}-{name}")
        for key, metrics in router_metrics(recipe, manifests, student).items():
            compared = router_figures(metrics["comparison"]) if "comparison" in metrics else {}
            for name, figure in compared.items():
                written += save_figure(figure, folder / f"{name}-{names.without_kind(key)}")
    return written


def teacher_colours(teachers: Sequence[Teacher]) -> dict[str, Any]:
    """Return a colour per teacher: one hue per family, the larger the teacher the darker (the paper's Fig. 6)."""
    from matplotlib.colors import to_rgb

    families = list(dict.fromkeys(teacher.family for teacher in teachers))
    colours: dict[str, Any] = {}
    for number, family in enumerate(families):
        members = sorted((t for t in teachers if t.family == family), key=lambda t: (t.params_b or 0.0, t.name))
        red, green, blue = to_rgb(FAMILY_COLOURS[number % len(FAMILY_COLOURS)])
        for place, teacher in enumerate(members):
            light = 0.55 * (1 - (place + 1) / len(members))
            colours[teacher.name] = tuple(c + (1 - c) * light for c in (red, green, blue))
    return colours


def draw_allocation(teachers: Sequence[Teacher], shares: Mapping[str, Mapping[str, float]]) -> Any:
    """Draw one stacked bar per strategy: the share of the pool's prompts that each teacher gets.

    Args:
        shares: strategy -> teacher -> share.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + 0.42 * len(shares)), layout="constrained")
    axes = figure.subplots()
    colours = teacher_colours(teachers)
    names = list(shares)
    for teacher in teachers:
        widths = [shares[name].get(teacher.name, 0.0) for name in names]
        lefts = [sum(shares[n].get(t.name, 0.0) for t in teachers[: list(teachers).index(teacher)]) for n in names]
        axes.barh(names, widths, left=lefts, color=colours[teacher.name], **_look(teacher))
        for row, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            if width >= 0.06:
                axes.text(left + width / 2, row, f"{width:.0%}", ha="center", va="center", fontsize=7, bbox=LABEL)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the pool's prompts")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _look(teacher: Teacher) -> dict[str, Any]:
    """Return how the bars of a teacher are drawn; those of a Long-CoT teacher are hatched."""
    hatch, note = ("///", " (Long-CoT)") if teacher.long_cot else (None, "")
    return {"hatch": hatch, "edgecolor": "white", "label": f"{teacher.name}{note}"}


def _alpha(teachers: Sequence[Teacher], sweep: Mapping[str, Any], used: float | None) -> Any:
    """Draw, over alpha, who answers best, and the quality and learnability of those answers (the paper's Fig. 4).

    Args:
        sweep: what `alpha_sweep` returns.
        used: the recipe's own alpha, which is marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    colours, alphas = teacher_colours(teachers), [float(alpha) for alpha in sweep["measures"]]
    lefts = [0.0] * len(alphas)
    for teacher in teachers:
        shares = [share.get(teacher.name, 0.0) for share in sweep["allocation"].values()]
        above.bar(alphas, shares, width=0.085, bottom=lefts, color=colours[teacher.name], **_look(teacher))
        lefts = [left + share for left, share in zip(lefts, shares, strict=True)]
    above.set(ylim=(0, 1), ylabel=f"best teacher of {sweep['prompts']:,} prompts")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    measure = measure_of(sweep)
    for axes, name, label, colour, marker in (
        (below, "quality_raw", "quality", "black", "o-"),
        (below.twinx(), measure, LEARNABILITY[measure], "#8a8a8a", "s-"),
    ):
        axes.plot(alphas, [values[name] for values in sweep["measures"].values()], marker, color=colour, markersize=4)
        axes.set_ylabel(f"mean {label}", color=colour)
        axes.tick_params(axis="y", colors=colour)
        axes.spines["top"].set_visible(False)
    if used is not None:
        for axes in (above, below):
            axes.axvline(used, color="black", linestyle="--", linewidth=1)
        above.annotate("this recipe", (used, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    below.set(xlabel="alpha, the weight of learnability", xticks=alphas)
    above.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def save_figure(figure: Any, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG, the same bytes every time, and return the two paths.

    Args:
        stem: the path without an ending.
    """
    from matplotlib import rc_context

    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    figure.savefig(paths[0], dpi=150)
    with rc_context({"svg.hashsalt": "persyn-hf"}):  # or the names in it are drawn anew each time
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
