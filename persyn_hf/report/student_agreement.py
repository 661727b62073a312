"""The agreement of several students of one recipe on their teachers, read from the stored datasets."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from persyn_hf.core.agreement import Agreement, agreement, reward_agreement
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.rewards import reward_matrix
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.report.tables import Table, shown
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


Choice = Mapping[str, str]  # prompt_id -> teacher


def students(recipe: Recipe, store: Store, stored: Mapping[str, Stored]) -> Table:
    """Return a row per pair of students for the measured rewards, and one per strategy for its prompts of the pool."""
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
    """Yield the cells of one pair of students: by measured reward, then by each strategy that both have."""
    left, right = (stored.get(names.matrix_rewards(student)) for student in pair)
    if left is not None and right is not None:
        matrices = _aligned(_rewards(store, left, pool), _rewards(store, right, pool), len(pool))
        yield _cells("measured reward", *reward_agreement(*matrices))
    for strategy in recipe.strategies:
        left, right = (stored.get(names.assignments(student, strategy)) for student in pair)
        if left is not None and right is not None:
            first, second = _choice(store, left), _choice(store, right)
            shared = [prompt for prompt in first if prompt in second]
            indices = [[pool.index(choice[prompt]) for prompt in shared] for choice in (first, second)]
            yield _cells(strategy.name, agreement(indices[0], indices[1], len(pool)), np.nan)


def _rewards(store: Store, item: Stored, pool: list[str]) -> dict[str, FloatArray]:
    """Return the rewards of every prompt, in the order of the pool: prompt_id -> (num_teachers,)."""
    columns = store.read_dataset(item).select_columns(["prompt_id", "teacher", "reward"])[:]
    return dict(zip(*reward_matrix(columns, pool, None), strict=True))


def _aligned(
    left: Mapping[str, FloatArray], right: Mapping[str, FloatArray], num_teachers: int
) -> tuple[FloatArray, FloatArray]:
    """Return the rewards of two students on the prompts that both have: two arrays (num_prompts, num_teachers)."""
    both = np.array([(left[prompt], right[prompt]) for prompt in left if prompt in right])
    first, second = both.reshape(-1, 2, num_teachers).swapaxes(0, 1)
    return first, second


def _choice(store: Store, item: Stored) -> Choice:
    """Return the teacher of each prompt of the pool; where it has several, the first, which is the best one."""
    columns = store.read_dataset(item).select_columns(["prompt_id", "teacher", "split"])[:]
    cells = list(zip(*(columns[name] for name in ("prompt_id", "teacher", "split")), strict=True))
    return {prompt_id: teacher for prompt_id, teacher, split in reversed(cells) if split == "pool"}


def _cells(by: str, agreed: Agreement, tau: float) -> list[str]:
    """Return the row of one agreement; `tau` is the rank correlation of all teachers, NaN where it is not known."""
    shares = [shown("{:.1%}", share) for share in (agreed.same, agreed.chance, agreed.total_variation)]
    numbers = [shown("{:.2f}", number) for number in (agreed.kappa, tau)]
    return [by, shown("{:,}", agreed.prompts), *shares[:2], *numbers, shares[2]]
