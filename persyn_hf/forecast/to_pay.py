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
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.journal_reading import JournalReader
from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.cost import Cost
from persyn_hf.forecast.cells import Cells, share_of
from persyn_hf.forecast.missing import count_missing
from persyn_hf.forecast.rehearsal import Rehearsal
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import Strategy
from persyn_hf.report.measured import sound
from persyn_hf.runner.fingerprint import described
from persyn_hf.runner.moved import earlier_prompts, moved
from persyn_hf.runner.run import Done
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate import Settings, num_samples
from persyn_hf.store.local import Store


if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The answers that the steps left will ask of one teacher, or of all."""

    journalled: int  # of certain cells; paid for already
    under_way: int  # of certain cells; sent in batches, and paid for already
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


def count_to_pay(
    recipe: Recipe, done: Sequence[Done], store: Store, rehearsal: Rehearsal, costs: Mapping[str, Cost]
) -> ToPay | None:
    """Count what the steps that are not stored will ask; None where no teacher is asked or the prompts are unknown.

    `costs` are those of one cell by teacher, as far as they are known.
    """
    steps = {item.step.key: item.step for item in done}
    left = [item.step for item in done if item.stored is None and item.step.stage == "generate"]
    settings = left[0].settings if left else None
    prompts = rehearsal.prompts()
    if not isinstance(settings, Settings) or settings.engine == "import" or prompts is None:
        return None
    cells = Cells(prompts, recipe.teachers)
    bases: dict[str, list[str]] = {}
    for step in left:
        _add(cells, step, steps, recipe, store, rehearsal, bases, costs)
    if any(cells.free):  # what the rounds that are stored have chosen stays chosen
        for item in done:
            chosen: Any = item.step.settings
            if item.stored is not None and item.step.stage == "assign" and chosen.labelling is not None:
                cells.add(store.read_dataset(item.stored), 0)
    notes: list[str] = []
    if "errors" in settings.rerun:
        notes.append("an error that stays one is asked again by every step that needs the answer")
    if names.PROMPTS in {item.step.key for item in done if item.stored is None}:
        notes += filter(None, [moved(store, earlier_prompts(store, f"{recipe.full_name}-{names.PROMPTS}"), prompts)])
    with JournalReader(store.journal) as journal:
        of_cells = count_missing(cells, settings, left[0].seed, recipe.teachers, journal, prompts, notes)
    samples = np.array([num_samples(settings, teacher) for teacher in recipe.teachers])
    asks, total = _sum_up(cells, samples, *of_cells)
    return ToPay(teachers=asks, total=total, bases=bases, notes=notes)


def _add(
    cells: Cells,
    step: Step,
    steps: Mapping[str, Step],
    recipe: Recipe,
    store: Store,
    rehearsal: Rehearsal,
    bases: dict[str, list[str]],
    costs: Mapping[str, Cost],
) -> None:
    """Add the cells that a step of `generate` asks."""
    settings: Any = step.settings
    key = step.inputs["assignments"]
    assignments = rehearsal.rows(key)
    if assignments is not None:
        cells.add(assignments, settings.escalate)
        return
    if key not in steps:  # pinned, and on the Hub
        number = len(cells.pool)
        cells.add_unknown(("calibration", "dev", "pool"), number, np.full(number, 1 / number))
        bases.setdefault(f"every cell, as {key} is on the Hub (persyn artifacts pull {key})", []).append(step.key)
        return
    chosen: Any = steps[key].settings
    if chosen.labelling is not None and chosen.kind == "all":
        number, dev = (int((cells.split == split).sum()) for split in ("calibration", "dev"))
        cells.add_rounds(chosen.chosen_splits, *share_of(chosen.labelling, costs, number, dev))
        return
    student = steps[key].student
    strategy = next(strategy for strategy in recipe.strategies if strategy.name == step.strategy)
    assert student is not None
    shares, basis = _shares(cells, student, strategy, recipe, store, rehearsal)
    cells.add_unknown(chosen.chosen_splits, chosen.per_prompt, shares, settings.escalate)
    basis += ", without what escalates" if settings.escalate else ""
    bases.setdefault(basis, []).append(strategy.name)


def _shares(
    cells: Cells, student: Student, strategy: Strategy, recipe: Recipe, store: Store, rehearsal: Rehearsal
) -> tuple[FloatArray, str]:
    """Return the chance of each teacher, (n,) or per prompt (P, n), to get a prompt, and what that rests on.

    It is the newest assignment of the recipe's own, else of any, by the same kind of strategy for the same student,
    where it knew all of these teachers; else the shares of the measured best on calibration, else an even split.
    """
    number = len(cells.pool)
    like = [
        item
        for item in sound(store.artifacts())
        if item.kind == "assignments"
        and item.manifest.settings.get("kind") == strategy.kind
        and item.manifest.student == described(student)
        and {teacher["name"] for teacher in item.manifest.teachers} >= cells.pool.keys()  # a new one it cannot choose
    ]
    own = f"{recipe.full_name}-{names.assignments(student, strategy)}"
    last = max(like, key=lambda item: (item.repo == own, item.manifest.created_at), default=None)
    if last is not None:
        allocation = last.manifest.metrics["allocation"]
        shares = np.tile([float(allocation.get(name, 0.0)) for name in cells.pool], (len(cells.ids), 1))
        earlier = store.read_dataset(last)
        cells_then = list(zip(earlier["prompt_id"][:], earlier["teacher"][:], strict=True))
        known = [(cells.row_of[name], teacher) for name, teacher in cells_then if name in cells.row_of]
        shares[[row for row, _ in known]] = 0.0
        for row, teacher in known:  # several where `per_prompt` asks several
            if teacher in cells.pool:
                shares[row, cells.pool[teacher]] = 1.0
        return shares, f"as in {last.ref}"
    rewards = rehearsal.rows(names.matrix_rewards(student))
    if rewards is not None:
        columns = (rewards[name][:] for name in ("teacher", "rank", "split"))
        best = Counter(name for name, rank, split in zip(*columns, strict=True) if (rank, split) == (1, "calibration"))
        if best.total():
            return np.array([best[name] / best.total() for name in cells.pool]), "who is best how often on calibration"
    return np.full(number, 1 / number), "an even split"


def _sum_up(
    cells: Cells, samples: IntArray, missing: IntArray, first: IntArray, under_way: IntArray
) -> tuple[dict[str, Ask], Ask]:
    """Sum up by teacher and for all; all together may be less than the sum of what each may come to."""
    pool = list(cells.pool)
    certain = np.where(cells.certain, first, 0)
    sure = np.where(cells.certain, missing, 0)  # the samples of certain cells, should none be right
    other = np.where(cells.certain, 0, missing)
    reach = np.minimum(cells.further, len(pool))
    dearest = -np.sort(-other, axis=1)
    beyond = int(np.where(np.arange(len(pool)) < reach[:, None], dearest, 0).sum())
    in_rounds = cells.in_rounds
    beyond += int(-np.sort(-other[in_rounds])[: cells.free[1]].sum())
    possible = np.where((reach > 0)[:, None] | in_rounds, other, 0)
    beyond = min(beyond, int(possible.sum()))
    left_out = 1 - in_rounds * (cells.free[0] / max(1, int(in_rounds.sum())))
    # A further sample of `stop_when_correct` is asked only where none is right: that is not expected, but possible.
    expected = certain + np.where(possible > 0, first, 0) * (1 - cells.missed * left_out)
    sent = np.where(cells.certain, under_way, 0)
    journalled = np.where(cells.certain, samples - missing, 0) - sent
    asks = {
        name: Ask(
            journalled=int(journalled[:, column].sum()),
            under_way=int(sent[:, column].sum()),
            certain=int(certain[:, column].sum()),
            expected=float(expected[:, column].sum()),
            at_most=int(sure[:, column].sum() + possible[:, column].sum()),
        )
        for column, name in enumerate(pool)
    }
    total = Ask(
        journalled=int(journalled.sum()),
        under_way=int(sent.sum()),
        certain=int(certain.sum()),
        expected=min(float(expected.sum()), float(sure.sum() + beyond)),
        at_most=int(sure.sum()) + beyond,
    )
    return asks, total
