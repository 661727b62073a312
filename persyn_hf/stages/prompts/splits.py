"""The splits of the prompts: drawn by lot, or taken from the source."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from persyn_hf.errors import InputError
from persyn_hf.stages.prompts.settings import Settings


SPLITS = ("calibration", "dev", "pool")
PAPER_SIZES = {"calibration": 2500, "dev": 1000}  # paper, section 3.3 and appendix: 2.5K suffice, 1K are held out


def draw(
    rows: list[dict[str, Any]], settings: Settings, seed: int, source: str, groups: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Draw the splits by a lot for each prompt, which follows from the seed and the prompt's own name.

    So prompts that are appended later change no other prompt's lot, and those behind `draw_from` all go to the pool.

    groups: prompt_id -> that of the first prompt of its group. A group has one lot and goes into one split, the first
    that has room for all of it.
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

    if groups is None:
        order = sorted(range(len(rows)), key=lot)
        start, drawn = 0, []
        for split in SPLITS:
            size = sizes[split]
            chosen = order[start:] if size is None else order[start : start + size]
            drawn += [rows[index] | {"split": split} for index in sorted(chosen)]
            start += len(chosen)
        return drawn
    members: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault(groups.get(row["prompt_id"], row["prompt_id"]), []).append(index)
    return _fill(rows, sorted(members.values(), key=lambda group: lot(group[0])), sizes)


def _fill(
    rows: list[dict[str, Any]], groups: Sequence[Sequence[int]], sizes: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """Put each group, in order, into the first split that has room for all of it."""
    chosen: dict[str, list[int]] = {split: [] for split in SPLITS}
    for group in groups:
        for split in SPLITS:
            size = sizes[split]
            if size is None or len(chosen[split]) + len(group) <= size:
                chosen[split] += group
                break
    for split, size in sizes.items():
        if size is not None and len(chosen[split]) < size:
            raise InputError(
                f"with `near_duplicates: together` the split {split} gets {len(chosen[split])} prompts, and `{split}` "
                f"asks for {size}; lower it, or give more prompts"
            )
    return [rows[index] | {"split": split} for split in SPLITS for index in sorted(chosen[split])]


def take(rows: list[dict[str, Any]], settings: Settings, source: str) -> list[dict[str, Any]]:
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


def across_splits(rows: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> dict[str, int]:
    """Count the prompts of each later split that have a near-duplicate in an earlier one.

    `dev_in_calibration` are prompts of dev; `pool_in_earlier` are of the pool, in calibration or dev.
    """
    held: dict[str, set[str]] = {split: set() for split in SPLITS}
    for row in rows:
        held[row["split"]].add(groups.get(row["prompt_id"], row["prompt_id"]))
    earlier = {"dev": held["calibration"], "pool": held["calibration"] | held["dev"]}
    found = Counter(
        row["split"]
        for row in rows
        if groups.get(row["prompt_id"], row["prompt_id"]) in earlier.get(row["split"], set())
    )
    return {"dev_in_calibration": found["dev"], "pool_in_earlier": found["pool"]}
