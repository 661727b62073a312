"""Train and load the kinds that are a head over features: `logistic`, `ridge`, `knn`, `stacking`, `best_per_topic`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.routers import Advance, Conversation, Labelled, RouterSettings, arrays, describe, merged
from persyn_hf.backends.routers.features import Features, fit_features, load_features
from persyn_hf.backends.routers.heads import Head, Split
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.conversations import user_text


WEIGHTS = "head.safetensors"
CHUNK = 4096  # prompts that are features in memory at a time


class Featured:
    """A router that is a head over features."""

    def __init__(self, teachers: tuple[str, ...], features: Features, head: Head) -> None:
        self.teachers = teachers
        self.features = features
        self.head = head
        self.scale = head.scale

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        """Score conversations: (num_prompts, num_teachers), columns in `teachers` order."""
        scores = np.zeros((len(conversations), len(self.teachers)))
        for start in range(0, len(scores), CHUNK):
            texts = texts_of(conversations[start : start + CHUNK])
            scores[start : start + CHUNK] = self.head.scores(self.features.transform(texts, advance))
        return scores


def fit(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    advance: Advance | None,
) -> dict[str, Any]:
    """Fit features and head, write the router into `folder`, and return its training record."""
    if settings.kind == "stacking":  # folds take the place of validation prompts, so it learns from these, too
        train, validation = merged(train, validation), validation.take([])
    features = fit_features(settings, texts_of(train.conversations))
    head, record = fit_head(settings, split(features, train), split(features, validation), seed)
    save(folder, settings, Featured(teachers, features, head))
    if advance is not None:
        advance(1)
    return record


def texts_of(conversations: Sequence[Conversation]) -> list[str]:
    """Extract the text of the user turns of each conversation."""
    return [user_text(messages) for messages in conversations]


def split(features: Features, labelled: Labelled) -> Split | None:
    """Compute the features of labelled prompts; None where there are none."""
    if not len(labelled.rewards):
        return None
    return Split(features.transform(texts_of(labelled.conversations)), labelled.rewards, labelled.prior)


def fit_head(
    settings: RouterSettings, train: Split | None, validation: Split | None, seed: int
) -> tuple[Head, dict[str, Any]]:
    """Train the head of `settings.kind`, and return it with its training record."""
    assert train is not None  # the stage checked that there are calibration prompts
    head, record = _kinds()[settings.kind][0](settings, train, validation, seed)
    return head, {**record, "num_features": int(train.features.shape[1])}


def _kinds() -> dict[str, tuple[Callable[..., tuple[Head, dict[str, Any]]], Callable[..., Head]]]:
    """Return for each kind the function that trains its head, and the one that makes it of its arrays."""
    from persyn_hf.backends.routers import linear, neighbours, stacking

    return {
        "logistic": (linear.fit_logistic, linear.Linear.from_arrays),
        "ridge": (linear.fit_ridge, linear.Linear.from_arrays),
        "knn": (neighbours.fit_knn, neighbours.Neighbours.from_arrays),
        "stacking": (stacking.fit_stacking, stacking.Stacked.from_arrays),
        "best_per_topic": (neighbours.fit_topics, neighbours.Topics.from_arrays),
    }


def save(folder: Path, settings: RouterSettings, router: Featured) -> None:
    """Write a router into a folder, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays.write(folder / WEIGHTS, router.head.arrays())
    describe(folder, settings, router.teachers, router.scale, **router.features.save(folder))


def load(folder: Path, saved: Mapping[str, Any], device: str) -> Featured:
    """Read a router from its folder; `saved` is its `router.json`."""
    head = _kinds()[saved["kind"]][1](arrays.read(folder / WEIGHTS), saved["scale"])
    return Featured(tuple(saved["teachers"]), load_features(folder, saved, device), head)
