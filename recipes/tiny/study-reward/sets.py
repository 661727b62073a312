"""Draw the training sets: which teacher's answer each prompt gets.

A set is a teacher per prompt of 600 prompts (index in the pool; -1: the prompt is not in the set). They differ in what
a criterion could see: the teachers' shares, the share of right answers, how likely the student finds them, their
length, the skills that are there. Most are random, so that a criterion is judged on sets that no criterion has made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


Set = NDArray[np.int64]
Values = NDArray[np.float64]

SIZE = 600  # prompts of a set


@dataclass(frozen=True)
class Cells:
    """What is known of each answer, (prompts, teachers), and each prompt's skill, (prompts,)."""

    right: Values  # 1 or 0
    criteria: dict[str, Values]  # higher is better
    skills: NDArray[np.str_]


def draw(cells: Cells, seed: int = 0) -> Iterator[tuple[str, Set]]:
    """Yield the name and the teachers of each set; equal `cells` and `seed` give equal sets."""
    number, pool = cells.right.shape
    for index, (name, choose) in enumerate(_kinds(cells)):
        chance = np.random.default_rng([seed, index])
        prompts = np.sort(chance.permutation(_offered(name, cells, chance))[:SIZE])
        teachers = np.full(number, -1, dtype=np.int64)
        teachers[prompts] = choose(chance)[prompts]
        assert len(prompts) == SIZE
        assert teachers.max() < pool
        yield name, teachers


def _offered(name: str, cells: Cells, chance: np.random.Generator) -> NDArray[np.int64]:
    """Return the prompts that a set may take: all, or those of four skills."""
    if not name.startswith("skills"):
        return np.arange(len(cells.skills))
    some = chance.permutation(np.unique(cells.skills))[:4]
    return np.flatnonzero(np.isin(cells.skills, some))


def _kinds(cells: Cells) -> Iterator[tuple[str, Callable[[np.random.Generator], Set]]]:
    """Yield a name per set, and what chooses a teacher for every prompt."""
    number, pool = cells.right.shape

    def at_random(chance: np.random.Generator) -> Set:
        return chance.integers(pool, size=number)

    def mixture(chance: np.random.Generator) -> Set:
        return chance.choice(pool, size=number, p=chance.dirichlet(np.full(pool, 0.4)))

    def by_skill(chance: np.random.Generator) -> Set:
        of = {skill: chance.integers(pool) for skill in np.unique(cells.skills)}
        return np.array([of[skill] for skill in cells.skills])

    def right_first(share: float) -> Callable[[np.random.Generator], Set]:
        """Return what chooses right answers on a share of prompts and wrong ones on others, by uneven tastes."""

        def choose(chance: np.random.Generator) -> Set:
            wanted = (chance.random(number) < share).astype(float)
            taste = np.log(chance.dirichlet(np.full(pool, 0.4))) + chance.gumbel(size=(number, pool))
            return (taste + 1e6 * (cells.right == wanted[:, None])).argmax(axis=1)

        return choose

    def best(values: Values, sign: int, share: float) -> Callable[[np.random.Generator], Set]:
        def choose(chance: np.random.Generator) -> Set:
            by_criterion = np.where(np.isnan(values), -np.inf, sign * values).argmax(axis=1)
            return np.where(chance.random(number) < share, by_criterion, chance.integers(pool, size=number))

        return choose

    for copy in range(4):
        yield f"uniform {copy}", at_random
    for copy in range(18):
        yield f"mixture {copy}", mixture
    for copy in range(8):
        yield f"by skill {copy}", by_skill
    for copy in range(6):
        yield f"skills {copy}", mixture
    for copy, share in enumerate((1.0, 1.0, 1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.0)):
        yield f"right {copy}: {share:.0%}", right_first(share)
    for teacher in range(pool):
        yield f"teacher {teacher}", best(np.eye(pool)[np.full(number, teacher)], 1, 1.0)
    for name, values in cells.criteria.items():
        yield f"best {name}", best(values, 1, 1.0)
        yield f"half best {name}", best(values, 1, 0.5)
    for name in ("eq2 0.4", "log-prob per token"):
        yield f"worst {name}", best(cells.criteria[name], -1, 1.0)
