"""Plain values as Markdown for the cards: any nested dict of numbers becomes headed tables."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from persyn_hf.formats import UNKNOWN
from persyn_hf.text import one_line


LONGEST = 40  # values of one cell; a training's losses are thousands
HUB = "https://huggingface.co/"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SPECIAL = re.compile(r"[&<>\\|`*_\[\]#~$]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def cell(value: Any) -> str:
    """Return a value as the text of one table cell; text from data cannot break out of it."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and len(value) > LONGEST:
        return f"{len(value):,} values, the last: {cell(value[-1])}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value) if value else UNKNOWN
    if isinstance(value, Mapping):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text(value)


def share(value: Any) -> str:
    """Return a number from 0 to 1 as a percentage with one decimal."""
    return f"{value:.1%}" if isinstance(value, int | float) else UNKNOWN


def text(value: Any) -> str:
    """Return text from data as harmless inline Markdown on one line."""
    return _SPECIAL.sub(lambda sign: _ENTITIES.get(sign.group(), f"\\{sign.group()}"), one_line(value))


def code(value: Any) -> str:
    """Return text from data as a code span, safe in a table cell too; with a backtick or pipe in it, as plain text."""
    line = one_line(value)
    return f"`{line}`" if line.strip() and not re.search(r"[`|]|\$\$", line) else text(value)


def literal(value: Any) -> str:
    """Return text from data as a Python string on one line, for the code blocks of a card."""
    return json.dumps(one_line(value), ensure_ascii=False)


def hub_link(name: str, revision: str | None = None, *, dataset: bool = False) -> str:
    """Return a link to a repository of the Hub at a revision; what cannot name a repository is shown as code."""
    if not HUB_ID.fullmatch(name):
        return code(name)
    tree = f"/tree/{quote(revision, safe='')}" if revision else ""
    return f"[{text(name)}]({HUB}{'datasets/' if dataset else ''}{name}{tree})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def flat(values: Mapping[str, Any], name: str = "key", value: str = "value") -> str:
    """Return a nested dict as a Markdown table of two columns, its keys dotted."""
    rows = [(code(key), cell(item)) for key, item in _dotted(values)]
    return table((name, value), rows) if rows else "none"


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the values of a nested dict with their keys dotted: `{"a": {"b": 1}}` gives ("a.b", 1)."""
    for key, item in values.items():
        if isinstance(item, Mapping) and item:
            yield from _dotted(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def sections(values: Mapping[str, Any], level: int = 3) -> str:
    """Return any nested dict as Markdown: plain values first in two columns, then one headed table or section per key.

    Args:
        level: level of the headings, 3 for `###`.
    """
    parts = []
    single = {key: item for key, item in values.items() if not _is_table(item)}
    if single:
        parts.append(flat(single, "measure"))
    for key, item in values.items():
        if not _is_table(item):
            continue
        parts.append(f"{'#' * min(level, 6)} {text(key)}")
        rows = item if isinstance(item, Mapping) else {str(index): row for index, row in enumerate(item)}
        whole = all(isinstance(row, Mapping) and not any(map(_is_table, row.values())) for row in rows.values())
        parts.append(grid(rows) if whole else sections(rows, level + 1))
    return "\n\n".join(parts) if parts else "none"


def _is_table(item: Any) -> bool:
    """Tell whether a value needs a table of its own: a dict with something in it, or a list of dicts."""
    if isinstance(item, Mapping):
        return bool(item)
    return isinstance(item, list | tuple) and bool(item) and all(isinstance(row, Mapping) for row in item)


def grid(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a dict of dicts as one Markdown table: a row per outer key, a column per inner key."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    body = [[text(name), *(cell(row[key]) if key in row else "" for key in columns)] for name, row in rows.items()]
    return table(["", *(text(column) for column in columns)], body)
