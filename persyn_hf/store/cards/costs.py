"""Costs of a manifest as Markdown tables for its card, with only the columns of which something is known."""

from collections.abc import Collection, Mapping
from typing import Any

from persyn_hf.core.cost import Cost, from_line
from persyn_hf.formats import known_columns
from persyn_hf.store.cards import markdown


SHOWN = ("teachers", "total", "counterfactual")  # keys of a manifest's cost that are shown by the tables below


def ledger(cost: Mapping[str, Any], counted_here: Collection[str] = (), who: str = "teacher") -> str:
    """Return the ledger of a manifest as Markdown, a row per teacher or judge and their total; empty without one.

    counted_here: teachers of whose answers tokens were counted here; theirs are marked by ~.
    who: the header of their names.
    """
    lines = dict(cost.get("teachers", {}))
    if not lines:
        return ""
    costs = {markdown.text(name): from_line(line) for name, line in lines.items()}
    new = [line.get("new") for line in lines.values()]
    extra = [*map(markdown.cell, new), markdown.cell(None if None in new else sum(new))]
    marked = {markdown.text(name) for name in counted_here} | ({"**total**"} if counted_here else set())
    return _markdown(who, costs | {"**total**": sum(costs.values(), Cost())}, {"new": extra}, marked)


def counterfactual(cost: Mapping[str, Any]) -> str:
    """Return what other ways to choose teachers would have cost, as Markdown; empty where a manifest does not say."""
    ways = cost.get("counterfactual", {})
    named = {"generate-then-select": "generate_then_select", "CAR": "car"}
    return _markdown("way", {name: from_line(ways[key]) for name, key in named.items() if key in ways}, {})


def _markdown(
    first: str, costs: Mapping[str, Cost], extra: Mapping[str, list[str]], counted_here: Collection[str] = ()
) -> str:
    """Return a Markdown table of costs, a row per name; empty without costs.

    Args:
        first: header of the column of names.
        extra: header -> cells of a column behind the costs, one cell per row.
        counted_here: names of the rows whose tokens were counted here.
    """
    columns = known_columns(costs.values())
    extra_cells = zip(*extra.values(), strict=True) if extra else [()] * len(costs)
    rows = [
        [name, *(column.cell(cost, name in counted_here) for column in columns), *cells]
        for (name, cost), cells in zip(costs.items(), extra_cells, strict=True)
    ]
    return markdown.table([first, *(column.title for column in columns), *extra], rows) if rows else ""
