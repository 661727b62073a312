"""Read reference answers from a user's table, and the alternatives of those of which any one is right.

A reference is one text everywhere. Alternatives are stored as JSON that says so, `{"any": ["4", "four"]}`, which is no
reference that anybody writes; all else is one reference, judged as a whole.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from persyn_hf.backends.answers import well_formed
from persyn_hf.backends.source_cells import as_text
from persyn_hf.core.references import ANY, alternatives


Lists = Literal["all", "any"]  # what a list of references is: values that an answer must give, or alternatives

LONGEST = 1 << 20  # characters of a cell that is looked at for a list
LIST_OF_TEXTS = re.compile(r"\s*\[\s*[\"']")
WITH_COMMAS = re.compile(r"[\"']\s*,")
SIDE_BY_SIDE = re.compile(r"([\"'])\s+(?=[\"'])")  # what numpy has between texts, and Python would make one of


def read_reference(cell: Any, lists: Lists | None) -> str | None:
    """Read a reference; None where there is none.

    lists: "any": the values of a list are alternatives. "all": an answer must give all of them. With either a text
    that spells a list of texts, as JSON or as pandas writes it to CSV, is this list; with None only a list is one, and
    an answer must give all of its values.
    """
    values = _listed(cell, lists is not None)
    text = _joined(values) if lists == ANY and values is not None else as_text(cell if values is None else values)
    return text or None


def is_unclear(cell: Any) -> bool:
    """Tell whether `lists` decides what a cell means: it holds several references, or a text that spells a list."""
    values = _listed(cell, True)
    return values is not None and (isinstance(cell, str) or len(set(values)) > 1)


def of_each(reference: str, change: Callable[[str], str | None]) -> str | None:
    """Change each alternative of a reference; those of which nothing is left are left out."""
    changed = [change(each) for each in alternatives(reference)]
    return _joined([each for each in changed if each]) or None


def any_of(verdicts: Sequence[bool | None]) -> bool | None:
    """Judge by alternatives: right by one is right, wrong by all is wrong; else it is not known."""
    return True if True in verdicts else None if None in verdicts else False


def column_of(name: str, known: Sequence[str]) -> str:
    """Return the column that holds what `name` says: itself, or the struct of `struct.field` (`answer.aliases`)."""
    struct = name.partition(".")[0]
    return struct if name not in known and struct in known else name


def cell_of(row: Mapping[str, Any], name: str) -> Any:
    """Return the cell that `name` says, or the field of its struct; None where it is not there."""
    if name in row:
        return row[name]
    cell: Any = row
    for part in name.split("."):
        cell = cell.get(part) if isinstance(cell, Mapping) else None
    return cell


def _joined(values: Sequence[str]) -> str:
    """Store alternatives, each once; one alone is a reference like any other."""
    kept = list(dict.fromkeys(values))
    return json.dumps({ANY: kept}, ensure_ascii=False) if len(kept) > 1 else "".join(kept)


def _listed(cell: Any, spelled: bool) -> list[str] | None:
    """Return the texts of a list, or, with `spelled`, of a text that spells a list of texts; None where it is none."""
    if isinstance(cell, str) and spelled and len(cell) <= LONGEST and LIST_OF_TEXTS.match(cell):
        cell = _spelled(cell.strip())
    return [text for text in map(as_text, cell) if text] if isinstance(cell, list) else None


def _spelled(text: str) -> list[str] | None:
    pythons = text if WITH_COMMAS.search(text) else SIDE_BY_SIDE.sub(r"\1, ", text)
    for read, spelt in ((json.loads, text), (ast.literal_eval, pythons)):
        try:
            found = read(spelt)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return [well_formed(each) for each in found]
    return None
