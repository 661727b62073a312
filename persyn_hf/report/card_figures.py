"""Pictures for the cards of artifacts: one small PNG per kind, the same bytes for the same numbers."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from persyn_hf.formats import HITS, METRIC_TITLES, UNKNOWN
from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.colours import teacher_fills
from persyn_hf.store.manifest import FIGURES


MANY = 1e6  # from here on a number is written by its first digits
BLUE, RED, GREY = "#3b6fb6", "#c2572b", "#9a9a9a"
SYSTEMS = {"random": ("random", GREY), "global_best": ("global best", "#8fb3dd"), "router": ("this router", BLUE)}


def card_figures(kind: str, metrics: Mapping[str, Any], teachers: Sequence[Teacher]) -> dict[str, bytes]:
    """Draw the picture for the card of an artifact: `figures/NAME.png` -> its bytes, for `Store.put`.

    It is empty where there is nothing to show. `persyn_hf.store.cards.card` says in words what each picture shows.

    Args:
        kind: the kind of the artifact.
        metrics: `metrics` of its manifest.
        teachers: the pool, in its order.
    """
    makers: dict[str, tuple[str, Callable[[Mapping[str, Any], Sequence[Teacher]], Any]]] = {
        "assignments": ("allocation", _allocation),
        "sft": ("allocation", _allocation),
        "responses": ("responses", _responses),
        "rewards": ("rewards", _rewards),
        "router": ("hits", _hits),
        "evaluation": ("accuracy", _accuracy),
        "student": ("loss", _loss),
    }
    if kind not in makers:
        return {}
    name, make = makers[kind]
    figure = make(metrics, teachers)
    return {} if figure is None else {f"{FIGURES}{name}.png": _png(figure)}


def _allocation(metrics: Mapping[str, Any], teachers: Sequence[Teacher]) -> Any:
    """Draw each teacher's share of the prompts (the paper's Fig. 6 and 7)."""
    return _bars(teachers, {"share of the prompts": metrics["allocation"]}, percent={"share of the prompts"})


def _responses(metrics: Mapping[str, Any], teachers: Sequence[Teacher]) -> Any:
    """Draw which share of each teacher's answers is right, and which was cut off."""
    lines = metrics["teachers"]
    columns = {title: _column(lines, key) for title, key in (("right", "accuracy"), ("truncated", "truncated"))}
    return _bars(teachers, columns, percent=set(columns))


def _rewards(metrics: Mapping[str, Any], teachers: Sequence[Teacher]) -> Any:
    """Draw the means of quality, learnability and reward per teacher."""
    titles = {"quality": "quality", "log-prob per token": "mean_logprob", "reward": "reward"}
    return _bars(teachers, {title: _column(metrics["teachers"], key) for title, key in titles.items()})


def _column(lines: Mapping[str, Any], key: str) -> dict[str, float | None]:
    """Return one number of every teacher's line of metrics, by the teacher's name."""
    return {name: line[key] for name, line in lines.items()}


def _bars(
    teachers: Sequence[Teacher], columns: Mapping[str, Mapping[str, float | None]], percent: Iterable[str] = ()
) -> Any:
    """Draw a row per teacher and a panel per column; families by colour, the larger the darker, Long-CoT hatched.

    Args:
        columns: title -> teacher -> value, None where it is unknown; columns without any value are left out.
        percent: titles of the columns whose values are shares, written as percentages.

    Returns:
        The figure, None where no teacher has a value.
    """
    measured = {title: column for title, column in columns.items() if {*column.values()} - {None}}
    shown = [teacher for teacher in teachers if any(teacher.name in column for column in measured.values())]
    if not shown:
        return None
    figure = _figure(0.9 + 0.3 * len(shown))
    panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    colours = {name: fill.colour for name, fill in teacher_fills(teachers).items()}
    for axes, (title, column) in zip(panels, measured.items(), strict=True):
        in_percent = title in percent
        for row, teacher in enumerate(shown):
            value = column.get(teacher.name)
            hatch = "///" if teacher.long_cot else None
            axes.barh(row, value or 0.0, color=colours[teacher.name], hatch=hatch, edgecolor="white")
            form = "{:.0%}" if in_percent else "{:.2f}" if abs(value or 0) < MANY else "{:.3g}"
            label = UNKNOWN if value is None else form.format(value)
            at = (max(value or 0.0, 0.0), row)
            axes.annotate(label, at, (3, 0), textcoords="offset points", va="center", fontsize=9)
        values = [value or 0.0 for value in column.values()]
        low, high = min(values + [0.0]), max(values + [0.05 if in_percent else 0.0])
        axes.set(xlabel=title, xlim=(low, high + (high - low or 1.0) * (0.12 * len(measured))))  # room for the labels
        if in_percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _plain(axes)
    notes = [teacher.name + (" (Long-CoT)" if teacher.long_cot else "") for teacher in shown]
    panels[0].set_yticks(range(len(shown)), notes)
    panels[0].invert_yaxis()
    return figure


def _hits(metrics: Mapping[str, Any], _: Sequence[Teacher]) -> Any:
    """Draw Hit@k (`formats.HIT_MEANING`) with 95 % intervals."""
    figure = _figure(3.4)
    axes = figure.subplots()
    for place, (name, (label, colour)) in enumerate(SYSTEMS.items()):
        cells = [metrics[name][metric] for metric in HITS]
        heights = [cell["value"] or 0.0 for cell in cells]
        spans = [_span(cell["value"], cell["low"], cell["high"]) for cell in cells]
        x = [group + 0.27 * (place - 1) for group in range(len(HITS))]
        axes.bar(x, heights, 0.25, yerr=list(zip(*spans, strict=True)), color=colour, label=label, error_kw=ERRORS)
        for left, height in zip(x, heights, strict=True):
            axes.text(left, 0.02, f"{height:.0%}", ha="center", fontsize=8, color="white" if name == "router" else "k")
    axes.set(ylim=(0, 1.02), ylabel="routed to one of the k best")
    axes.set_xticks(range(len(HITS)), [METRIC_TITLES[metric] for metric in HITS])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _plain(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


ERRORS = {"lw": 1, "capsize": 2}


def _span(value: float | None, low: float | None, high: float | None) -> tuple[float, float]:
    """Return the lengths of an error bar below and above, 0 where rounding put the bound on the wrong side."""
    if value is None or low is None or high is None:
        return 0.0, 0.0
    return max(value - low, 0.0), max(high - value, 0.0)


def _accuracy(metrics: Mapping[str, Any], _: Sequence[Teacher]) -> Any:
    """Draw the accuracy per task with its 95 % interval; None where no task has one."""
    tasks = {name: line for name, line in metrics.items() if line["accuracy"] is not None}
    if not tasks:
        return None
    figure = _figure(0.9 + 0.36 * len(tasks))
    axes = figure.subplots()
    values = [line["accuracy"] for line in tasks.values()]
    spans = [_span(line["accuracy"], line["low"], line["high"]) for line in tasks.values()]
    axes.barh(list(tasks), values, xerr=list(zip(*spans, strict=True)), color=BLUE, error_kw=ERRORS)
    for row, line in enumerate(tasks.values()):
        axes.text(min(line["high"] + 0.01, 1.02), row, f"{line['accuracy']:.1%}", va="center", fontsize=9)
    axes.set(xlim=(0, 1.12), xlabel="accuracy (95 % interval)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_yaxis()
    _plain(axes)
    return figure


def _loss(metrics: Mapping[str, Any], _: Sequence[Teacher]) -> Any:
    """Draw the training loss over the optimiser steps; None where there are no two points to draw a line between."""
    points = metrics.get("loss") or []
    if len(points) < 2:
        return None
    figure = _figure(3.0)
    axes = figure.subplots()
    axes.plot([step for step, _ in points], [loss for _, loss in points], color=BLUE, linewidth=1)
    axes.set(xlabel="optimiser step", ylabel="loss (nats per token)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _plain(axes)
    return figure


def _figure(height: float) -> Any:
    """Return an empty figure, 7 inches wide and `height` inches high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(7, height), dpi=100, layout="constrained")


def _plain(axes: Any) -> None:
    """Take the upper and the right line off the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _png(figure: Any) -> bytes:
    """Return the figure as PNG with a palette of 128 colours: a third of the bytes, and no eye sees the difference."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    written = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(128).save(
        written, format="png", optimize=True
    )
    return written.getvalue()
