"""Router kind `global_best`: send every prompt to the teacher with the best mean reward, the baseline of all kinds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.routers import (
    Advance,
    Conversation,
    Labelled,
    RouterSettings,
    Scale,
    describe,
    merged,
    teacher_means,
)
from persyn_hf.core.arrays import FloatArray


class GlobalBest:
    """The router whose scores are the mean calibration rewards, the same for every prompt."""

    scale: Scale = "reward"

    def __init__(self, teachers: tuple[str, ...], means: Sequence[float]) -> None:
        self.teachers = teachers
        self.means = np.array(means, dtype=np.float64)

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        if advance is not None:
            advance(len(conversations))
        return np.tile(self.means, (len(conversations), 1))


def fit(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    advance: Advance | None,
) -> dict[str, Any]:
    """Average the rewards, those of the validation prompts too, since nothing is chosen on them."""
    means = teacher_means(merged(train, validation).rewards).tolist()
    describe(folder, settings, teachers, GlobalBest.scale, scores=means)
    if advance is not None:
        advance(1)
    return {"scores": means}


def load(folder: Path, saved: Mapping[str, Any], device: str) -> GlobalBest:
    """Make the router of its `router.json`."""
    return GlobalBest(tuple(saved["teachers"]), saved["scores"])
