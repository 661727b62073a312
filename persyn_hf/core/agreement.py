"""How far two students agree on who should teach them, prompt by prompt."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.assignment import allocation, route
from persyn_hf.core.metrics import kendall_tau, total_variation


class Agreement(NamedTuple):
    """`same`: share of the prompts that both give to the same teacher; `chance`: what it would be if each kept its
    allocation but paid no heed to the prompt; `kappa`: Cohen's, 0 at chance, 1 always the same, NaN where chance is 1;
    `total_variation` of the two allocations. NaN without prompts."""

    prompts: int
    same: float
    chance: float
    kappa: float
    total_variation: float


def agreement(first: ArrayLike, second: ArrayLike, num_teachers: int) -> Agreement:
    """Agreement of two choices of teacher for the same prompts, (N,) and (N,) indices."""
    one, other = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if not len(one):
        return Agreement(0, np.nan, np.nan, np.nan, np.nan)
    same, shares = float((one == other).mean()), [allocation(choice, num_teachers) for choice in (one, other)]
    chance = float(shares[0] @ shares[1])
    kappa = (same - chance) / (1 - chance) if chance < 1 else np.nan
    return Agreement(len(one), same, chance, kappa, float(total_variation(*shares)))


def reward_agreement(first: ArrayLike, second: ArrayLike) -> tuple[Agreement, float]:
    """Agreement of the best teachers by two reward matrices (N, n), and the mean Kendall tau-b of their rows.

    Only cells that both have measured count. Tau is a mean over the prompts where both rank at least two teachers
    apart, NaN where there is none.
    """
    matrices = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    both = np.all(~np.isnan(matrices), axis=0)
    one, other = np.where(both, matrices, np.nan)[:, np.any(both, axis=1)]
    taus = kendall_tau(one, other)
    defined = taus[~np.isnan(taus)]
    found = agreement(route(one).teacher, route(other).teacher, matrices.shape[2])
    return found, float(defined.mean()) if len(defined) else np.nan
