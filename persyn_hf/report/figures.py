"""Figures of a recipe's results, each as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.recipe import Recipe, Teacher
from persyn_hf.report.results import accuracies, allocations
from persyn_hf.store.manifest import Manifest


FAMILY_COLOURS = ("#3b6fb6", "#c2572b", "#3f8f5f", "#8a5aa8", "#b08d2c", "#4aa3a8", "#a8475f", "#6b6b6b")

LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}  # readable on any colour and hatch


def write_figures(recipe: Recipe, manifests: Mapping[str, Manifest], folder: Path) -> list[Path]:
    """Draw what the stored artifacts allow: `allocation` and `strategies`."""
    written: list[Path] = []
    for student in recipe.students:
        shares = allocations(recipe, manifests, student)
        if shares:
            written += _save(_allocation(recipe.teachers, shares), folder / f"allocation-{student.name}")
        scores = accuracies(recipe, manifests, student)
        if len(scores) > 1:
            written += _save(_strategies(scores), folder / f"strategies-{student.name}")
    return written


def teacher_colours(teachers: Sequence[Teacher]) -> dict[str, Any]:
    """One hue per family; within a family, the larger the teacher, the darker (the paper's Fig. 6)."""
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


def _allocation(teachers: Sequence[Teacher], shares: Mapping[str, Mapping[str, float]]) -> Any:
    """One stacked bar per strategy: the share of the pool's prompts that each teacher gets; Long-CoT is hatched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + 0.42 * len(shares)), layout="constrained")
    axes = figure.subplots()
    colours = teacher_colours(teachers)
    names = list(shares)
    for teacher in teachers:
        widths = [shares[name].get(teacher.name, 0.0) for name in names]
        lefts = [sum(shares[n].get(t.name, 0.0) for t in teachers[: list(teachers).index(teacher)]) for n in names]
        hatch = "///" if teacher.long_cot else None
        label = f"{teacher.name}{' (Long-CoT)' if teacher.long_cot else ''}"
        axes.barh(names, widths, left=lefts, color=colours[teacher.name], hatch=hatch, edgecolor="white", label=label)
        for row, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            if width >= 0.06:
                axes.text(left + width / 2, row, f"{width:.0%}", ha="center", va="center", fontsize=7, bbox=LABEL)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the pool's prompts")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _strategies(scores: Mapping[str, tuple[float, float, float]]) -> Any:
    """Held-out accuracy of the student before (`base`) and after each strategy, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.36 * len(scores)), layout="constrained")
    axes = figure.subplots()
    names = list(scores)
    centres = [scores[name][0] for name in names]
    errors = [[c - scores[n][1] for n, c in zip(names, centres, strict=True)]]
    errors.append([scores[n][2] - c for n, c in zip(names, centres, strict=True)])
    colours = ["#9a9a9a" if name == "base" else "#3b6fb6" for name in names]
    axes.barh(names, centres, xerr=errors, color=colours, error_kw={"lw": 1, "capsize": 2})
    for row, name in enumerate(names):
        axes.text(scores[name][2] + 0.005, row, f"{scores[name][0]:.1%}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("held-out accuracy of the student (95 % interval)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Any, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    figure.savefig(paths[0], dpi=150)
    figure.savefig(paths[1], metadata={"Date": None})
    return paths
