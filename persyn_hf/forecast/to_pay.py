"""Count the answers that a run would have to pay for: what its steps will ask, less what the journal holds.

A cell (prompt, teacher) is *certain* where a step that is left will ask it whatever comes out before: the calibration
matrix, and the pool under strategies that look at no answer. A strategy that goes by rewards or a router that are not
there yet asks some of the cells; how many samples of them are missing at most is counted prompt by prompt.

Example: pool prompts p1 and p2, teachers A and B, 2 samples. `mix` has drawn A for p1 and B for p2; `persyn` has no
router yet; the journal has both samples of (p1, A) and one of (p1, B).

              certain   missing there   dearest other cell   at most
    p1        A                     0   B: 1                       1
    p2        B                     2   A: 2                       4
    together                        2                              5

A run asks at least 2 and at most 5. Cells that several steps ask count once, as the journal has it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf.backends.engines.open_engine import open_local
from persyn_hf.backends.journal_reading import JournalReader
from persyn_hf.core.arrays import FloatArray
from persyn_hf.errors import PersynError
from persyn_hf.forecast.rehearsal import Rehearsal
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strategies import Strategy
from persyn_hf.report.measured import sound
from persyn_hf.runner.fingerprint import described
from persyn_hf.runner.moved import earlier_prompts, moved
from persyn_hf.runner.run import Done
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate import Settings, num_samples
from persyn_hf.stages.generate.requests import cell_requests
from persyn_hf.stages.generate.settings import engine_options
from persyn_hf.store.local import Store


if TYPE_CHECKING:
    from datasets import Dataset


Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The answers that the steps left will ask of one teacher, or of all."""

    journalled: int  # of certain cells; paid for already
    certain: int  # to be paid for whatever comes out before
    expected: float  # to be paid for, by the shares that are known or assumed
    at_most: int


@dataclass(frozen=True, kw_only=True)
class ToPay:
    """What a run would pay for."""

    teachers: Mapping[str, Ask]
    total: Ask
    bases: Mapping[str, Sequence[str]]  # what the shares of strategies are expected by -> names of the strategies
    notes: Sequence[str]  # teachers that cannot be looked up, and why; prompts that move to another split


class _Cells:
    """The cells of the steps left: those that are certain, and how many others may come to each prompt."""

    def __init__(self, prompts: "Dataset", teachers: Sequence[Teacher]) -> None:
        self.ids: list[str] = prompts["prompt_id"][:]
        self.row_of = {name: row for row, name in enumerate(self.ids)}
        self.split = np.array(prompts["split"][:])
        self.pool = {teacher.name: column for column, teacher in enumerate(teachers)}
        shape = len(self.ids), len(teachers)
        self.certain: Mask = np.zeros(shape, dtype=bool)
        self.further: Counts = np.zeros(shape[0], dtype=np.int64)  # other cells per prompt, at most
        self.free = 0  # other cells of calibration prompts, at most, wherever they come
        self.missed: FloatArray = np.ones(shape)  # probability that no strategy chooses the cell

    def add(self, assignments: "Dataset", escalate: int) -> None:
        """Add cells that are assigned; each prompt may come to `escalate` more teachers."""
        rows = [self.row_of[name] for name in assignments["prompt_id"]]
        self.certain[rows, [self.pool[name] for name in assignments["teacher"]]] = True
        if escalate:
            self.further[np.unique(rows)] += escalate

    def add_unknown(self, splits: Sequence[str], number: int, shares: FloatArray) -> None:
        """Add a strategy that will choose `number` teachers for each prompt of `splits`; `shares` (n,) or (P, n)."""
        there = np.isin(self.split, splits)
        self.further[there] += number
        chances = np.broadcast_to(shares, self.missed.shape)[there]
        self.missed[there] *= np.clip(1 - number * chances, 0, 1)

    def add_rounds(self, splits: Sequence[str], share: float) -> None:
        """Add the later rounds of a calibration in part, which end at `share` of its cells; other splits are whole."""
        whole = np.isin(self.split, [split for split in splits if split != "calibration"])
        self.certain[whole] = True
        part = self.split == "calibration"
        size = int(part.sum()) * len(self.pool)
        self.free = max(self.free, int(share * size) - int(self.certain[part].sum()))
        if size:
            self.missed[part] *= 1 - self.free / size


def count_to_pay(recipe: Recipe, done: Sequence[Done], store: Store, rehearsal: Rehearsal) -> ToPay | None:
    """Count what the steps that are not stored will ask; None where no teacher is asked or the prompts are unknown."""
    steps = {item.step.key: item.step for item in done}
    left = [item.step for item in done if item.stored is None and item.step.stage == "generate"]
    settings = left[0].settings if left else None
    prompts = rehearsal.rows(names.PROMPTS if names.PROMPTS in steps else recipe.inputs.get(names.PROMPTS, ""))
    if not isinstance(settings, Settings) or settings.engine == "import" or prompts is None:
        return None
    cells = _Cells(prompts, recipe.teachers)
    bases: dict[str, list[str]] = {}
    for step in left:
        _add(cells, step, steps, recipe, store, rehearsal, bases)
    notes: list[str] = []
    if names.PROMPTS in {item.step.key for item in done if item.stored is None}:
        notes += filter(None, [moved(store, earlier_prompts(store, f"{recipe.full_name}-{names.PROMPTS}"), prompts)])
    with JournalReader(store.state_dir / "journal.sqlite") as journal:
        missing, first = _missing(cells, settings, left[0].seed, recipe.teachers, journal, prompts, notes)
    samples = np.array([num_samples(settings, teacher) for teacher in recipe.teachers])
    asks, total = _sum_up(cells, samples, missing, first)
    return ToPay(teachers=asks, total=total, bases=bases, notes=notes)


def _add(
    cells: _Cells,
    step: Step,
    steps: Mapping[str, Step],
    recipe: Recipe,
    store: Store,
    rehearsal: Rehearsal,
    bases: dict[str, list[str]],
) -> None:
    """Add the cells that a step of `generate` asks."""
    settings: Any = step.settings
    key = step.inputs["assignments"]
    assignments = rehearsal.rows(key)
    if assignments is not None:
        cells.add(assignments, settings.escalate)
        return
    chosen: Any = steps[key].settings
    if chosen.labelling is not None and chosen.kind == "all":
        cells.add_rounds(chosen.chosen_splits, chosen.labelling.share)
        return
    student = steps[key].student
    strategy = next(strategy for strategy in recipe.strategies if strategy.name == step.strategy)
    assert student is not None
    shares, basis = _shares(cells, student, strategy, recipe, store, rehearsal)
    cells.add_unknown(chosen.chosen_splits, chosen.per_prompt + settings.escalate, shares)
    bases.setdefault(basis, []).append(strategy.name)


def _shares(
    cells: _Cells, student: Student, strategy: Strategy, recipe: Recipe, store: Store, rehearsal: Rehearsal
) -> tuple[FloatArray, str]:
    """Return the chance of each teacher, (n,) or per prompt (P, n), to get a prompt, and what that rests on.

    It is the newest assignment by the same kind of strategy for the same student, else the shares of the measured best
    teachers of calibration, else an even split.
    """
    number = len(cells.pool)
    like = [
        item
        for item in sound(store.artifacts())
        if item.kind == "assignments"
        and item.manifest.settings.get("kind") == strategy.kind
        and item.manifest.student == described(student)
    ]
    last = max(like, key=lambda item: item.manifest.created_at, default=None)
    if last is not None:
        allocation = last.manifest.metrics["allocation"]
        shares = np.tile([float(allocation.get(name, 0.0)) for name in cells.pool], (len(cells.ids), 1))
        earlier = store.read_dataset(last)
        for name, teacher in zip(earlier["prompt_id"][:], earlier["teacher"][:], strict=True):
            row = cells.row_of.get(name)
            if row is not None and teacher in cells.pool:
                shares[row] = np.arange(number) == cells.pool[teacher]
        return shares, f"as in {last.ref}"
    rewards = rehearsal.rows(names.matrix_rewards(student))
    if rewards is not None:
        columns = (rewards[name][:] for name in ("teacher", "rank", "split"))
        best = Counter(name for name, rank, split in zip(*columns, strict=True) if (rank, split) == (1, "calibration"))
        if best.total():
            return np.array([best[name] / best.total() for name in cells.pool]), "who is best how often on calibration"
    return np.full(number, 1 / number), "an even split"


def _missing(
    cells: _Cells,
    settings: Settings,
    seed: int,
    teachers: Sequence[Teacher],
    journal: JournalReader,
    prompts: "Dataset",
    notes: list[str],
) -> tuple[Counts, Counts]:
    """Count per cell (P, n) the samples that the journal lacks, and those that are asked at once whatever is right.

    The second differs with `stop_when_correct`, which asks the next sample only where none is right so far. Of a
    teacher that cannot be looked up nothing is certain.
    """
    missing = np.tile([num_samples(settings, teacher) for teacher in teachers], (len(cells.ids), 1)).astype(np.int64)
    first = np.minimum(missing, 1) if settings.stop_when_correct else missing.copy()
    touched = cells.certain | (cells.further > 0)[:, None]
    if cells.free:
        touched |= (cells.split == "calibration")[:, None]
    for column, teacher in enumerate(teachers):
        rows = np.flatnonzero(touched[:, column])
        try:
            found = _look_up(settings, seed, teacher, journal, prompts, cells, rows)
        except PersynError as error:
            notes.append(f"{teacher.name} cannot be looked up in the journal: {error}")
            first[:, column] = 0
            continue
        for row, open_samples in found.items():
            missing[row, column] = len(open_samples)
            first[row, column] = int(0 in open_samples) if settings.stop_when_correct else len(open_samples)
    return missing, first


def _look_up(
    settings: Settings,
    seed: int,
    teacher: Teacher,
    journal: JournalReader,
    prompts: "Dataset",
    cells: _Cells,
    rows: Sequence[int] | Counts,
) -> dict[int, list[int]]:
    """Return, for each prompt (its row) of which the journal knows anything, the samples that it lacks."""
    if teacher.model is None:
        return {}
    options = engine_options(settings, teacher)
    with open_local(**options, log_dir=Path(), state_dir=Path()) as engine:
        known = journal.prompts_of(engine.model)
        asked = [int(row) for row in rows if cells.ids[row] in known]
        requests = {row: cell_requests(settings, seed, engine, teacher, prompts[row]) for row in asked}
    everything = [request for some in requests.values() for request in some]
    there = journal.answered((r.key for r in everything), errors="errors" not in settings.rerun)
    if "truncated" in settings.rerun:
        there |= journal.finished_shorter([request for request in everything if request.key not in there])
    return {
        row: [request.sample_index for request in some if request.key not in there] for row, some in requests.items()
    }


def _sum_up(cells: _Cells, samples: Counts, missing: Counts, first: Counts) -> tuple[dict[str, Ask], Ask]:
    """Sum up by teacher and for all; all together may be less than the sum of what each may come to."""
    pool = list(cells.pool)
    certain = np.where(cells.certain, first, 0)
    sure = np.where(cells.certain, missing, 0)  # the samples of certain cells, should none be right
    other = np.where(cells.certain, 0, missing)
    reach = np.minimum(cells.further, len(pool))
    dearest = -np.sort(-other, axis=1)
    beyond = int(np.where(np.arange(len(pool)) < reach[:, None], dearest, 0).sum())
    part = other[cells.split == "calibration"].ravel()
    beyond += int(-np.sort(-part)[: cells.free].sum())
    touched = (reach > 0)[:, None] | ((cells.split == "calibration")[:, None] & (cells.free > 0))
    possible = np.where(touched, other, 0)
    beyond = min(beyond, int(possible.sum()))
    expected = sure + possible * (1 - cells.missed)
    journalled = np.where(cells.certain, samples - missing, 0)
    asks = {
        name: Ask(
            journalled=int(journalled[:, column].sum()),
            certain=int(certain[:, column].sum()),
            expected=float(expected[:, column].sum()),
            at_most=int(sure[:, column].sum() + possible[:, column].sum()),
        )
        for column, name in enumerate(pool)
    }
    total = Ask(
        journalled=int(journalled.sum()),
        certain=int(certain.sum()),
        expected=min(float(expected.sum()), float(sure.sum() + beyond)),
        at_most=int(sure.sum()) + beyond,
    )
    return asks, total
