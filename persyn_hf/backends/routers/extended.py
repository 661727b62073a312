"""Router kind `extended`: a trained router with columns for teachers that joined later.

The old columns stay as they are, bit by bit. A new teacher's score is ridge regression on the old router's scores, and
on its features where it is a head over features. So it works over every kind, and needs few prompts (anchors): those
that the new teacher and some old one were both measured on. It learns by how much the new teacher is better than the
old ones, in the unit of their scores.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends import routers
from persyn_hf.backends.routers import Advance, Conversation, Labelled, Router, arrays
from persyn_hf.backends.routers.featured import CHUNK, Featured, texts_of
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.new_teacher import Joined, join
from persyn_hf.errors import InputError


BASE = "base"  # folder with the old router
WEIGHTS = "joined.safetensors"
ARRAYS = ("weights", "of_features", "bias")
FEWEST = 20  # anchors


class Extended:
    """The old router's columns with the new ones, which are functions of them, in the order of the pool."""

    def __init__(self, teachers: tuple[str, ...], base: Router, joined: Joined) -> None:
        self.teachers = teachers
        self.base = base
        self.scale = base.scale
        self.joined = joined

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        old = [self.teachers.index(name) for name in self.base.teachers]
        new = new_places(self.teachers, self.base)
        scores = np.zeros((len(conversations), len(self.teachers)))
        scores[:, old] = self.base.scores(conversations, advance)
        for start in range(0, len(scores), CHUNK):
            rows = slice(start, start + CHUNK)
            scores[rows, new] = self.joined.scores(scores[rows, old], features_of(self.base, conversations[rows]))
        return scores


def features_of(base: Router, conversations: Sequence[Conversation]) -> Any:
    """Compute the features that a head over features reads of conversations; None for routers of other kinds."""
    if not isinstance(base, Featured):
        return None
    return base.features.transform(texts_of(conversations))


def new_places(teachers: Sequence[str], base: Router) -> list[int]:
    """Return the columns of the teachers that the old router does not know."""
    return [place for place, name in enumerate(teachers) if name not in base.teachers]


def extend(teachers: tuple[str, ...], base: Path, labelled: Labelled, folder: Path, device: str) -> dict[str, Any]:
    """Extend the router in `base` to all `teachers`, write it into `folder`, and return its training record.

    `labelled` are all calibration prompts, with rewards (num_prompts, num_teachers). Raises `InputError` where an old
    teacher is missing, none is new, or a new one has too few anchors.
    """
    old = routers.load(base, device)
    gone = [name for name in old.teachers if name not in teachers]
    new = new_places(teachers, old)
    if gone or not new:
        fault = f"`{gone[0]}` is missing from the pool" if gone else "the pool names no other one"
        raise InputError(
            f"the router to extend was trained for the teachers {', '.join(old.teachers)}, and {fault}; name all of "
            "these and the ones that join in `teachers`"
        )
    places = [teachers.index(name) for name in old.teachers]
    comparable = ~np.isnan(labelled.rewards[:, places]).all(axis=1)
    anchors = ~np.isnan(labelled.rewards[comparable][:, new])
    counts = dict(zip((teachers[place] for place in new), anchors.sum(axis=0).tolist(), strict=True))
    for name, number in counts.items():
        if number < FEWEST:
            raise InputError(
                f"`{name}` has rewards on {number} calibration prompts that another teacher has rewards on too, "
                f"{FEWEST} are needed for it to join a router; 100 to 200 are better: raise `calibration.anchors`"
            )
    asked = labelled.conversations
    scores, features = old.scores(asked), features_of(old, asked)
    joined = join(labelled.rewards[:, new], labelled.rewards[:, places], scores, old.scale, features)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(base, folder / BASE, dirs_exist_ok=True)
    arrays.write(folder / WEIGHTS, {name: getattr(joined, name) for name in ARRAYS})
    record = {"joined": counts, "l2": list(joined.l2)}
    saved = {"kind": "extended", "scale": old.scale, "teachers": list(teachers), **record}
    (folder / routers.FILE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    return record


def load(folder: Path, saved: Mapping[str, Any], device: str) -> Extended:
    """Read an extended router from its folder; `saved` is its `router.json`."""
    stored = arrays.read(folder / WEIGHTS)
    weights, of_features, bias = (stored[name] for name in ARRAYS)
    joined = Joined(weights, of_features, bias, tuple(saved["l2"]))
    return Extended(tuple(saved["teachers"]), routers.load(folder / BASE, device), joined)
