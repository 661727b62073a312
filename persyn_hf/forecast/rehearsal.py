"""Rehearse a recipe: make the rows of the steps that need no model, so that what comes after them is known.

Prompts are read and split, and teachers are assigned by every rule that looks at no answer, by the stages themselves.
What a router or a reward that is not there yet would decide stays unknown. Nothing is stored.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strategies import KINDS, known_shares
from persyn_hf.runner.run import Done
from persyn_hf.runner.step import Step
from persyn_hf.stage import Context
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


if TYPE_CHECKING:
    from datasets import Dataset


class Rehearsal:
    """The rows of a recipe's steps, as stored or as they will be; a context manager, as some lie in files."""

    def __init__(self, recipe: Recipe, done: Sequence[Done], store: Store) -> None:
        self._recipe, self._store = recipe, store
        self._steps = {item.step.key: item.step for item in done}
        self._stored = {item.step.key: item.stored for item in done if item.stored is not None}
        self._stored |= {ref: store.get(ref) for ref in recipe.inputs.values() if store.has(ref)}
        self._rows: dict[str, Dataset | None] = {}

    def __enter__(self) -> "Rehearsal":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._rows.clear()
        if "_folder" in vars(self):
            self._folder.cleanup()

    @cached_property
    def _folder(self) -> "tempfile.TemporaryDirectory[str]":
        return tempfile.TemporaryDirectory(prefix="persyn-plan-")

    def rows(self, key: str) -> "Dataset | None":
        """Return the rows of a step (its key) or of a pinned artifact (its ref); None where they are not known yet."""
        if key not in self._rows:
            stored, step = self._stored.get(key), self._steps.get(key)
            if stored is not None:
                self._rows[key] = self._read(stored)
            else:
                self._rows[key] = None if step is None else self._make(step)
        return self._rows[key]

    def prompts(self) -> "Dataset | None":
        """Return the recipe's prompts, its own or pinned ones; None where they are not known yet."""
        own = names.PROMPTS in self._steps
        return self.rows(names.PROMPTS if own else self._recipe.inputs.get(names.PROMPTS, ""))

    def _read(self, stored: Stored) -> "Dataset | None":
        return self._store.read_dataset(stored) if self._store.has(stored.ref) else None

    def _make(self, step: Step) -> "Dataset | None":
        """Run a step that looks at no answer; None where it does, or where its inputs are not known."""
        if step.stage == "prompts":
            settings: Any = step.settings
            return self._run(replace(step, settings=settings.rows_only), {}) if _is_local(settings) else None
        if step.stage != "assign":
            return None
        needed = {word: key for word, key in step.inputs.items() if word in self._looked_at(step)}
        if "router" in needed:  # a model
            return None
        known = {word: rows for word, key in needed.items() if (rows := self.rows(key)) is not None}
        return self._run(step, known) if known.keys() == needed.keys() else None

    def _looked_at(self, step: Step) -> set[str]:
        """Return the inputs that decide what a step of `assign` emits."""
        settings: Any = step.settings
        kind = KINDS.get(settings.kind)
        if kind is None:  # every teacher; in a later round of a calibration in part, by the rewards of the one before
            return {"prompts", "base", "rewards"}
        strategy = next(strategy for strategy in self._recipe.strategies if strategy.name == step.strategy)
        if kind.chooses == "change":
            return {"prompts", "base"}
        if known_shares(strategy, self._recipe.strategies, self._recipe.teachers):
            return {"prompts"}
        return {*step.inputs}

    def _run(self, step: Step, inputs: Mapping[str, "Dataset"]) -> "Dataset":
        folder = Path(self._folder.name, step.key)
        folder.mkdir()
        context = Context(seed=step.seed, work_dir=folder, teachers=step.teachers, student=step.student)
        rows: Dataset = step.module.run(step.settings, context, **inputs).data
        return rows


def _is_local(settings: Any) -> bool:
    """Say whether the source of the prompts is on this disk."""
    return settings.path is not None or Path(settings.dataset).is_dir()
