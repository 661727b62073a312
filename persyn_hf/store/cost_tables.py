"""Costs as table cells, for cards, plans and reports: only the columns of which something is known."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from persyn_hf.core.cost import FIELDS, Cost, from_line
from persyn_hf.store import tables
from persyn_hf.store.tables import UNKNOWN


SHOWN = ("teachers", "total", "counterfactual")  # keys of a manifest's cost that are shown by the tables below


class Column(NamedTuple):
    """One field of `Cost` as a column."""

    title: str
    field: str
    text: Callable[[float], str]

    def cell(self, cost: Cost) -> str:
        value = getattr(cost, self.field)
        return UNKNOWN if value is None else self.text(value)


def known_columns(costs: Iterable[Cost]) -> list[Column]:
    """The columns that say something: known of at least one cost, times not all 0, one kind of time where one does."""
    costs = list(costs)
    dull = {name for name in FIELDS if all(getattr(cost, name) is None for cost in costs)}
    dull |= {name for name in ("seconds", "gpu_seconds") if not any(getattr(cost, name) for cost in costs)}
    if all(cost.gpu_seconds for cost in costs):
        dull.add("seconds")
    return [column for column in COLUMNS if column.field not in dull]


def ledger(cost: Mapping[str, Any]) -> str:
    """The ledger of a manifest as Markdown, a row per teacher and their total; empty where there is none."""
    lines = dict(cost.get("teachers", {}))
    if not lines:
        return ""
    costs = {tables.text(name): from_line(line) for name, line in lines.items()}
    new = [line.get("new") for line in lines.values()]
    extra = [*map(tables.cell, new), tables.cell(None if None in new else sum(new))]
    return _markdown("teacher", costs | {"**total**": sum(costs.values(), Cost())}, {"new": extra})


def counterfactual(cost: Mapping[str, Any]) -> str:
    """What other ways to choose teachers would have cost, as Markdown; empty where a manifest does not say."""
    ways = cost.get("counterfactual", {})
    named = {"generate-then-select": "generate_then_select", "CAR": "car"}
    return _markdown("way", {name: from_line(ways[key]) for name, key in named.items() if key in ways}, {})


def _markdown(first: str, costs: Mapping[str, Cost], extra: Mapping[str, list[str]]) -> str:
    columns = known_columns(costs.values())
    more = zip(*extra.values(), strict=True) if extra else [()] * len(costs)
    rows = [
        [name, *(column.cell(cost) for column in columns), *cells]
        for (name, cost), cells in zip(costs.items(), more, strict=True)
    ]
    return tables.table([first, *(column.title for column in columns), *extra], rows) if rows else ""


def amount(number: float) -> str:
    """Whole below a thousand, then three digits: 950, 1.23K, 12.3M."""
    return f"{number:,.0f}" if number < 999.5 else "".join(_scaled(number, ("", "K", "M", "B", "T")))


def flops(number: float) -> str:
    return "{} {}FLOPs".format(*_scaled(number, ("", "K", "M", "G", "T", "P", "E", "Z")))


def duration(seconds: float) -> str:
    unit, size = ("h", 3600) if seconds >= 3600 else ("min", 60) if seconds >= 120 else ("s", 1)
    return f"{_three_digits(seconds / size)} {unit}"


def money(number: float) -> str:
    return f"{number:,.2f}" if number >= 0.01 or not number else f"{number:.1g}"


def _scaled(number: float, prefixes: tuple[str, ...]) -> tuple[str, str]:
    place = 0
    while number >= 999.5 and place < len(prefixes) - 1:
        number, place = number / 1000, place + 1
    return _three_digits(number), prefixes[place]


def _three_digits(number: float) -> str:
    if number < 0.0995:
        return f"{number:.2g}"
    return f"{number:,.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


COLUMNS = (
    Column("answers", "requests", lambda number: f"{number:,.0f}"),
    Column("tokens in", "prompt_tokens", amount),
    Column("tokens out", "completion_tokens", amount),
    Column("time", "seconds", duration),
    Column("GPU time", "gpu_seconds", duration),
    Column("compute", "flops", flops),
    Column("money", "money", money),
)
