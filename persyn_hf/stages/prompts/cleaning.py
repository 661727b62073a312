"""Clean the rows of a source into prompts, which lie in a file: there may be millions."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf.backends.dataset_rows import Rows, in_parts
from persyn_hf.backends.grading.code_tests import of_cells
from persyn_hf.backends.harness.questions import final_answer
from persyn_hf.backends.references import cell_of, is_unclear, of_each, read_reference
from persyn_hf.backends.source_cells import as_text, read_prompt
from persyn_hf.core.arrays import IntArray
from persyn_hf.schemas import PROMPTS, prompt_id
from persyn_hf.stage import Context
from persyn_hf.stages.prompts.settings import Settings


FINE, WITHOUT, MISSING, UNPARSABLE = range(4)  # a row; WITHOUT is kept, although it has no reference, MISSING is not
WRITTEN = (FINE, WITHOUT)


def cleaned(
    source_rows: Iterator[dict[str, Any]], settings: Settings, source: str, path: Path, counts: Counter[str]
) -> tuple[Rows, IntArray]:
    """Write rows of the `PROMPTS` contract, with the source's `split` or None, to the file `path`.

    Returns them with the numbers of those to keep, and counts the others by reason. Whether a prompt was there before
    is known at the end: until then 18 bytes of each are kept.
    """
    from datasets import Dataset

    columns = settings.columns
    names, references, fates = array("Q"), array("q"), array("b")
    with PROMPTS.writer(path) as writer:
        for row in source_rows:
            counts["read"] += 1
            messages = read_prompt(row, columns.prompt)
            if isinstance(messages, str):
                counts[messages] += 1
                continue
            reference, name = _reference(row, settings, counts), prompt_id(messages)
            fate = FINE if reference else UNPARSABLE
            if reference is None and columns.reference is None:
                fate = FINE
            elif reference is None:
                fate = WITHOUT if settings.references == "none" else MISSING
            names.append(int(name, 16))
            references.append(0 if reference is None else hash(reference) or 1)
            fates.append(fate)
            if fate in WRITTEN:
                writer.write(
                    {
                        "prompt_id": name,
                        "messages": messages,
                        "reference": reference,
                        "source": source,
                        "topic": (as_text(row.get(columns.topic)) or None) if columns.topic else None,
                        "split": _text_or_none(row.get(columns.split)) if columns.split else None,
                    }
                )
    kept = _firsts(np.array(names), np.array(references), np.array(fates), counts)
    return Rows(Dataset.from_file(str(path))), kept


def _firsts(
    names: NDArray[np.uint64], references: IntArray, fates: NDArray[np.int8], counts: Counter[str]
) -> IntArray:
    """Return the numbers of the rows that were written and are the first with their name; count the others.

    Args:
        names: of the rows of the source, as numbers.
        references: hashes of their references, 0 where there is none.
        fates: what became of each: `FINE` and others.
    """
    order, places = np.argsort(names, kind="stable"), np.arange(len(names))
    begins = np.append(True, names[order][1:] != names[order][:-1])[: len(names)]
    first = np.empty_like(places)
    first[order] = order[np.maximum.accumulate(np.where(begins, places, 0))]
    again, fresh = first != places, first == places
    same = (references == 0) | (references == references[first])
    counts["duplicates"] += int((again & same).sum())
    counts["reference_differs"] += int((again & ~same).sum())
    counts["reference_missing"] += int((fresh & ((fates == MISSING) | (fates == WITHOUT))).sum())
    counts["reference_unparsable"] += int((fresh & (fates == UNPARSABLE)).sum())
    written = np.isin(fates, WRITTEN)
    return np.asarray((np.cumsum(written) - 1)[fresh & written])


def _text_or_none(value: object) -> str | None:
    """Return a cell of the source's split as text; one that names no split is refused once all rows are read."""
    return None if value is None else str(value)


def _reference(row: Mapping[str, Any], settings: Settings, counts: Counter[str]) -> str | None:
    """Read the reference of a row; lists whose meaning the settings do not say are counted."""
    columns, marker = settings.columns.reference, settings.reference_after
    if columns is None:
        return None
    if settings.references == "tests":
        return _tests(row, [columns] if isinstance(columns, str) else columns)
    assert isinstance(columns, str)  # the settings' check
    cell = cell_of(row, columns)
    if settings.reference_lists is None and is_unclear(cell):
        counts["lists_of_references"] += 1
    reference = read_reference(cell, settings.reference_lists)
    if reference is None or marker is None:
        return reference
    return of_each(reference, lambda text: final_answer(text, marker))


def _tests(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """Read the tests of a row; empty where they cannot be used, None where there are none."""
    cells = [cell_of(row, column) for column in columns]
    if all(cell is None or cell in ("", []) for cell in cells):
        return None
    tests = of_cells(cells)
    return "" if tests is None else tests.as_reference()


def keep_parsable(rows: Rows, kept: IntArray, context: Context, counts: Counter[str]) -> IntArray:
    """Keep the rows whose reference parses as mathematics; count the others by reason."""
    from persyn_hf.backends.grading.pool import Verifier

    context.progress.start("checking references", total=len(kept))
    parsable = [np.zeros(0, np.int64)]
    with Verifier(timeout_s=5) as verifier:
        for some in in_parts(kept, 256):
            verdicts = verifier.parses([row["reference"] for row in rows.at(some)])
            parsable.append(some[[bool(parses) for parses in verdicts]])
            for parses in verdicts:
                if not parses:
                    counts["reference_timed_out" if parses is None else "reference_unparsable"] += 1
            context.progress.advance(len(some))
    return np.concatenate(parsable)
