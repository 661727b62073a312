"""Try router kinds: train on some of the calibration prompts, score dev, and measure the time.

A prompt is embedded once for all trials; words are weighed once per draw.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from persyn_hf.backends.routers import Labelled, RouterSettings, Scale, featured, fit, load
from persyn_hf.backends.routers.features import Features, fit_features
from persyn_hf.core.arrays import FloatArray


T = TypeVar("T")


class Draw(NamedTuple):
    """The rows of calibration prompts to train on and to choose the settings by, and the seed of the training."""

    train: Sequence[int]
    validation: Sequence[int]
    seed: int


class Trial(NamedTuple):
    """One candidate trained on one draw: its scores (num_prompts, num_teachers) and its times in seconds."""

    dev: FloatArray
    validation: FloatArray
    scale: Scale
    record: dict[str, Any]
    training_s: float
    routing_s: float  # all dev prompts, from their text on


class _Matrices(NamedTuple):
    """The features of the prompts of a draw and of dev, and the seconds that went into either."""

    features: Features
    train: Any
    validation: Any
    dev: Any
    training_s: float
    routing_s: float


class Prompts:
    """The calibration and dev prompts and, once made, their features."""

    def __init__(self, calibration: Labelled, dev: Labelled) -> None:
        self.calibration = calibration
        self.dev = dev
        self._texts = featured.texts_of(calibration.conversations), featured.texts_of(dev.conversations)
        self._embedded: dict[tuple[Any, ...], _Matrices] = {}
        self._weighed: tuple[Any, _Matrices] | None = None  # of the latest draw

    def matrices(self, candidate: RouterSettings, draw: Draw) -> _Matrices:
        """Return the features that the candidate reads of the prompts of a draw and of dev."""
        if candidate.features == "embeddings":
            return self._embed(candidate, draw)
        key = (draw, candidate.max_features)
        if self._weighed is None or self._weighed[0] != key:
            train, validation = ([self._texts[0][row] for row in rows] for rows in draw[:2])
            features, fit_s = _timed(lambda: fit_features(candidate, train))
            (of_train, of_validation), transform_s = _timed(
                lambda: [features.transform(texts) if texts else None for texts in (train, validation)]
            )
            dev, routing_s = _timed(lambda: features.transform(self._texts[1]))
            made = _Matrices(features, of_train, of_validation, dev, fit_s + transform_s, routing_s)
            self._weighed = key, made
        return self._weighed[1]

    def _embed(self, candidate: RouterSettings, draw: Draw) -> _Matrices:
        key = (candidate.encoder, candidate.encoder_revision, candidate.max_length, candidate.device)
        if key not in self._embedded:
            features = fit_features(candidate, [])
            calibration, training_s = _timed(lambda: features.transform(self._texts[0]))
            dev, routing_s = _timed(lambda: features.transform(self._texts[1]))
            self._embedded[key] = _Matrices(features, calibration, None, dev, training_s, routing_s)
        made = self._embedded[key]
        parts = [made.train[list(rows)] for rows in draw[:2]]
        share = (len(draw.train) + len(draw.validation)) / len(self._texts[0])
        return made._replace(train=parts[0], validation=parts[1], training_s=share * made.training_s)


def try_head(
    candidate: RouterSettings, teachers: tuple[str, ...], prompts: Prompts, draw: Draw
) -> tuple[Trial, Callable[[Path], object]]:
    """Try a head over features; return the trial and the function that writes its router into a folder."""
    made = prompts.matrices(candidate, draw)
    train = featured.Split(made.train, prompts.calibration.rewards[list(draw.train)])
    held_out = prompts.calibration.rewards[list(draw.validation)]
    validation = featured.Split(made.validation, held_out) if len(held_out) else None
    (head, record), training_s = _timed(lambda: featured.fit_head(candidate, train, validation, draw.seed))
    dev, routing_s = _timed(lambda: head.scores(made.dev))
    checked = held_out[:0] if validation is None else head.scores(validation.features)
    seconds = made.training_s + training_s, made.routing_s + routing_s
    router = featured.Featured(teachers, made.features, head)
    return Trial(dev, checked, head.scale, record, *seconds), partial(featured.save, settings=candidate, router=router)


def try_kind(
    candidate: RouterSettings, teachers: tuple[str, ...], prompts: Prompts, draw: Draw, folder: Path
) -> tuple[Trial, Callable[[Path], object]]:
    """Try a kind that reads the prompts itself; return the trial and the function that writes its router.

    It may take hours, so a finished trial outlives a killed run.
    """
    kept, save = folder.with_suffix(".json"), partial(shutil.copytree, folder, dirs_exist_ok=True)
    if kept.exists():
        stored = json.loads(kept.read_text(encoding="utf-8"))
        arrays = {part: np.reshape(stored[part], (-1, len(teachers))) for part in ("dev", "validation")}
        return Trial(**{**stored, **arrays}), save
    train, validation = (prompts.calibration.take(rows) for rows in draw[:2])
    record, training_s = _timed(lambda: fit(candidate, teachers, train, validation, folder, seed=draw.seed))
    router = load(folder, candidate.device)
    dev, routing_s = _timed(lambda: router.scores(prompts.dev.conversations))
    trial = Trial(dev, router.scores(validation.conversations), router.scale, record, training_s, routing_s)
    plain = trial._asdict() | {"dev": dev.tolist(), "validation": trial.validation.tolist()}
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(plain), encoding="utf-8")
    part.replace(kept)
    for checkpoints in folder.parent.glob(f"{folder.name}-training-*"):
        shutil.rmtree(checkpoints)
    return trial, save


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    return make(), time.perf_counter() - begun
