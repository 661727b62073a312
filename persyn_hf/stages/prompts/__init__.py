"""Stage `prompts`: any file or Hub dataset in, one row per prompt out, its split drawn once and for all.

A prompt without text, a second copy of a prompt and, where references are needed, a prompt without a usable one are
left out and counted, never mended.
"""

import itertools
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf.backends.dataset_rows import Rows, in_parts
from persyn_hf.backends.grading.code_tests import of_cells
from persyn_hf.backends.harness.questions import final_answer
from persyn_hf.backends.references import cell_of, column_of, is_unclear, of_each, read_reference
from persyn_hf.backends.source_cells import as_text, missing_column, read_prompt
from persyn_hf.backends.source_rows import rows_of_dataset, rows_of_file
from persyn_hf.core.arrays import IntArray
from persyn_hf.core.near_duplicates import group_near_duplicates
from persyn_hf.errors import InputError
from persyn_hf.schemas import PROMPTS, prompt_id
from persyn_hf.stage import Context, Result
from persyn_hf.stages.prompts.decontamination import compare, drop_overlaps, names_of, texts_of
from persyn_hf.stages.prompts.settings import Settings
from persyn_hf.stages.prompts.splits import Chosen, across_splits, draw, take


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS: dict[str, Any] = {}
OUTPUT = PROMPTS
FINE, WITHOUT, MISSING, UNPARSABLE = range(4)  # a row; WITHOUT is kept, although it has no reference, MISSING is not
WRITTEN = (FINE, WITHOUT)
MANY = 1 << 20  # prompts from which on their MinHashes lie in a file
VERSION = 6  # 6: other rules for references, lines end in \n, more words for the role of a turn are known
LATER: dict[str, Any] = {"reference_lists": None, "ragged_rows": "refuse"}

DROPPED = (
    "duplicates",
    "reference_differs",  # a second copy of a prompt, with another reference than the first, which is kept
    "empty",
    "not_text",
    "reference_missing",
    "reference_unparsable",
    "reference_timed_out",  # or took more memory than a grader has
    "not_asked_for",
)

TOLD = (  # rows of which the user should know where there are any
    "ragged_rows",
    "lists_of_references",
    "decontaminated",  # dropped: they hold a test item
    "contaminated",  # kept, although they do
    "near_duplicates",  # of dev or the pool, of a prompt of an earlier split
)


def run(settings: Settings, context: Context) -> Result:
    """Read, clean and split the prompts. Rows come out as calibration, dev, pool, each in the order of the source.

    Raises:
        InputError: the source cannot be read, has no usable prompt, or too few for the sizes of the splits.
    """
    source = Path(settings.path).name if settings.path else str(settings.dataset)  # the same on every machine
    counts: Counter[str] = Counter()
    rows, kept = _cleaned(_read(settings, counts), settings, source, context.work_dir / "cleaned.arrow", counts)
    if settings.references == "math":
        kept = _keep_parsable(rows, kept, context, counts)
    if not len(kept):
        dropped = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
        raise InputError(f"{source} gives no usable prompt ({dropped}); check `prompts.columns` and `references`")
    metrics: dict[str, Any] = {}
    if settings.decontaminate == "drop":
        kept, metrics["decontamination"] = drop_overlaps(kept, rows, settings, context.progress, counts)
        if not len(kept):
            raise InputError(f"every prompt of {source} holds a test item; give others, or set `decontaminate: warn`")
    groups = _groups(rows, kept, settings, context)
    if settings.columns.split is None:
        together = groups if settings.near_duplicates == "together" else None
        chosen = draw(_values(rows, kept, "prompt_id"), settings, context.seed, source, together)
    else:
        chosen = take(_values(rows, kept, "split"), settings, source)
    counts["kept"] = sum(map(len, chosen.values()))
    counts["not_asked_for"] = len(kept) - counts["kept"]
    metrics |= _measure(rows, kept, chosen, groups, settings, context, counts)
    names = ("read", "kept", *DROPPED)  # read is the sum of the others, but where missing references are allowed
    told = {name: counts[name] for name in TOLD if counts[name]}
    data = _written(rows, kept, chosen, context.work_dir / "prompts.arrow")
    return Result(data=data, counts={name: counts[name] for name in names} | told, metrics=metrics)


def _values(rows: Rows, kept: IntArray, column: str) -> Iterator[list[Any]]:
    """Yield a column of the rows of these numbers, some at a time."""
    return ([row[column] for row in rows.at(some)] for some in in_parts(kept))


def _written(rows: Rows, kept: IntArray, chosen: Chosen, path: Path) -> "Dataset":
    """Write the prompts of the splits, one split after another, to the file `path`."""
    from datasets import Dataset

    with OUTPUT.writer(path) as writer:
        for split, places in chosen.items():
            for some in in_parts(kept[places]):
                for row in rows.at(some):
                    writer.write(row | {"split": split})
    return Dataset.from_file(str(path))


def _groups(rows: Rows, kept: IntArray, settings: Settings, context: Context) -> IntArray | None:
    """Group the prompts that nearly say the same: the place of the first in each one's group; null: not looked at.

    What lies behind `draw_from` always goes to the pool, and so belongs to no group that is drawn.
    """
    if settings.near_duplicates == "none":
        return None
    early = kept[: settings.draw_from] if settings.near_duplicates == "together" else kept
    context.progress.start("looking for near-duplicates", total=len(early))
    path = context.work_dir / "signatures"

    def room(shape: tuple[int, int]) -> NDArray[np.uint32]:
        return np.memmap(path, np.uint32, "w+", shape=shape)

    groups = np.arange(len(kept))
    groups[: len(early)] = group_near_duplicates(texts_of(rows, early), room if len(early) > MANY else None)
    path.unlink(missing_ok=True)
    context.progress.advance(len(early))
    return groups


def _measure(
    rows: Rows,
    kept: IntArray,
    chosen: Chosen,
    groups: IntArray | None,
    settings: Settings,
    context: Context,
    counts: Counter[str],
) -> dict[str, Any]:
    """Measure and count what the prompts that are kept have in common with test items and across splits."""
    metrics: dict[str, Any] = {}
    if settings.decontaminate == "warn" and settings.item_sets:
        share, numbers = settings.decontaminate_share, kept[np.concatenate(list(chosen.values()))]
        compared = compare(texts_of(rows, numbers), settings.item_sets, share, context.progress)
        counts["contaminated"] = len(compared.prompts)
        metrics["decontamination"] = compared.metrics(names_of(rows, numbers), share)
    if groups is not None:
        metrics["near_duplicates"] = across_splits(chosen, groups)
        counts["near_duplicates"] = sum(metrics["near_duplicates"].values())
    return metrics


def _read(settings: Settings, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Read the rows of the source; a column that it does not have is refused."""
    source = settings.path or str(settings.dataset)

    def skipped() -> None:
        counts.update(("read", "ragged_rows"))

    def choose(present: Sequence[str]) -> set[str]:
        columns = settings.columns.model_dump(exclude_none=True)
        named = [
            (key, column)
            for key, given in columns.items()
            for column in ([given] if isinstance(given, str) else given)
        ]
        named = [(key, column_of(column, present) if key == "reference" else column) for key, column in named]
        for key, column in named:
            if column not in present:
                raise InputError(missing_column(source, "prompts", key, column, present))
        return {column for _, column in named}

    if settings.path is not None:
        rows = rows_of_file(
            Path(settings.path), "prompts", choose, skipped if settings.ragged_rows == "skip" else None
        )
    else:
        rows = rows_of_dataset(source, settings.config, settings.revision, settings.source_split, "prompts", choose)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{source} holds no rows; `prompts` needs at least one")
    return itertools.islice(itertools.chain([first], rows), settings.limit)


def _cleaned(
    source_rows: Iterator[dict[str, Any]], settings: Settings, source: str, path: Path, counts: Counter[str]
) -> tuple[Rows, IntArray]:
    """Write rows of the `PROMPTS` contract, with the source's `split` or None, to the file `path`.

    Returns them with the numbers of those to keep, and counts the others by reason. Whether a prompt was there before
    is known at the end: until then 18 bytes of each are kept.
    """
    from datasets import Dataset

    columns = settings.columns
    names, references, fates = array("Q"), array("q"), array("b")
    with OUTPUT.writer(path) as writer:
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


def _keep_parsable(rows: Rows, kept: IntArray, context: Context, counts: Counter[str]) -> IntArray:
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
