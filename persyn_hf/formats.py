"""How numbers are written in cards, plans, reports and messages."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from persyn_hf.core.cost import FIELDS, Cost


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


UNKNOWN = "–"
