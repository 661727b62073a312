"""A chain of artifacts as text: each drawn once with what it is and what its step cost, and the sums of all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from persyn_hf.core.cost import FIELDS, Cost, from_line
from persyn_hf.formats import known_columns
from persyn_hf.store.lineage import Node


@dataclass(frozen=True, kw_only=True)
class Branch:
    """An artifact as it is drawn: its inputs that were not drawn yet, and those that stand further up."""

    node: Node
    inputs: "list[Branch]" = field(default_factory=list)
    above: list[Node] = field(default_factory=list)


def drawing(root: Node) -> Branch:
    """The chain with each artifact drawn where it comes first; later it is only named."""
    drawn: set[str] = set()

    def grow(node: Node) -> Branch:
        drawn.add(node.ref)
        branch = Branch(node=node)
        for child in node.inputs:
            if child.ref in drawn:
                branch.above.append(child)
            else:
                branch.inputs.append(grow(child))
        return branch

    return grow(root)


def rich(root: Branch) -> Any:
    """The drawing, to be printed by rich."""
    from rich.text import Text
    from rich.tree import Tree

    def grow(branch: Branch, into: Any) -> Any:
        for child in branch.inputs:
            grow(child, into.add(Text(describe(child.node))))
        if branch.above:
            into.add(Text("above: " + ", ".join(node.ref for node in branch.above), style="dim"))
        return into

    return grow(root, Tree(Text(describe(root.node), style="bold")))


def describe(node: Node) -> str:
    """One artifact: name, kind, digest, rows, and the cost of its step as far as it is known."""
    parts = [node.ref, f"{node.kind} {node.digest[:12]}"]
    if "rows" in node.counts:
        parts.append(f"{node.counts['rows']:,} rows")
    if node.cost:
        new = node.cost.get("total", {}).get("new")
        parts.append(_cost_text(_step_cost(node.cost), new))
    if node.keyword not in ("", node.kind):
        parts.append(f"read as `{node.keyword}`")
    if node.on_hub:
        parts.append("on the Hub")
    return "  ".join(part for part in parts if part)


def summary(root: Branch) -> list[str]:
    """The sums over the chain, each artifact counted once, and the licences of its sources."""
    nodes = list(_nodes(root))
    costs = [_step_cost(node.cost) for node in nodes if node.cost]
    new = [node.cost["total"]["new"] for node in nodes if "new" in node.cost.get("total", {})]
    total = Cost(**{name: sum(getattr(cost, name) or 0 for cost in costs) for name in FIELDS})
    lines = [f"{len(nodes)} artifacts; {_cost_text(total, sum(new)) or 'no step says what it cost'}"]
    if new and sum(new) < total.requests:
        lines.append("answers that are not new were in the journal; they count at every step that uses them")
    licences = {source: licence for node in reversed(nodes) for source, licence in node.licences.items()}
    if licences:
        named = (f"{source} {licence or 'unknown'}" for source, licence in licences.items())
        lines.append("licences: " + ", ".join(named))
    return lines


def _nodes(branch: Branch) -> Iterator[Node]:
    yield branch.node
    for child in branch.inputs:
        yield from _nodes(child)


def _step_cost(cost: Mapping[str, Any]) -> Cost:
    """What a manifest says that its step cost; what it does not name is unknown."""
    return from_line(cost.get("total", cost))


def _cost_text(cost: Cost, new: int | None) -> str:
    parts = [f"{column.title} {column.cell(cost)}" for column in known_columns([cost]) if getattr(cost, column.field)]
    if cost.requests and new is not None and new < cost.requests:
        parts[0] += f" ({new:,} new)"
    return ", ".join(parts)
