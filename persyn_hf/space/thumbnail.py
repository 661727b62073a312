"""The picture that a link to the Space shows: the student, and who teaches it."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.colours import teacher_fills


SIZE = (12.0, 6.3)  # inches at 100 dots: 1200 x 630, which all sites that show links take
ROWS = 6
LONGEST = 26  # characters of a teacher's name
BACK, INK, SOFT = "#ffffff", "#1b1d22", "#565c69"


def draw(student: str, about: str, teachers: Sequence[Teacher], shares: Mapping[str, float]) -> bytes:
    """Return the picture as PNG: a bar per teacher, the largest shares first, the others in one.

    Args:
        about: one line below the student: how teachers are chosen, and for how many prompts.
        shares: teacher -> share, 0 to 1.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ranked = sorted(shares.items(), key=lambda item: -item[1])
    bars, rest = (ranked, []) if len(ranked) <= ROWS else (ranked[: ROWS - 1], ranked[ROWS - 1 :])
    fills = teacher_fills(teachers)
    with rc_context({"text.parse_math": False}):  # a name may hold a dollar sign
        figure = Figure(figsize=SIZE, dpi=100, facecolor=BACK)
        figure.text(0.05, 0.865, f"Who teaches {student}?", fontsize=_fitting(student), weight="bold", color=INK)
        figure.text(0.05, 0.785, textwrap.shorten(about, 90, placeholder=" …"), fontsize=19, color=SOFT)
        axes = figure.add_axes((0.05, 0.04, 0.9, 0.7))
        most = max((share for _, share in bars), default=0) or 1.0
        for place, (name, share) in enumerate(bars):
            axes.barh(place, 0.5 * share / most, left=0.41, height=0.66, **fills[name].look)
            _beside(axes, place, _short(name), share, 0.5 * share / most)
        if rest:  # no bar: it would be the longest, and of no teacher
            _beside(axes, len(bars), f"{len(rest)} others", sum(share for _, share in rest), 0.0)
        axes.set(xlim=(0, 1), ylim=(max(len(bars) + bool(rest), 3) - 0.5, -0.5))
        axes.axis("off")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Title": f"Who teaches {student}?", "Description": about})
    return stream.getvalue()


def _beside(axes: Any, place: int, label: str, share: float, width: float) -> None:
    """Write what is left and right of a bar."""
    axes.text(0.395, place, label, ha="right", va="center", fontsize=19, color=INK)
    axes.text(0.42 + width, place, f"{share:.0%}", va="center", fontsize=19, weight="bold", color=INK)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _fitting(student: str) -> float:
    """Return the size of type in which the title fits into a line."""
    return min(44.0, 44.0 * 28 / (len(student) + 13))
