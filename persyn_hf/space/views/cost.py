"""The view of what an assignment costs against asking every teacher."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.core.cost import Cost
from persyn_hf.formats import Column, known_columns
from persyn_hf.space.costs import Costs, costs
from persyn_hf.space.decisions import measured
from persyn_hf.space.scene import Scene


MAGNITUDES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def show(scene: Scene) -> str:
    """Return the costs as HTML."""
    spent = costs(scene.database, scene.assignment, scene.split)
    tables = [("The same prompts, answered two ways", "way", _table(spent.ways))]
    if spent.measured:
        rows = _in_order(scene, spent.measured) | {"total": sum(spent.measured.values(), Cost())}
        title = "Measured on the answers that were made for this assignment"
        tables.append((f"{title}, all splits" if scene.split else title, "teacher", _table(rows)))
    tables.append(("One prompt, all its samples", "teacher", _table(_in_order(scene, spent.cells))))
    return scene.render("cost", found=spent, bars=_bars(spent), tables=tables, points=_points(scene, spent))


def _in_order(scene: Scene, lines: Mapping[str, Cost]) -> dict[str, Cost]:
    """Return costs by teacher in the order of the pool, in which all views have them."""
    return {name: lines[name] for name in scene.pool if name in lines}


def _table(lines: Mapping[str, Cost]) -> dict[str, Any]:
    """Return a table of costs whose columns have one unit each: {"heads": titles, "rows": {name: cells}}."""
    columns = known_columns(lines.values())
    made = [_column(column, lines) for column in columns]
    rows = {name: [cells[name] for _, cells in made] for name in lines}
    return {"heads": [head for head, _ in made], "rows": rows}


def _column(column: Column, lines: Mapping[str, Cost]) -> tuple[str, dict[str, str]]:
    """Return a column's head and its cells by row; the unit, made for the largest value, stands in the head."""
    values = {name: getattr(cost, column.field) for name, cost in lines.items()}
    known = [value for value in values.values() if value is not None]
    factor, letter = next(((f, word) for f, word in MAGNITUDES if max(known, default=0) >= f), (1.0, ""))
    factor, letter = (factor, letter) if column.field in ("flops", "prompt_tokens", "completion_tokens") else (1.0, "")
    digits = 0 if all(float(value / factor).is_integer() for value in known) else 2
    cells = {name: "–" if value is None else f"{value / factor:,.{digits}f}" for name, value in values.items()}
    return (f"{column.title}, {letter}" if letter else column.title), cells


def _bars(spent: Costs) -> list[dict[str, Any]]:
    """Return what is saved, a pair of bars per unit that is known of both ways."""
    own, everything = spent.ways["this assignment"], spent.ways["generate-then-select"]
    bars = []
    for column in known_columns([own, everything]):
        mine, theirs = getattr(own, column.field), getattr(everything, column.field)
        if mine is not None and theirs:
            saved = f"{theirs / mine:.1f}×" if mine else "all"
            texts = (column.text(mine), column.text(theirs))
            bars.append({"title": column.title, "share": mine / theirs, "texts": texts, "saved": saved})
    return bars


def _points(scene: Scene, spent: Costs) -> dict[str, Any] | None:
    """Return cost against mean measured quality per teacher, both as shares of the picture, too; None: unknown."""
    field = next(
        (name for name in ("flops", "completion_tokens") if all(getattr(c, name) for c in spent.cells.values())), ""
    )
    if not field or not scene.reads_soon:
        return None
    select = f"SELECT teacher, avg(quality_raw) FROM ({measured(scene.database, scene.assignment)}) GROUP BY teacher"
    quality = {name: mean for name, mean in scene.database.rows(select) if mean is not None and name in spent.cells}
    if len(quality) < 2:
        return None
    column = next(column for column in known_columns(spent.cells.values()) if column.field == field)
    cost = {name: getattr(spent.cells[name], field) for name in quality}
    low, high = min(quality.values()), max(quality.values())
    teachers = [
        {
            "name": name,
            "x": cost[name] / max(cost.values()),
            "y": (quality[name] - low) / (high - low) if high > low else 0.5,
            "cost": column.text(cost[name]),
            "quality": quality[name],
        }
        for name in scene.pool
        if name in quality
    ]
    return {
        "title": column.title,
        "most": column.text(max(cost.values())),
        "low": low,
        "high": high,
        "teachers": teachers,
    }
