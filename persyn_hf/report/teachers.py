"""How the teachers compare: the quality of their answers against how learnable these are for a student.

Both are read from the stored rewards, raw: before a prompt's answers are put on one scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.metrics import kendall_tau
from persyn_hf.core.rewards import learnability, to_matrix
from persyn_hf.core.statistics import bootstrap_means, means, percentile_bounds
from persyn_hf.recipe import names
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.report.colours import teacher_fills
from persyn_hf.report.results import LEARNABILITY
from persyn_hf.report.tables import Table, shown
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


READ = ("prompt_id", "teacher", "quality_raw", "mean_logprob", "sum_logprob", "sum_min_rank", "num_tokens", "rank")
# Of a name beside its point: points to the right and up, and the side that it is written from.
PLACES = [(sign * 9, up, side) for sign, side in ((1, "left"), (-1, "right")) for up in (-2, 8, -12, 18, -22)]
PARTS = {
    "quality and learnability": ("quality", "learnability"),
    "length and learnability": ("tokens", "learnability"),
    "length and quality": ("tokens", "quality"),
}


class Measured(NamedTuple):
    """What was measured of each answer, (num_prompts, num_teachers) each, NaN where it was not."""

    teachers: list[Teacher]
    measure: str  # of learnability
    columns: dict[str, FloatArray]  # quality, learnability, tokens
    best: FloatArray  # 1 where the teacher has the best reward of the prompt, ties counted for each

    @property
    def drawable(self) -> bool:
        """Tell whether some teacher has both a quality and a learnability."""
        both = [means(self.columns[name]) for name in ("quality", "learnability")]
        return bool(np.isfinite(both).all(axis=0).any())


def measured(store: Store, stored: Mapping[str, Stored], student: Student, teachers: Sequence[Teacher]) -> Measured:
    """Read what was measured for a student; without stored rewards there are no prompts."""
    pool, item = [teacher.name for teacher in teachers], stored.get(names.matrix_rewards(student))
    if item is None:
        nothing = np.empty((0, len(pool)))
        return Measured(list(teachers), "none", dict.fromkeys(("quality", "learnability", "tokens"), nothing), nothing)
    rows, measure = store.read_dataset(item).select_columns(list(READ))[:], item.manifest.settings["learnability"]
    raw = [None if value != value else value for value in learnability(rows, measure).tolist()]
    columns = {"quality": rows["quality_raw"], "learnability": raw, "tokens": rows["num_tokens"], "rank": rows["rank"]}
    matrix = {of: to_matrix(rows["prompt_id"], rows["teacher"], values, pool)[1] for of, values in columns.items()}
    rank = matrix.pop("rank")
    return Measured(list(teachers), measure, matrix, np.where(np.isnan(rank), np.nan, rank == 1))


def teacher_table(of: Measured, student: Student) -> Table:
    """Return a row per teacher: quality, learnability and length of its answers, with 95 % intervals over prompts."""
    table = Table(name=f"teachers-{student.name}", title="", header=[], rows=[])
    if not of.drawable:
        return table
    columns = [intervals(matrix) for matrix in (*of.columns.values(), of.best)]
    forms = ("{:.3f}", "{:.3f}", "{:,.0f}", "{:.1%}")
    rows = [
        [teacher.name, *(shown(form, *column[place]) for form, column in zip(forms, columns, strict=True))]
        for place, teacher in enumerate(of.teachers)
    ]
    note = [f"{words} {_tau(of, *parts)}" for words, parts in PARTS.items()]
    return Table(
        name=table.name,
        title=f"Teachers for {student.name}, on {len(of.best):,} measured prompts",
        header=["teacher", "quality", LEARNABILITY[of.measure], "tokens", "best"],
        rows=rows,
        note="raw means with 95 % bootstrap intervals over prompts; tokens: of the answer, as the student counts "
        "them; best: prompts on which its reward is the best or one of several; how far two of them order a prompt's "
        f"teachers alike (mean Kendall's tau-b, -1 to 1): {'; '.join(note)}",
    )


def draw_teachers(of: Measured, student: Student) -> Any:
    """Draw each teacher's mean quality against its mean learnability, with 95 % intervals; the size is `best`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    fills = teacher_fills(of.teachers)
    quality, learnable, _ = (intervals(matrix) for matrix in of.columns.values())
    best, points = means(of.best), {}
    for place, teacher in enumerate(of.teachers):
        (x, *x_bounds), (y, *y_bounds) = quality[place], learnable[place]
        if not np.isfinite((x, y)).all():
            continue
        colour = fills[teacher.name].colour
        axes.plot(x_bounds, [y, y], color=colour, linewidth=1, alpha=0.6)
        axes.plot([x, x], y_bounds, color=colour, linewidth=1, alpha=0.6)
        axes.scatter(x, y, s=30 + 600 * float(np.nan_to_num(best[place])), color=colour, edgecolor="white", zorder=3)
        points[teacher.name] = (x, y)
    axes.set_xlabel("mean quality of the answers")
    axes.set_ylabel(f"mean {LEARNABILITY[of.measure]} for {student.name}", fontsize=9)
    axes.margins(x=0.4, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("bars: 95 % over prompts; size: how often its reward is the best", fontsize=8)
    _write_names(figure, axes, points, {name: fill.colour for name, fill in fills.items()})
    return figure


def _write_names(
    figure: Any, axes: Any, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str]
) -> None:
    """Write a name beside each point, at the first of `PLACES` where it covers no other name and no point."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    at = axes.transData.transform(list(points.values()))
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in at]
    for name, point in sorted(points.items(), key=lambda item: (-item[1][1], item[0])):
        text = axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=7, color=colours[name])
        text.set_in_layout(False)  # a long name would move what was placed
        boxes: list[tuple[int, int, Any]] = []
        for x, y, side in PLACES:
            text.set(position=(x, y), ha=side)
            box = text.get_window_extent()
            outside = box.x0 < axes.bbox.x0 or box.x1 > figure.bbox.x1
            boxes.append((sum(box.overlaps(other) for other in taken) + outside, len(boxes), box))
        _, place, box = min(boxes)
        x, y, side = PLACES[place]
        text.set(position=(x, y), ha=side)
        taken.append(box)


def intervals(matrix: FloatArray) -> list[tuple[float, float, float]]:
    """Return mean and 95 % bounds of each column, over its finite entries; NaN for a column without any."""
    replicates = bootstrap_means(matrix, np.random.default_rng(0))
    return [(float(mean), *percentile_bounds(replicates[:, place])) for place, mean in enumerate(means(matrix))]


def _tau(of: Measured, one: str, other: str) -> str:
    """Write the mean agreement in a prompt of two columns, over the prompts where both tell teachers apart."""
    both = np.isfinite(of.columns[one]) & np.isfinite(of.columns[other])
    taus = kendall_tau(*(np.where(both, of.columns[name], np.nan) for name in (one, other)))
    taus = taus[np.isfinite(taus)]
    return str(shown("{:.2f}", *intervals(taus[:, None])[0]) if len(taus) else shown("{:.2f}", None))
