"""Stage `prompts`: any file or Hub dataset in, one row per prompt out, its split drawn once and for all.

A prompt without text, a second copy of a prompt and, where references are needed, a prompt without a usable one are
left out and counted, never mended.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends.grading.code_tests import of_cells
from persyn_hf.backends.harness.questions import final_answer
from persyn_hf.backends.references import cell_of, column_of, is_unclear, of_each, read_reference
from persyn_hf.backends.source_cells import as_text, missing_column, read_prompt
from persyn_hf.backends.source_rows import rows_of_dataset, rows_of_file
from persyn_hf.core.conversations import user_text
from persyn_hf.core.near_duplicates import group_near_duplicates
from persyn_hf.errors import InputError
from persyn_hf.schemas import PROMPTS, prompt_id
from persyn_hf.stage import Context, Result
from persyn_hf.stages.prompts.decontamination import compare, drop_overlaps
from persyn_hf.stages.prompts.settings import Settings
from persyn_hf.stages.prompts.splits import across_splits, draw, take


INPUTS: dict[str, Any] = {}
OUTPUT = PROMPTS
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
    rows = list(_clean(_read(settings, counts), settings, source, counts))
    if settings.references == "math":
        rows = _keep_parsable(rows, context, counts)
    if not rows:
        dropped = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
        raise InputError(f"{source} gives no usable prompt ({dropped}); check `prompts.columns` and `references`")
    metrics: dict[str, Any] = {}
    if settings.decontaminate == "drop":
        rows, metrics["decontamination"] = drop_overlaps(rows, settings, context.progress, counts)
        if not rows:
            raise InputError(f"every prompt of {source} holds a test item; give others, or set `decontaminate: warn`")
    usable = len(rows)
    groups = _groups(rows, settings, context)
    if settings.columns.split is None:
        rows = draw(rows, settings, context.seed, source, groups if settings.near_duplicates == "together" else None)
    else:
        rows = take(rows, settings, source)
    counts["kept"], counts["not_asked_for"] = len(rows), usable - len(rows)
    metrics |= _measure(rows, groups, settings, context, counts)
    names = ("read", "kept", *DROPPED)  # read is the sum of the others, but where missing references are allowed
    told = {name: counts[name] for name in TOLD if counts[name]}
    return Result(data=OUTPUT.dataset(rows), counts={name: counts[name] for name in names} | told, metrics=metrics)


def _groups(rows: list[dict[str, Any]], settings: Settings, context: Context) -> dict[str, str]:
    """Group the prompts that nearly say the same: prompt_id -> that of the first in its group; empty: not looked at.

    What lies behind `draw_from` always goes to the pool, and so belongs to no group that is drawn.
    """
    if settings.near_duplicates == "none":
        return {}
    early = rows[: settings.draw_from] if settings.near_duplicates == "together" else rows
    context.progress.start("looking for near-duplicates", total=len(early))
    firsts = group_near_duplicates([user_text(row["messages"]) for row in early])
    context.progress.advance(len(early))
    return {row["prompt_id"]: early[first]["prompt_id"] for row, first in zip(early, firsts, strict=True)}


def _measure(
    rows: list[dict[str, Any]], groups: dict[str, str], settings: Settings, context: Context, counts: Counter[str]
) -> dict[str, Any]:
    """Measure and count what the prompts that are kept have in common with test items and across splits."""
    metrics: dict[str, Any] = {}
    if settings.decontaminate == "warn" and settings.item_sets:
        share, conversations = settings.decontaminate_share, [row["messages"] for row in rows]
        compared = compare(conversations, settings.item_sets, share, context.progress)
        counts["contaminated"] = len(compared.prompts)
        metrics["decontamination"] = compared.metrics([row["prompt_id"] for row in rows], share)
    if groups:
        metrics["near_duplicates"] = across_splits(rows, groups)
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


def _clean(
    source_rows: Iterator[dict[str, Any]], settings: Settings, source: str, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yield rows of the `PROMPTS` contract, with the source's `split` or None, and count the others by reason."""
    columns = settings.columns
    seen: dict[str, str | None] = {}  # prompt_id -> reference
    for row in source_rows:
        counts["read"] += 1
        messages = read_prompt(row, columns.prompt)
        if isinstance(messages, str):
            counts[messages] += 1
            continue
        reference = _reference(row, settings, counts)
        name = prompt_id(messages)
        if name in seen:
            counts["duplicates" if reference in (None, seen[name]) else "reference_differs"] += 1
            continue
        seen[name] = reference
        if reference is None and columns.reference:
            counts["reference_missing"] += 1
            if settings.references != "none":
                continue
        if reference == "":
            counts["reference_unparsable"] += 1
            continue
        yield {
            "prompt_id": name,
            "messages": messages,
            "reference": reference,
            "source": source,
            "topic": (as_text(row.get(columns.topic)) or None) if columns.topic else None,
            "split": row.get(columns.split) if columns.split else None,
        }


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


def _keep_parsable(rows: list[dict[str, Any]], context: Context, counts: Counter[str]) -> list[dict[str, Any]]:
    """Keep the rows whose reference parses as mathematics; count the others by reason."""
    from persyn_hf.backends.grading.pool import Verifier

    context.progress.start("checking references", total=len(rows))
    kept: list[dict[str, Any]] = []
    with Verifier(timeout_s=5) as verifier:
        for start in range(0, len(rows), 256):
            chunk = rows[start : start + 256]
            for row, parses in zip(chunk, verifier.parses([row["reference"] for row in chunk]), strict=True):
                if parses:
                    kept.append(row)
                else:
                    counts["reference_timed_out" if parses is None else "reference_unparsable"] += 1
            context.progress.advance(len(chunk))
    return kept
