"""How far several students of one recipe agree on their teachers, read from the stored datasets."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from persyn_hf.core.agreement import Agreement, agreement, reward_agreement
from persyn_hf.core.rewards import FloatArray, reward_matrix
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.report.tables import Table, shown
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


Choice = Mapping[str, str]  # prompt_id -> teacher


def students(recipe: Recipe, store: Store, stored: Mapping[str, Stored]) -> Table:
    """A row per pair of students for the measured rewards, and one per strategy for its prompts of the pool."""
    pool = [teacher.name for teacher in recipe.teachers]
    rows = []
    for pair in combinations(recipe.students, 2):
        both = " / ".join(student.name for student in pair)
        rows += [[both, *cells] for cells in _compared(recipe, pool, pair, store, stored)]
    return Table(
        name="students",
        title="How far the students agree on their teachers",
        header=["students", "chosen by", "prompts", "same teacher", "by chance", "kappa", "tau", "TV"],
        rows=rows,
        note="same teacher: share of the prompts that both give to the same one, by chance: if each student kept its "
        "allocation but the prompt did not matter; kappa: 0 at chance, 1 always the same; tau: order of all teachers "
        "by reward; TV: share of the prompts that must move for equal allocations",
    )


def _compared(
    recipe: Recipe, pool: list[str], pair: tuple[Student, Student], store: Store, stored: Mapping[str, Stored]
) -> Iterator[list[str]]:
    one, other = (stored.get(names.matrix_rewards(student)) for student in pair)
    if one is not None and other is not None:
        matrices = _aligned(_rewards(store, one, pool), _rewards(store, other, pool), len(pool))
        yield _cells("measured reward", *reward_agreement(*matrices))
    for strategy in recipe.strategies:
        one, other = (stored.get(names.assignments(student, strategy)) for student in pair)
        if one is not None and other is not None:
            first, second = _choice(store, one), _choice(store, other)
            shared = [prompt for prompt in first if prompt in second]
            indices = [[pool.index(choice[prompt]) for prompt in shared] for choice in (first, second)]
            yield _cells(strategy.name, agreement(indices[0], indices[1], len(pool)), np.nan)


def _rewards(store: Store, item: Stored, pool: list[str]) -> dict[str, FloatArray]:
    """Prompt -> rewards of the teachers in pool order."""
    columns = store.read_dataset(item).select_columns(["prompt_id", "teacher", "reward"])[:]
    return dict(zip(*reward_matrix(columns, pool, None), strict=True))


def _aligned(
    one: Mapping[str, FloatArray], other: Mapping[str, FloatArray], num_teachers: int
) -> tuple[FloatArray, FloatArray]:
    """Matrices over the prompts that both have."""
    both = np.array([(one[prompt], other[prompt]) for prompt in one if prompt in other])
    first, second = both.reshape(-1, 2, num_teachers).swapaxes(0, 1)
    return first, second


def _choice(store: Store, item: Stored) -> Choice:
    """Teacher of each prompt of the pool, the first where there are several: they are stored best first."""
    columns = store.read_dataset(item).select_columns(["prompt_id", "teacher", "split"])[:]
    cells = list(zip(*(columns[name] for name in ("prompt_id", "teacher", "split")), strict=True))
    return {prompt_id: teacher for prompt_id, teacher, split in reversed(cells) if split == "pool"}


def _cells(by: str, found: Agreement, tau: float) -> list[str]:
    shares = [shown("{:.1%}", share) for share in (found.same, found.chance, found.total_variation)]
    numbers = [shown("{:.2f}", number) for number in (found.kappa, tau)]
    return [by, shown("{:,}", found.prompts), *shares[:2], *numbers, shares[2]]
