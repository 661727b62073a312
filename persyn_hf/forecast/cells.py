"""The (prompt, teacher) cells that the steps left of a recipe ask: the certain ones, and bounds for the others."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from persyn_hf.core.arrays import BoolArray, FloatArray, IntArray
from persyn_hf.core.cost import Cost
from persyn_hf.core.partial_calibration import quota
from persyn_hf.errors import InputError
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stages.assign.cell_costs import FIELD_OF
from persyn_hf.stages.assign.partial_calibration import FEWEST


if TYPE_CHECKING:
    from datasets import Dataset


class Cells:
    """The cells of the steps left: those that are certain, and how many others may come to each prompt."""

    def __init__(self, prompts: "Dataset", teachers: Sequence[Teacher]) -> None:
        self.ids: list[str] = prompts["prompt_id"][:]
        self.row_of = {name: row for row, name in enumerate(self.ids)}
        self.split = np.array(prompts["split"][:])
        self.pool = {teacher.name: column for column, teacher in enumerate(teachers)}
        shape = len(self.ids), len(teachers)
        self.certain: BoolArray = np.zeros(shape, dtype=bool)
        self.further: IntArray = np.zeros(shape[0], dtype=np.int64)  # other cells per prompt, at most
        # of the calibration cells that later rounds will have asked in the end: expected, and at most
        self._share: tuple[float, float] | None = None
        self.missed: FloatArray = np.ones(shape)  # probability that no strategy chooses the cell

    def add(self, assignments: "Dataset", escalate: int) -> None:
        """Add cells that are assigned; each prompt may come to `escalate` more teachers.

        Raises:
            InputError: they name a teacher or a prompt that is not there, as pinned ones may.
        """
        prompts, teachers = assignments["prompt_id"][:], assignments["teacher"][:]
        strange = [name for name in prompts if name not in self.row_of] + [t for t in teachers if t not in self.pool]
        if strange:
            raise InputError(
                f"the assignments name `{strange[0]}`, which is neither among the prompts nor in the pool "
                f"({', '.join(self.pool)}); assign anew, or name their prompts and teachers"
            )
        rows = [self.row_of[name] for name in prompts]
        self.certain[rows, [self.pool[name] for name in teachers]] = True
        if escalate:
            self.further[np.unique(rows)] += escalate

    def add_unknown(self, splits: Sequence[str], number: int, shares: FloatArray, escalate: int = 0) -> None:
        """Add a strategy that will choose `number` teachers for each prompt of `splits`; `shares` (n,) or (P, n).

        Each prompt may come to `escalate` more, which are not expected: how many answers fail is not known.
        """
        there = np.isin(self.split, splits)
        self.further[there] += number + escalate
        chances = np.broadcast_to(shares, self.missed.shape)[there]
        self.missed[there] *= np.clip(1 - number * chances, 0, 1)

    def add_rounds(self, splits: Sequence[str], expected: float, at_most: float) -> None:
        """Add the later rounds of a calibration in part, which end at a share of its cells; other splits are whole."""
        whole = np.isin(self.split, [split for split in splits if split != "calibration"])
        self.certain[whole] = True
        self._share = expected, at_most

    @property
    def in_rounds(self) -> BoolArray:
        """The calibration cells (P, n) of which later rounds will choose some."""
        part = (self.split == "calibration")[:, None]
        return part & ~self.certain if self._share is not None else np.zeros_like(self.certain)

    @property
    def free(self) -> tuple[int, int]:
        """The number of cells that later rounds will choose, wherever they come: expected, and at most."""
        if self._share is None:
            return 0, 0
        part = self.certain[self.split == "calibration"]
        expected, at_most = (quota(part, share, 1, 1) for share in self._share)
        return expected, at_most


def share_of(
    calibration: Calibration, costs: Mapping[str, Cost], num_prompts: int, num_dev: int
) -> tuple[float, float]:
    """Return the share of the calibration cells that are paid for: expected, and at most.

    A budget pays for cells by what they cost, which `costs` (of one cell by teacher) say as well as is known: any cell
    may turn out to be cheap. Teachers are taken to be asked alike. The first round asks each `FEWEST`, whatever they
    cost. `num_dev` prompts are answered by all, within the budget where it covers them.
    """
    if calibration.budget is None:
        return calibration.share, calibration.share
    row = getattr(sum(costs.values(), Cost()), FIELD_OF[calibration.budget.cost])
    if not row or not num_prompts:
        return 1.0, 1.0
    affordable = calibration.budget.total / row - (num_dev if calibration.budget.covers_dev else 0)
    return min(1.0, max(affordable, FEWEST) / num_prompts), 1.0
