"""The colours of teachers: one hue per family, patterns where colours are alike, on light and on dark pages."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.recipe.roles import Teacher


FAMILY_COLOURS = ("#3b6fb6", "#c2572b", "#3f8f5f", "#8a5aa8", "#b08d2c", "#4aa3a8", "#a8475f", "#6b6b6b")
# Relative luminance that stands out from the Space's pages and raised parts, #f5f6f8 in light and #1e2128 in dark, by
# 3 to 1 at least, as WCAG 2.2 (1.4.11) asks: 0.1455 to 0.2737, and room for rounding.
DARKEST, LIGHTEST = 0.149, 0.27
ALIKE = 10.0  # CIE76 difference under which two fills are told apart by a pattern
PATTERNS = (0, 2, 3, 4, 6)  # places in HATCHES
OF_LONG_COT = (1, 5, 6, 2, 3)  # a Long-CoT teacher is always hatched
HATCHES = ("", "////", "...", "---", "|||", "\\\\\\\\", "xxx")  # of matplotlib; the Space draws the same ones

# Linear RGB as people without one kind of cones see it: Machado, Oliveira and Fernandes 2009, severity 1.
BLIND = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
_TO_XYZ = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
_WHITE = _TO_XYZ.sum(axis=1)


@dataclass(frozen=True)
class Fill:
    """How a teacher's parts of a picture are filled: a colour as #rrggbb, and a place in `HATCHES`."""

    colour: str
    pattern: int

    @property
    def look(self) -> dict[str, Any]:
        """The same for a bar of matplotlib."""
        return {"color": self.colour, "hatch": HATCHES[self.pattern] or None, "edgecolor": "white"}


def teacher_fills(teachers: Sequence[Teacher]) -> dict[str, Fill]:
    """Return a fill per teacher: one hue per family, the larger the teacher the darker (the paper's Fig. 6).

    Of two teachers whose colours differ by less than `ALIKE`, also as colour-blind people see them, each has another
    pattern, as far as there are patterns.
    """
    families = list(dict.fromkeys(teacher.family for teacher in teachers))
    colours: dict[str, str] = {}
    for number, family in enumerate(families):
        members = sorted((t for t in teachers if t.family == family), key=lambda t: (-(t.params_b or 0.0), t.name))
        hue = FAMILY_COLOURS[number % len(FAMILY_COLOURS)]
        for place, teacher in enumerate(members):
            share = place / (len(members) - 1) if len(members) > 1 else 0.4
            colours[teacher.name] = _of_luminance(hue, DARKEST + share * (LIGHTEST - DARKEST))
    fills: dict[str, Fill] = {}
    for teacher in teachers:
        colour = colours[teacher.name]
        alike = [fill.pattern for fill in fills.values() if difference(fill.colour, colour) < ALIKE]
        patterns = OF_LONG_COT if teacher.long_cot else PATTERNS
        free = [pattern for pattern in patterns if pattern not in alike]
        fills[teacher.name] = Fill(colour, min(free or patterns, key=lambda pattern: alike.count(pattern)))
    return fills


@functools.lru_cache(maxsize=4096)  # the pages of the Space ask for the same pairs again
def difference(one: str, other: str) -> float:
    """Return the least CIE76 difference of two colours (#rrggbb) to anybody's eyes; 10 is told apart at a glance."""
    pair = np.stack([_linear(one), _linear(other)])
    seen = [pair, *(np.clip(pair @ np.array(matrix).T, 0, 1) for matrix in BLIND.values())]
    return min(float(np.linalg.norm(np.subtract(*_lab(colours)))) for colours in seen)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (#rrggbb), 0 to 1, as WCAG 2.2 defines it."""
    return float(_TO_XYZ[1] @ _linear(colour))


def _of_luminance(colour: str, wanted: float) -> str:
    """Return a colour of the same hue, darker or lighter, that has a luminance."""
    linear = _linear(colour)
    now = float(_TO_XYZ[1] @ linear)
    mixed = linear * (wanted / now) if wanted <= now else linear + (1 - linear) * (wanted - now) / (1 - now)
    parts = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * np.power(mixed, 1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in parts.tolist())


def _linear(colour: str) -> FloatArray:
    """Return the linear red, green and blue of #rrggbb, (3,)."""
    parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _lab(linear: FloatArray) -> FloatArray:
    """Return linear RGB (n, 3) as CIE L*a*b*, (n, 3)."""
    ratios = linear @ _TO_XYZ.T / _WHITE
    roots = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    x, y, z = roots.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
