"""How numbers are written in cards, plans, reports and messages, and the titles of metrics and costs.

A measured time is written as one number with three digits (`duration`: 3.33 h); a time that somebody waits for, or
looks at while it grows, as two units (`time_span`: 3 h 20 min).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from persyn_hf.core.cost import FIELDS, Cost


# Metrics of a router, as tables and pictures name them, in the order in which they are shown.
METRIC_TITLES = {
    "hit_at_1": "Hit@1",
    "hit_at_3": "Hit@3",
    "hit_at_5": "Hit@5",
    "regret": "regret",
    "ndcg_at_3": "NDCG@3",
    "kendall_tau": "tau",
    "pair_accuracy": "pairs",
    "calibration_error": "ECE",
    "allocation_js": "JS",
    "gap_closed": "gap closed",
}
# What `persyn_hf.core.metrics.hit_at_k` counts, in the words of every legend.
HIT_MEANING = "share of prompts whose teacher's reward is at least the k-th best of the prompt"
HITS = ("hit_at_1", "hit_at_3", "hit_at_5")
UNKNOWN = "–"
OF_TOKENS = frozenset(
    {"prompt_tokens", "completion_tokens", "flops", "money"}
)  # fields of `Cost` that follow from tokens
COUNTED_HERE = "~: tokens were counted by a tokenizer here, as the server sent no count"


class Column(NamedTuple):
    """One field of `Cost` as a column of a table."""

    title: str
    field: str
    text: Callable[[float], str]

    def cell(self, cost: Cost, counted_here: bool = False) -> str:
        """Return the field of a cost as text, `UNKNOWN` where it is None.

        counted_here: tokens of it were counted by a tokenizer here, and what rests on tokens is marked by ~.
        """
        value = getattr(cost, self.field)
        if value is None:
            return UNKNOWN
        return ("~ " if counted_here and self.field in OF_TOKENS else "") + self.text(value)


def total_cell(column: Column, costs: Iterable[Cost], counted_here: bool = False) -> tuple[str, float | None]:
    """Return the sum of a field as text, marked as by `Column.cell`, and as a number where all costs know it.

    Where some do not, the text is the sum of those that do, with `+ ?`: prices 0.10, unknown and 0.03 make `0.13 + ?`.
    """
    mark = "~ " if counted_here and column.field in OF_TOKENS else ""
    values = [getattr(cost, column.field) for cost in costs]
    known = [value for value in values if value is not None]
    if not known and values:
        return UNKNOWN, None
    text = mark + column.text(sum(known))
    return (text, sum(known)) if len(known) == len(values) else (f"{text} + ?", None)


def known_columns(costs: Iterable[Cost]) -> list[Column]:
    """Return the columns that say something about the costs of a table, in the order of `COLUMNS`.

    A field that no cost knows has no column. A kind of time that is 0 or unknown everywhere has none. Where every
    cost has GPU time, that is shown alone, without the plain time.
    """
    costs = list(costs)
    dull = {name for name in FIELDS if all(getattr(cost, name) is None for cost in costs)}
    dull |= {name for name in ("seconds", "gpu_seconds") if not any(getattr(cost, name) for cost in costs)}
    if all(cost.gpu_seconds for cost in costs):
        dull.add("seconds")
    return [column for column in COLUMNS if column.field not in dull]


def amount(number: float) -> str:
    """Write a number as a whole one below a thousand, else with three digits and a letter: 950, 1.23K, 12.3M."""
    return f"{number:,.0f}" if number < 999.5 else "".join(_scaled(number, ("", "K", "M", "B", "T")))


def flops(number: float) -> str:
    """Write a number of floating-point operations with three digits and a prefix: 1.23 TFLOPs."""
    return "{} {}FLOPs".format(*_scaled(number, ("", "K", "M", "G", "T", "P", "E", "Z")))


def file_size(num_bytes: float) -> str:
    """Write a number of bytes with up to three digits, in units of a thousand: 950 B, 12.3 kB, 1.2 GB."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"


def duration(seconds: float) -> str:
    """Write a measured time with three digits in one unit: 45.0 s, 12.1 min, 3.33 h; minutes from 120 s on."""
    unit, size = ("h", 3600) if seconds >= 3600 else ("min", 60) if seconds >= 120 else ("s", 1)
    return f"{_three_digits(seconds / size)} {unit}"


def time_span(seconds: float | None) -> str:
    """Write a time in its two leading units: 45 s, 12 min 5 s, 3 h 20 min, 2 d 4 h; None is "unknown"."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {smaller}"
    return f"{whole} s"


def money(number: float) -> str:
    """Write a sum of money with two decimals, one below a cent with its first digit: 12.30, 0.004."""
    return f"{number:,.2f}" if number >= 0.01 or not number else f"{number:.1g}"


def _scaled(number: float, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Return a number in three digits and the prefix of its power of a thousand: (12_345, ...) -> ("12.3", "K")."""
    place = 0
    while number >= 999.5 and place < len(prefixes) - 1:
        number, place = number / 1000, place + 1
    return _three_digits(number), prefixes[place]


def _three_digits(number: float) -> str:
    """Write a number with three digits, one below 0.1 with two."""
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
