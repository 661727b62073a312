"""Stage `prompts`: any file or Hub dataset in, one row per prompt out, its split drawn once and for all.

A prompt without text, a second copy of a prompt and, where references are needed, a prompt without a usable one are
left out and counted, never mended.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends.harness.questions import final_answer
from persyn_hf.backends.references import cell_of, column_of, is_unclear, of_each, read_reference
from persyn_hf.backends.source_cells import as_text, missing_column, read_prompt
from persyn_hf.backends.source_rows import rows_of_dataset, rows_of_file
from persyn_hf.errors import InputError
from persyn_hf.schemas import PROMPTS, prompt_id
from persyn_hf.stage import Context, Result
from persyn_hf.stages.prompts.settings import Settings


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

TOLD = ("ragged_rows", "lists_of_references")  # rows of which the user should know where there are any

SPLITS = ("calibration", "dev", "pool")
PAPER_SIZES = {"calibration": 2500, "dev": 1000}  # paper, section 3.3 and appendix: 2.5K suffice, 1K are held out


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
    usable = len(rows)
    if settings.columns.split is None:
        rows = _draw(rows, settings, context.seed, source)
    else:
        rows = _take(rows, settings, source)
    counts["kept"], counts["not_asked_for"] = len(rows), usable - len(rows)
    names = ("read", "kept", *DROPPED)  # read is the sum of the others, but where missing references are allowed
    told = {name: counts[name] for name in TOLD if counts[name]}
    return Result(data=OUTPUT.dataset(rows), counts={name: counts[name] for name in names} | told)


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
    if settings.columns.reference is None:
        return None
    cell, marker = cell_of(row, settings.columns.reference), settings.reference_after
    if settings.reference_lists is None and is_unclear(cell):
        counts["lists_of_references"] += 1
    reference = read_reference(cell, settings.reference_lists)
    if reference is None or marker is None:
        return reference
    return of_each(reference, lambda text: final_answer(text, marker))


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


def _draw(rows: list[dict[str, Any]], settings: Settings, seed: int, source: str) -> list[dict[str, Any]]:
    """Draw the splits by a lot for each prompt, which follows from the seed and the prompt's own name.

    So prompts that are appended later change no other prompt's lot, and those behind `draw_from` all go to the pool.
    """
    sizes = {split: getattr(settings, split) for split in SPLITS}
    sizes |= {split: size for split, size in PAPER_SIZES.items() if sizes[split] is None}
    needed = sum(size for size in sizes.values() if size is not None)
    if len(rows) < needed:
        asked = ", ".join(f"`{split}` {size}" for split, size in sizes.items() if size is not None)
        raise InputError(
            f"{source} gives {len(rows)} usable prompts, but {asked} ask for {needed}; "
            "lower these sizes or give more prompts"
        )
    held = sizes["calibration"] + sizes["dev"]
    if settings.draw_from is not None and settings.draw_from < held:
        raise InputError(
            f"`prompts.draw_from` is {settings.draw_from}, but calibration and dev are {held} prompts; it must be at "
            "least that, best the number of usable prompts that the source gave at first"
        )

    def lot(index: int) -> tuple[bool, str]:
        late = settings.draw_from is not None and index >= settings.draw_from
        return late, hashlib.sha256(f"{seed}/{rows[index]['prompt_id']}".encode()).hexdigest()

    order = sorted(range(len(rows)), key=lot)
    start, drawn = 0, []
    for split in SPLITS:
        size = sizes[split]
        chosen = order[start:] if size is None else order[start : start + size]
        drawn += [rows[index] | {"split": split} for index in sorted(chosen)]
        start += len(chosen)
    return drawn


def _take(rows: list[dict[str, Any]], settings: Settings, source: str) -> list[dict[str, Any]]:
    """Split by the source's own column; a size in the settings keeps that many of a split, the first ones."""
    unknown = next((row["split"] for row in rows if row["split"] not in SPLITS), None)
    if unknown is not None or any(row["split"] is None for row in rows):
        raise InputError(
            f"{source}: column `{settings.columns.split}` holds {unknown!r}; its values must be {', '.join(SPLITS)}"
        )
    taken = []
    for split in SPLITS:
        members, size = [row for row in rows if row["split"] == split], getattr(settings, split)
        if size is not None and len(members) < size:
            raise InputError(
                f"{source} gives {len(members)} usable prompts of split {split}, but `{split}` asks for {size}; "
                "lower it or give more prompts"
            )
        taken += members[:size]
    return taken
