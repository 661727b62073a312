"""Trials: what was trained and evaluated, of one recipe or of several, and the scores of its items as arrays.

A trial is one student under one strategy, with all its SFT seeds. The student before training is a trial without a
seed.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.comparison import Comparison, TaskScores, compare
from persyn_hf.core.item_weights import group_weights
from persyn_hf.core.statistics import Interval
from persyn_hf.errors import InputError
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import Strategy
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


BEFORE = "before SFT"
MEAN = "mean"  # of several tasks: the paper's Avg


class Part(NamedTuple):
    """A recipe and what is stored of it, by the key of its step."""

    recipe: Recipe
    stored: Mapping[str, Stored]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A row of the results: one student under one strategy, or before training."""

    label: str
    part: Part
    student: Student
    strategy: Strategy | None  # null: before SFT
    evaluations: Mapping[int | None, Stored]  # by seed; null: before SFT

    @property
    def kind(self) -> str | None:
        """The kind of its strategy; None before SFT."""
        return self.strategy.kind if self.strategy else None

    @property
    def assignments(self) -> Stored | None:
        """The assignments of its strategy, which all seeds share; None before SFT, or where they are not stored."""
        if self.strategy is None:
            return None
        return self.part.stored.get(names.assignments(self.student, self.strategy))

    @property
    def trained(self) -> Stored | None:
        """The trained student of the first seed that is stored; None before SFT, or where there is none."""
        if self.strategy is None:
            return None
        keys = [names.trained_student(self.student, self.strategy, suffix) for suffix in self.part.recipe.sft_seeds]
        return next((self.part.stored[key] for key in keys if key in self.part.stored), None)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The trials of one student, compared."""

    student: Student
    trials: Sequence[Trial]
    reference: int | None  # the trial that the others are compared with; null: nothing is trained yet
    columns: Sequence[str]  # the tasks, then MEAN where there are several
    compared: Comparison

    def score(self, trial: int, column: int = -1) -> Interval:
        """Return the accuracy of a trial in a column, 0 to 1, with its 95 % interval; the last column by default."""
        return self.compared.interval(trial, column)

    def lead(self, trial: int, column: int = -1) -> Interval | None:
        """Return how far the reference is ahead of a trial, from -1 to 1; None for the reference itself."""
        if self.reference is None or trial == self.reference:
            return None
        return self.compared.difference(self.reference, trial, column)


def outcomes(parts: Sequence[Part], store: Store) -> list[Outcomes]:
    """Return the trials of all recipes, compared, one `Outcomes` per student.

    Raises:
        InputError: the evaluations of one student hold different items of a task.
    """
    trials = _labelled([trial for part in parts for trial in _trials(part)])
    students = {trial.student.name: trial.student for trial in trials}
    return [_compare(s, [trial for trial in trials if trial.student.name == s.name], store) for s in students.values()]


def _trials(part: Part) -> Iterator[Trial]:
    """Yield every trial of a recipe that has an evaluation stored, in the order of students and strategies."""
    recipe, stored = part
    for student in recipe.students:
        before = names.evaluation(student)
        if before in stored:
            yield Trial(label=BEFORE, part=part, student=student, strategy=None, evaluations={None: stored[before]})
        for strategy in recipe.strategies:
            keys = {seed: names.evaluation(student, strategy, suffix) for suffix, seed in recipe.sft_seeds.items()}
            evaluations: dict[int | None, Stored] = {seed: stored[key] for seed, key in keys.items() if key in stored}
            if evaluations:
                yield Trial(
                    label=strategy.name, part=part, student=student, strategy=strategy, evaluations=evaluations
                )


def _labelled(trials: Sequence[Trial]) -> list[Trial]:
    """Return each trial once; where two recipes mean different things by one name, the label names the recipe."""
    digests = [{seed: stored.digest for seed, stored in trial.evaluations.items()} for trial in trials]
    kept: list[Trial] = []
    for place, trial in enumerate(trials):
        same = [i for i, other in enumerate(trials) if _address(other) == _address(trial)]
        if any(digests[i] == digests[place] for i in same if i < place):
            continue
        several = len({str(digests[i]) for i in same}) > 1
        kept.append(replace(trial, label=f"{trial.label} ({trial.part.recipe.name})") if several else trial)
    return kept


def _address(trial: Trial) -> tuple[str, str]:
    """Return what names a trial to the reader: the student and the label."""
    return trial.student.name, trial.label


def _compare(student: Student, trials: Sequence[Trial], store: Store) -> Outcomes:
    """Compare the trials of one student by the items of all their tasks, paired by item and seed.

    Before SFT there is no seed, so that trial has the same scores under each.
    """
    trained: list[int | None] = [seed for trial in trials if trial.strategy for seed in trial.evaluations]
    seeds = list(dict.fromkeys(trained)) or [None]
    items = {stored.digest: _items(store, stored) for trial in trials for stored in trial.evaluations.values()}
    tasks = list(dict.fromkeys(task for by_task in items.values() for task in by_task))
    scores = []
    for task in tasks:
        same_task = [by_task[task] for by_task in items.values() if task in by_task]
        if len({(evaluated.digest, len(evaluated.scores)) for evaluated in same_task}) > 1:
            raise InputError(
                f"the evaluations of {student.name} hold different items of the task {task}, the same are needed to "
                "compare them; evaluate both with the same `evaluate.tasks`, or report each recipe alone"
            )
        table = np.full((len(trials), len(seeds), len(same_task[0].scores)), np.nan)
        for row, trial in enumerate(trials):
            for column, seed in enumerate(seeds):
                stored = trial.evaluations.get(seed, trial.evaluations.get(None))  # before SFT there is no seed
                if stored is not None and task in items[stored.digest]:
                    table[row, column] = items[stored.digest][task].scores
        # an item that could not be judged may have lost its parts
        scores.append(TaskScores(table, np.max([evaluated.weights for evaluated in same_task], axis=0)))
    rows = [row for row, trial in enumerate(trials) if trial.strategy is not None]
    routed = [row for row in rows if trials[row].kind == "persyn"]
    return Outcomes(
        student=student,
        trials=trials,
        reference=next(iter(routed + rows), None),
        columns=[*tasks, *([MEAN] if len(tasks) > 1 else [])],
        compared=compare(scores, np.random.default_rng(0)),
    )


class _Items(NamedTuple):
    """The items of one task in an evaluation, in their order: scores and weights, both (num_items,)."""

    digest: str  # of the questions
    scores: FloatArray
    weights: FloatArray


def _items(store: Store, stored: Stored) -> dict[str, _Items]:
    """Return the items of an evaluation by task; an item counts as often as it has parts, and groups count alike."""
    dataset = store.read_dataset(stored).select_columns(["task", "item", "prompt", "score", "parts"])
    rows = dataset.with_format("arrow")[:]
    tasks = np.array(rows["task"].to_pylist())
    scores = rows["score"].to_numpy().astype(np.float64)
    parts = np.maximum(1, pc.list_value_length(rows["parts"]).to_numpy())
    names = np.array(rows["item"].to_pylist())
    asked = [" ".join(both) for both in zip(*(rows[name].to_pylist() for name in ("item", "prompt")), strict=True)]
    by_task = {}
    for task in dict.fromkeys(tasks.tolist()):
        places = np.flatnonzero(tasks == task)
        digest = hashlib.sha256("\0".join(asked[i] for i in places).encode()).hexdigest()
        by_task[task] = _Items(digest, scores[places], parts[places] * group_weights(names[places].tolist()))
    return by_task
