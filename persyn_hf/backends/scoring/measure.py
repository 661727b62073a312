"""Measure rows through the journal: what it holds is not measured again, what is new is kept batch by batch."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from persyn_hf.backends.chat import Row
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.scoring import Measured, Values
from persyn_hf.stage import Progress


def measure(
    rows: Sequence[Row],
    under: Sequence[Any],
    journal: Path,
    progress: Progress,
    what: str,
    score: Callable[[Sequence[Row], frozenset[int]], Measured],
    *,
    planned: Path,
    left: Iterable[tuple[Sequence[Any], Row, Values]] = (),
) -> list[Values]:
    """Return the values of every row, in order.

    `under` names, as plain JSON, everything besides the row that the values depend on. `score` gets the rows that were
    not known when the step first started, without copies, and the numbers of those that are known by now. (The
    rounding of values depends on the batches, so a resumed run keeps to the rows that it began with; the file
    `planned` remembers them.) `left` is what an earlier run measured but could not keep any more: (`under`, row,
    values).
    """
    keys = [key_of(under, row) for row in rows]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    with Journal(journal) as book:
        book.keep({key_of(before, row): values for before, row, values in left})
        values_of: dict[str, Values] = book.recall(first)
        sizes = {key: size_of(rows[number]) for key, number in first.items()}
        work = sum(size for key, size in sizes.items() if key not in values_of)
        progress.start(what, len(keys), sum(key in values_of for key in keys), work)
        if len(values_of) < len(first):
            missing = [key for key in first if key not in values_of]
            places = sorted(first[key] for key in _plan(planned, missing, first))
            skip = frozenset(at for at, number in enumerate(places) if keys[number] in values_of)
            with closing(score([rows[number] for number in places], skip)) as measured:  # it may hold processes
                for numbers, values in measured:
                    fresh = dict(zip((keys[places[at]] for at in numbers), values, strict=True))
                    book.keep(fresh)
                    values_of.update(fresh)
                    progress.advance(len(numbers), sum(sizes[key] for key in fresh))
    return [values_of[key] for key in keys]


def size_of(row: Row) -> int:
    """Return the characters of a row: rows come longest first, and the time left goes by what is left of them."""
    messages, response = row
    return sum(len(message["content"]) for message in messages) + len(response)


def _plan(path: Path, missing: list[str], keys: Collection[str]) -> list[str]:
    """Return the keys that the step began with; at its first start these are the `missing` ones of now."""
    if path.exists():
        planned: list[str] = json.loads(path.read_text(encoding="utf-8"))
        if set(missing) <= set(planned) <= set(keys):
            return planned
    part = path.with_suffix(".part")
    part.write_text(json.dumps(missing), encoding="utf-8")
    part.replace(path)
    return missing


def key_of(under: Sequence[Any], row: Row) -> str:
    """Compute the name of a row's values in the journal."""
    messages, response = row
    return hashlib.sha256(json.dumps([*under, list(messages), response]).encode()).hexdigest()
