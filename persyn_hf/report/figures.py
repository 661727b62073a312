"""Figures of a recipe's results, each as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.colours import Fill, teacher_fills
from persyn_hf.report.frontier import draw_frontier, frontiers
from persyn_hf.report.results import LEARNABILITY, allocations, alpha_sweep, measure_of, router_metrics
from persyn_hf.report.router_figures import router_figures
from persyn_hf.store.manifest import Manifest


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
            written += save_figure(
                draw_allocation(recipe.teachers, {"": shares}), folder / f"allocation-{student.name}"
            )
        for name, manifest in frontiers(recipe, manifests, student).items():
            written += save_figure(draw_frontier(name, manifest), folder / f"frontier-{student.name}-{name}")
        for key, metrics in router_metrics(recipe, manifests, student).items():
            compared = router_figures(metrics["comparison"]) if "comparison" in metrics else {}
            for name, figure in compared.items():
                written += save_figure(figure, folder / f"{name}-{names.without_kind(key)}")
    return written


def draw_allocation(
    teachers: Sequence[Teacher],
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    title: str = "",
    label: str = "share of the pool's prompts",
) -> Any:
    """Draw one stacked bar per strategy: the share of the prompts that each teacher gets.

    Args:
        panels: name of a group of prompts ("": all) -> strategy -> teacher -> share.
        title: above the figure.
        label: what the shares are of.
    """
    from matplotlib.figure import Figure

    bars = [len(shares) for shares in panels.values()]
    columns = _columns(teachers)
    more = max(-(-len(teachers) // columns) - 2, 0)  # lines of the legend
    figure = Figure(figsize=(8, 1.4 + 0.42 * sum(bars) + 0.35 * len(bars) + 0.15 * more), layout="constrained")
    rows = figure.subplots(len(bars), sharex=True, squeeze=False, height_ratios=bars)[:, 0]
    fills, seen = teacher_fills(teachers), set()
    for axes, (name, shares) in zip(rows, panels.items(), strict=True):
        lefts = [0.0] * len(shares)
        for teacher in teachers:
            widths = [row.get(teacher.name, 0.0) for row in shares.values()]
            look = _look(teacher, fills[teacher.name])
            axes.barh(list(shares), widths, left=lefts, **look | ({"label": None} if teacher.name in seen else {}))
            seen.add(teacher.name)
            for row, (left, width) in enumerate(zip(lefts, widths, strict=True)):
                if width >= 0.06:
                    at = (left + width / 2, row)
                    axes.text(*at, f"{width:.0%}", ha="center", va="center", fontsize=7, bbox=LABEL)
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(xlim=(0, 1))
        axes.set_title(name, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel(label)
    rows[-1].xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.suptitle(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
    return figure


def _columns(teachers: Sequence[Teacher]) -> int:
    """Return how many columns of a legend fit into a width of 8 inches, 4 at most: some 130 letters are as wide."""
    longest = max(len(teacher.name) + (11 if teacher.long_cot else 0) for teacher in teachers)
    return min(max(130 // (longest + 9), 1), 4)


def _look(teacher: Teacher, fill: Fill) -> dict[str, Any]:
    """Return how the bars of a teacher are drawn."""
    label = teacher.name + (" (Long-CoT)" if teacher.long_cot else "")
    return fill.look | {"label": label}


def _alpha(teachers: Sequence[Teacher], sweep: Mapping[str, Any], used: float | None) -> Any:
    """Draw, over alpha, who answers best, and the quality and learnability of those answers (the paper's Fig. 4).

    Args:
        sweep: what `alpha_sweep` returns.
        used: the recipe's own alpha, which is marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    fills, alphas = teacher_fills(teachers), [float(alpha) for alpha in sweep["measures"]]
    lefts = [0.0] * len(alphas)
    for teacher in teachers:
        shares = [share.get(teacher.name, 0.0) for share in sweep["allocation"].values()]
        above.bar(alphas, shares, width=0.085, bottom=lefts, **_look(teacher, fills[teacher.name]))
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
