"""Read what a caller gives as a table: a list of dicts, a dict of columns, a pandas DataFrame, a `datasets.Dataset`.

A `DatasetDict`, as `load_artifact` returns it, counts as all its splits together. Missing values (None, NaN, NaT) are
None from here on.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from persyn_hf.backends.source_cells import as_text, read_prompt
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import nearest
from persyn_hf.schemas import PROMPTS, prompt_id


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from pandas import DataFrame

Columns = dict[str, list[Any]]
Conversation: TypeAlias = Sequence[Mapping[str, Any]]  # turns, each {"role": ..., "content": ...}
Table: TypeAlias = "Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | DataFrame | Dataset | DatasetDict"
Prompts: TypeAlias = "Sequence[str] | Sequence[Conversation] | Table"

SPLITS = ("calibration", "dev", "pool")
FORMS = "a list of dicts, a dict of columns, a pandas DataFrame or a datasets.Dataset"


def columns_of(table: Table, what: str) -> Columns:
    """Return the columns of a table as lists of one length; `what` is the argument's name, for messages.

    Raises:
        InputError: it is no table, has no rows, or its columns differ in length.
    """
    columns = _columns(table, what)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"`{name}` {length:,}" for name, length in lengths.items())
        raise InputError(f"`{what}`: all columns must have as many rows, found {found}; give one value per row")
    if not any(lengths.values()):
        raise InputError(f"`{what}` holds no rows, at least one is needed")
    return columns


def needed(columns: Columns, name: str, what: str, why: str) -> list[Any]:
    """Return a column that must be there; the message says what it is needed for."""
    if name not in columns:
        raise InputError(
            f"`{what}` has no column `{name}`, {why}{nearest(name, columns)}; rename a column or add this one"
        )
    return columns[name]


def texts_in(columns: Columns, name: str, what: str, why: str) -> list[str]:
    """Return a column of texts without a gap, such as the names of teachers."""
    cells = needed(columns, name, what, why)
    for number, cell in enumerate(cells):
        if not isinstance(cell, str) or not cell:
            raise InputError(f"`{what}`: `{name}` of row {number} must be a text, got {cell!r:.60}")
    return cells


def numbers_in(columns: Columns, name: str, what: str, why: str) -> list[float | None]:
    """Return a column of numbers or true/false values as floats; None where there is none."""
    return [_number(cell, name, number, what) for number, cell in enumerate(needed(columns, name, what, why))]


def splits_in(columns: Columns, what: str, otherwise: str) -> list[str]:
    """Return the split of each row, `otherwise` where there is none; a split of another word is refused."""
    size = len(next(iter(columns.values())))
    splits = [otherwise if split is None else split for split in columns.get("split", [None] * size)]
    for number, split in enumerate(splits):
        if split not in (otherwise, *SPLITS):
            raise InputError(
                f"`{what}`: `split` of row {number} must be {', '.join(SPLITS)} or missing, got {split!r:.60}; leave "
                "the column out where it means something else"
            )
    return splits


def conversations(cells: Sequence[Any], what: str) -> list[list[dict[str, str]]]:
    """Read prompts, each a text or a conversation that ends with the user's turn (later turns are left out).

    Raises:
        InputError: one of them is neither; it is named by its number.
    """
    read: list[list[dict[str, str]]] = []
    for number, cell in enumerate(cells):
        turns = read_prompt({"prompt": _plain(cell)}, "prompt")
        if isinstance(turns, str):
            found = "nothing" if turns == "empty" else f"{type(cell).__name__} {cell!r:.60}"
            raise InputError(
                f"`{what}`: prompt number {number} must be a text, or a list of turns {{role, content}} that ends "
                f"with the user's, got {found}"
            )
        read.append(turns)
    return read


def prompts_in(columns: Columns, what: str) -> list[list[dict[str, str]]]:
    """Read the prompts of a table: its column `prompt`, else `messages`."""
    name = "messages" if "messages" in columns and "prompt" not in columns else "prompt"
    return conversations(needed(columns, name, what, "a text or a conversation per row"), what)


def ids_in(columns: Columns, what: str) -> list[str]:
    """Return the column `prompt_id`, else the name that follows from each prompt's text, as in every artifact."""
    if "prompt_id" in columns:
        return texts_in(columns, "prompt_id", what, "")
    if "prompt" not in columns and "messages" not in columns:
        raise InputError(
            f"`{what}` has none of the columns `prompt`, `messages` and `prompt_id`, one of which must say what each "
            f"row is about; found are {', '.join(columns)}"
        )
    return [prompt_id(turns) for turns in prompts_in(columns, what)]


def prompt_table(
    prompts: Prompts, what: str = "prompts", *, split: str | None = None, otherwise: str = ""
) -> "Dataset":
    """Make a table of the `prompts` contract from prompts: a list of texts or conversations, or a table.

    Of a table, `prompt_id`, `reference`, `topic`, `source` and `split` are kept where they are there. A list may be
    empty. `split` is the one of all prompts; None: as the table says, and `otherwise` where it says nothing.
    """
    given = _listed(prompts, what)
    if given is not None:
        turns = conversations(given, what)
        columns: Columns = {}
    else:
        columns = columns_of(prompts, what)
        turns = prompts_in(columns, what)
    nothing = [None] * len(turns)
    texts = {name: [as_text(cell) or None for cell in columns.get(name, nothing)] for name in ("reference", "topic")}
    ids = texts_in(columns, "prompt_id", what, "") if "prompt_id" in columns else [prompt_id(each) for each in turns]
    parts = splits_in(columns, what, otherwise) if columns and split is None else [split or otherwise] * len(turns)
    sources = [as_text(source) or what for source in columns.get("source", nothing)]
    rows = zip(ids, turns, texts["reference"], sources, texts["topic"], parts, strict=True)
    made = [dict(zip(PROMPTS.names, row, strict=True)) for row in rows]
    return PROMPTS.dataset(made)


def in_memory(data: "Dataset") -> "Dataset":
    """Return a dataset that outlives the file it was written to."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(data.data.table), info=data.info)


def _columns(table: Any, what: str) -> Columns:
    if _is_dataset(table):
        return dict(table.with_format(None)[:])
    if _is_frame(table):
        return {str(name): _cells(table[name]) for name in table.columns}
    if isinstance(table, Mapping) and table:
        parts = list(table.values())
        if all(map(_is_dataset, parts)):  # a DatasetDict
            names = dict.fromkeys(name for part in parts for name in part.column_names)
            each = [_columns(part, what) for part in parts]
            return {
                name: [c for p, cs in zip(parts, each, strict=True) for c in cs.get(name, [None] * len(p))]
                for name in names
            }
        if all(isinstance(column, (list, tuple)) or hasattr(column, "tolist") for column in parts):
            return {str(name): [_known(_plain(cell)) for cell in _plain(column)] for name, column in table.items()}
    if isinstance(table, (list, tuple)) and all(isinstance(row, Mapping) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        return {str(name): [_known(_plain(row.get(name))) for row in table] for name in names}
    raise InputError(f"`{what}` must be {FORMS}, got {_described(table)}")


def _listed(prompts: Any, what: str) -> list[Any] | None:
    """Return prompts that are given as a list; None where they are a table. One prompt alone is refused."""
    if isinstance(prompts, str) or (isinstance(prompts, (list, tuple)) and prompts and _is_turn(prompts[0])):
        kind = "text" if isinstance(prompts, str) else "conversation"
        raise InputError(f"`{what}` must be a list of prompts, got one {kind}; put it into a list: [...]")
    listed = _plain(prompts) if hasattr(prompts, "tolist") and not _is_frame(prompts) else prompts
    if isinstance(listed, (list, tuple)) and not any(isinstance(each, Mapping) for each in listed):
        return list(listed)
    return None


def _is_turn(row: Any) -> bool:
    return isinstance(row, Mapping) and {"role", "content"} <= row.keys()


def _is_dataset(table: Any) -> bool:
    """Tell a `datasets.Dataset`, without importing the package; a `DatasetDict` is a mapping of them."""
    return hasattr(table, "with_format") and hasattr(table, "data") and not isinstance(table, Mapping)


def _is_frame(table: Any) -> bool:
    return hasattr(table, "columns") and hasattr(table, "isna")


def _cells(series: Any) -> list[Any]:
    """Return a column of pandas as plain values."""
    return [None if gap else _plain(cell) for cell, gap in zip(series.tolist(), series.isna().tolist(), strict=True)]


def _plain(value: Any) -> Any:
    """Return arrays and numbers of numpy as lists and numbers of Python."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _number(cell: Any, name: str, row: int, what: str) -> float | None:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return None
    if isinstance(cell, (bool, int, float)):
        return float(cell)
    raise InputError(f"`{what}`: `{name}` of row {row} must be a number, true, false or missing, got {cell!r:.60}")


def _described(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value:
        other = next(each for each in value if not isinstance(each, Mapping))
        return f"a list that holds {type(other).__name__} {other!r:.60}"
    return f"{type(value).__name__} {value!r:.60}" if isinstance(value, (str, int, float)) else type(value).__name__
