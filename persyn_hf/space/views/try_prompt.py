"""The view in which a visitor types a prompt and sees what the router makes of it."""

import math
from typing import Any

from persyn_hf.space.scene import Scene
from persyn_hf.space.try_prompt import Ranked, can_try, try_prompt


LONGEST = 2_000  # characters that the form takes: all of them have to fit into an address


def show(scene: Scene) -> str:
    """Return the form and, where a prompt was typed, the ranking of the teachers as HTML.

    Raises:
        PersynError: the prompt is too long, or the router's files are damaged.
    """
    why_not, typed = can_try(scene), scene.state["typed"]
    found = try_prompt(scene, typed) if typed.strip() and not why_not else None
    return scene.render(
        "try",
        why_not=why_not,
        typed=typed,
        found=found,
        longest=LONGEST,
        bars=_bars(found) if found else [],
        alike=_alike(scene, found) if found else "",
    )


def _bars(found: Ranked) -> list[dict[str, Any]]:
    """Return a bar per teacher, the best first: where it begins and how long it is, as shares of the picture.

    Bars begin at 0, which is within the picture: log-odds are above and below it.
    """
    scores = [score for _, score in found.teachers]
    low, high = min(0.0, *scores), max(0.0, *scores)
    span = (high - low) or 1.0
    return [
        {"teacher": name, "score": score, "left": (min(score, 0.0) - low) / span, "width": abs(score) / span}
        for name, score in found.teachers
    ]


def _alike(scene: Scene, found: Ranked) -> str:
    """Return the address of the stored prompts that go to the same teacher by a like lead, "" where there are none."""
    if found.alike is None:
        return ""
    low, high = math.floor(found.alike[0] * 1e4) / 1e4, math.ceil(found.alike[1] * 1e4) / 1e4
    return scene.state.prompts(teacher=found.teachers[0][0], lead=low, margin=high, sort="margin")
