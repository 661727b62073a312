"""Stage `prompts`: any file or Hub dataset in, one row per prompt out, its split drawn once and for all.

A prompt without text, a second copy of a prompt and, where references are needed, a prompt without a usable one are
left out and counted, never mended.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf.backends.dataset_rows import Rows, in_parts
from persyn_hf.backends.references import column_of
from persyn_hf.backends.source_cells import missing_column
from persyn_hf.backends.source_rows import rows_of_dataset, rows_of_file
from persyn_hf.core.arrays import IntArray
from persyn_hf.core.near_duplicates import group_near_duplicates
from persyn_hf.errors import InputError
from persyn_hf.schemas import PROMPTS
from persyn_hf.stage import Context, Result
from persyn_hf.stages.prompts.cleaning import cleaned, keep_parsable
from persyn_hf.stages.prompts.decontamination import compare, drop_overlaps, names_of, texts_of
from persyn_hf.stages.prompts.settings import Settings
from persyn_hf.stages.prompts.splits import Chosen, across_splits, draw, take


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS: dict[str, Any] = {}
OUTPUT = PROMPTS
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
    rows, kept = cleaned(_read(settings, counts), settings, source, context.work_dir / "cleaned.arrow", counts)
    if settings.references == "math":
        kept = keep_parsable(rows, kept, context, counts)
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
