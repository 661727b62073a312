"""Figures of a comparison of routers, for the report and for the router's card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


COLOURS = ("#3b6fb6", "#c2572b", "#3f8f5f", "#8a5aa8", "#b08d2c", "#4aa3a8", "#a8475f", "#6b6b6b")
MARKS = {"tfidf": ("o", "-"), "embeddings": ("s", "--")}


def write_router_figures(comparison: Mapping[str, Any], folder: Path) -> None:
    """Draw the figures as PNG into a folder, for a card: the same bytes every time."""
    for name, figure in router_figures(comparison).items():
        figure.savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})


def router_figures(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Draw `reliability` and, where there are several numbers of prompts, `learning-curve`; return them by name."""
    figures = {"reliability": _reliability(comparison["reliability"])}
    if "learning_curve" in comparison:
        figures["learning-curve"] = _learning_curve(comparison["learning_curve"])
    return figures


def _reliability(reliability: Mapping[str, Any]) -> Any:
    """Draw predicted preference against the share that was preferred, with the number of pairs below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#9a9a9a", linewidth=1)
    at = "no temperature" if reliability["temperature"] is None else f"temperature {reliability['temperature']:.3g}"
    for name, label, mark, colour in (
        ("before", "scores as they are", "s--", "#c2572b"),
        ("after", at, "o-", "#3b6fb6"),
    ):
        rows = reliability[name]
        if rows:
            x = [row["predicted"] for row in rows]
            above.plot(x, [row["share"] for row in rows], mark, color=colour, markersize=4, label=label)
            below.bar(x, [row["pairs"] for row in rows], width=0.025, color=colour, alpha=0.6)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that was preferred", title=reliability["router"])
    below.set(xlabel="predicted preference of one teacher over another", ylabel="pairs")
    if above.get_legend_handles_labels()[0]:
        above.legend(fontsize=8, frameon=False)
    _plain(above, below)
    return figure


def _learning_curve(curve: Mapping[str, Any]) -> Any:
    """Draw the gap closed against the number of calibration prompts; the bands are the range over the trainings."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, ScalarFormatter

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#9a9a9a", linewidth=1)
    kinds = list(dict.fromkeys(name.partition(" over ")[0] for name in curve["mean"]))
    sizes: list[int] = []
    for name, mean in curve["mean"].items():
        kind, _, features = name.partition(" over ")
        mark, line = MARKS.get(features.partition(",")[0], ("^", ":"))
        colour = COLOURS[kinds.index(kind) % len(COLOURS)]
        sizes = sorted(map(int, mean))
        low, high, middle = (
            [_number(curve[word][name][str(size)]) for size in sizes] for word in ("lowest", "highest", "mean")
        )
        axes.plot(sizes, middle, line, marker=mark, color=colour, markersize=4, label=name)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.set(xscale="log", xlabel="calibration prompts", ylabel="share of the gap to the oracle closed")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=max(-0.6, axes.get_ylim()[0]))  # a few prompts can be worse than worthless
    _plain(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _number(value: float | None) -> float:
    """Return a number as a float, NaN for None."""
    return float("nan") if value is None else value


def _plain(*axes: Any) -> None:
    """Take the upper and the right line off each of the axes."""
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
