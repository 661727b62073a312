"""Measure how far two students agree on who should teach them, prompt by prompt."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.assignment import allocation, route
from persyn_hf.core.metrics import kendall_tau, total_variation


class Agreement(NamedTuple):
    """The agreement of two choices of teacher over the same prompts; all shares are NaN without prompts.

    same: share of the prompts that both give to the same teacher. chance: what `same` would be if each student kept
    its allocation but paid no heed to the prompt. kappa: Cohen's kappa, (same - chance) / (1 - chance), 0 at chance, 1
    where they always agree, NaN where chance is 1. total_variation: of the two allocations.
    """

    prompts: int
    same: float
    chance: float
    kappa: float
    total_variation: float


def agreement(first: ArrayLike, second: ArrayLike, num_teachers: int) -> Agreement:
    """Measure the agreement of two choices of teacher for the same prompts, (N,) indices each.

    Example: (0, 0, 1, 1) and (0, 1, 1, 1) agree on 3 of 4 prompts. Their allocations are (1/2, 1/2) and (1/4, 3/4), so
    chance is 1/8 + 3/8 = 1/2, and kappa is (3/4 - 1/2) / (1/2) = 1/2.
    """
    left, right = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if not len(left):
        return Agreement(0, np.nan, np.nan, np.nan, np.nan)
    same, shares = float((left == right).mean()), [allocation(choice, num_teachers) for choice in (left, right)]
    chance = float(shares[0] @ shares[1])
    kappa = (same - chance) / (1 - chance) if chance < 1 else np.nan
    return Agreement(len(left), same, chance, kappa, float(total_variation(*shares)))


def reward_agreement(first: ArrayLike, second: ArrayLike) -> tuple[Agreement, float]:
    """Measure how far two reward matrices (N, n) agree: in their best teachers, and by the mean tau-b of their rows.

    Only cells that both matrices have measured count. Tau is the mean over the prompts where both matrices tell at
    least two teachers apart, NaN where there is none.
    """
    matrices = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    both = np.all(~np.isnan(matrices), axis=0)
    left, right = np.where(both, matrices, np.nan)[:, np.any(both, axis=1)]
    taus = kendall_tau(left, right)
    defined = taus[~np.isnan(taus)]
    of_best = agreement(route(left).teacher, route(right).teacher, matrices.shape[2])
    return of_best, float(defined.mean()) if len(defined) else np.nan
