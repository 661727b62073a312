"""Pictures of numbers as SVG: the geometry of a flow between two stacks, and axes with round numbers."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.core.arrays import IntArray


WIDTH, HEIGHT = 640, 340  # at least so high
LEFT, RIGHT, BAR = 150, 490, 16  # left edges of the two stacks, and their width
GAP, LINE = 5, 20  # between the parts of a stack, and between labels


class Part(NamedTuple):
    """A teacher's part of a stack: where it begins and how tall it is, and where its label is centred."""

    teacher: int
    prompts: int
    top: float
    height: float
    label: float


class Ribbon(NamedTuple):
    """The prompts that go from one teacher to another; `path`: the outline as the `d` of an SVG path."""

    was: int
    becomes: int
    prompts: int
    path: str


def flow(counts: IntArray) -> dict[str, Any]:
    """Return the stacks before and after (lists of `Part`), the ribbons between them, and the height of it all.

    Args:
        counts: (n, n) prompts from each teacher (rows) to each (columns); the diagonal stays.
    """
    total = max(int(counts.sum()), 1)
    sums = counts.sum(axis=1), counts.sum(axis=0)
    height = max(HEIGHT, *(LINE * int((counts > 0).sum()) for counts in sums))
    scale = [(height - GAP * (int((counts > 0).sum()) - 1)) / total for counts in sums]
    before, after = (_stack(counts, one, height) for counts, one in zip(sums, scale, strict=True))
    tops = [{part.teacher: part.top for part in stack} for stack in (before, after)]
    ribbons = []
    for was, becomes in zip(*np.nonzero(counts), strict=True):
        count = int(counts[was, becomes])
        one, other = tops[0][was], tops[1][becomes]
        tops[0][was] += count * scale[0]
        tops[1][becomes] += count * scale[1]
        path = _outline(one, one + count * scale[0], other, other + count * scale[1])
        ribbons.append(Ribbon(int(was), int(becomes), count, path))
    ribbons.sort(
        key=lambda ribbon: (ribbon.was != ribbon.becomes, -ribbon.prompts)
    )  # what moves lies above what stays
    return {"before": before, "after": after, "ribbons": ribbons, "height": height}


def _stack(counts: IntArray, scale: float, all_of_it: float) -> list[Part]:
    """Return the parts of a stack from the top; labels that would touch are moved apart."""
    top, parts = 0.0, []
    for teacher in np.flatnonzero(counts).tolist():
        height = float(counts[teacher] * scale)
        parts.append(Part(teacher, int(counts[teacher]), top, height, top + height / 2))
        top += height + GAP
    lowest = all_of_it - LINE / 2
    labels = [lowest - LINE * (len(parts) - 1 - number) for number in range(len(parts))]  # as low as they may be
    last = -math.inf
    for number, part in enumerate(parts):
        last = max(min(part.label, labels[number]), last + LINE)
        parts[number] = part._replace(label=last)
    return parts


def _outline(one: float, one_end: float, other: float, other_end: float) -> str:
    """Return the outline of a ribbon from one stack to the other."""
    start, end, middle = LEFT + BAR, RIGHT, (LEFT + BAR + RIGHT) / 2
    return (
        f"M{start} {one:.1f}C{middle} {one:.1f} {middle} {other:.1f} {end} {other:.1f}"
        f"V{other_end:.1f}C{middle} {other_end:.1f} {middle} {one_end:.1f} {start} {one_end:.1f}Z"
    )


def clip(name: str, most: int) -> str:
    """Return a name with its middle left out where it is long: names of models often differ in how they end."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 + 1 - most :]}"


def labels(names: Sequence[str], most: int) -> dict[str, str]:
    """Return short labels by name; where the middle of names tells them apart, what they share is left out instead.

    Example: of FuseChat-Llama-3.1-8B-Instruct and FuseChat-Llama-3.2-3B-Instruct, 14 characters, the labels are
    …ama-3.1-8B-In… and …ama-3.2-3B-In…, not twice FuseCha…struct.
    """
    found = {name: clip(name, most) for name in names}
    for label in {label for label in found.values() if [*found.values()].count(label) > 1}:
        alike = sorted(name for name in found if found[name] == label)
        begin = len(os.path.commonprefix(alike))
        end = len(os.path.commonprefix([name[begin:][::-1] for name in alike]))
        for name in alike:
            spare = max(most - 2 - (len(name) - end - begin), 0)
            first = max(begin - (spare + 1) // 2, 0)
            found[name] = f"…{name[first : first + most - 2]}…"
    return found


def ticks(values: Sequence[float], about: int = 4) -> list[float]:
    """Return round numbers, evenly spaced, from below the least to above the largest value.

    Example: 0.934 to 1 with about 4 steps gives 0.92, 0.94, 0.96, 0.98, 1.
    """
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1.0) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last += first == last
    return [round(step * number, 12 - math.floor(math.log10(step))) for number in range(first, last + 1)]
