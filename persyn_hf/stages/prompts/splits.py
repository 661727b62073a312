"""The splits of the prompts: drawn by lot, or taken from the source."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.arrays import IntArray
from persyn_hf.errors import InputError
from persyn_hf.stages.prompts.settings import Settings


SPLITS = ("calibration", "dev", "pool")
Chosen = dict[str, IntArray]  # split -> places of its prompts among those that are usable, ascending
PAPER_SIZES = {"calibration": 2500, "dev": 1000}  # paper, section 3.3 and appendix: 2.5K suffice, 1K are held out


def draw(
    names: Iterable[Sequence[str]], settings: Settings, seed: int, source: str, groups: IntArray | None = None
) -> Chosen:
    """Draw the splits by a lot for each prompt, which follows from the seed and the prompt's own name.

    So prompts that are appended later change no other prompt's lot, and those behind `draw_from` all go to the pool.

    Args:
        names: prompt_ids, some at a time.
        groups: (num_prompts,), the place of the first prompt of each one's group. A group has one lot and goes into
            one split, the first that has room for all of it.
    """
    lots = np.concatenate([_lots(some, seed) for some in names])
    sizes = {split: getattr(settings, split) for split in SPLITS}
    sizes |= {split: size for split, size in PAPER_SIZES.items() if sizes[split] is None}
    needed = sum(size for size in sizes.values() if size is not None)
    if len(lots) < needed:
        asked = ", ".join(f"`{split}` {size}" for split, size in sizes.items() if size is not None)
        raise InputError(
            f"{source} gives {len(lots)} usable prompts, but {asked} ask for {needed}; "
            "lower these sizes or give more prompts"
        )
    held = sizes["calibration"] + sizes["dev"]
    if settings.draw_from is not None and settings.draw_from < held:
        raise InputError(
            f"`prompts.draw_from` is {settings.draw_from}, but calibration and dev are {held} prompts; it must be at "
            "least that, best the number of usable prompts that the source gave at first"
        )
    late = np.arange(len(lots)) >= (len(lots) if settings.draw_from is None else settings.draw_from)
    order = np.lexsort((lots[:, 1], lots[:, 0], late))
    if groups is not None:
        return _fill(order, groups, sizes)
    start, drawn = 0, {}
    for split in SPLITS:
        size = sizes[split]
        chosen = order[start:] if size is None else order[start : start + size]
        drawn[split] = np.sort(chosen)
        start += len(chosen)
    return drawn


def _lots(names: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Return the first 16 bytes of the sha256 of seed and name, as two numbers: (len(names), 2)."""
    digests = b"".join(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16] for name in names)
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def _fill(order: IntArray, groups: IntArray, sizes: Mapping[str, int | None]) -> Chosen:
    """Put each group, in the order of its first prompt's lot, into the first split that has room for all of it."""
    number = np.bincount(groups, minlength=len(groups))  # of each group, at the place of its first prompt
    split_of = np.zeros(len(groups), dtype=np.int8)
    filled = dict.fromkeys(SPLITS, 0)
    for first in order[groups[order] == order].tolist():
        for place, split in enumerate(SPLITS):
            size = sizes[split]
            if size is None or filled[split] + number[first] <= size:
                filled[split] += int(number[first])
                split_of[first] = place
                break
        else:
            split_of[first] = len(SPLITS)  # in none
    for split, size in sizes.items():
        if size is not None and filled[split] < size:
            raise InputError(
                f"with `near_duplicates: together` the split {split} gets {filled[split]} prompts, and `{split}` "
                f"asks for {size}; lower it, or give more prompts"
            )
    return {split: np.flatnonzero(split_of[groups] == place) for place, split in enumerate(SPLITS)}


def take(values: Iterable[Sequence[str | None]], settings: Settings, source: str) -> Chosen:
    """Split by the `values` of the source's own column; a size in the settings keeps the first ones of a split."""
    found = []
    for some in values:
        for value in some:
            if value not in SPLITS:
                raise InputError(
                    f"{source}: column `{settings.columns.split}` holds {value!r}; its values must be "
                    f"{', '.join(SPLITS)}"
                )
        found.append(np.array([SPLITS.index(str(value)) for value in some], dtype=np.int8))
    split_of, taken = np.concatenate(found), {}
    for place, split in enumerate(SPLITS):
        members, size = np.flatnonzero(split_of == place), getattr(settings, split)
        if size is not None and len(members) < size:
            raise InputError(
                f"{source} gives {len(members)} usable prompts of split {split}, but `{split}` asks for {size}; "
                "lower it or give more prompts"
            )
        taken[split] = members if size is None else members[:size]
    return taken


def across_splits(chosen: Chosen, groups: IntArray) -> dict[str, int]:
    """Count the prompts of each later split that have a near-duplicate in an earlier one.

    `dev_in_calibration` are prompts of dev; `pool_in_earlier` are of the pool, in calibration or dev.
    """
    calibration, dev, pool = (groups[chosen[split]] for split in SPLITS)
    earlier = np.concatenate([calibration, dev])
    return {
        "dev_in_calibration": int(np.isin(dev, calibration).sum()),
        "pool_in_earlier": int(np.isin(pool, earlier).sum()),
    }
