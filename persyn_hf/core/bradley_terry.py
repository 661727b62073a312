"""Bradley-Terry preferences between teachers, from one score vector per prompt (PerSyn, section 2.3).

The paper trains on one row per comparison. All comparisons of a prompt share its score vector o = pi(x), so their
mean loss and its gradient follow from one forward pass: `grouped_loss` equals `pair_loss` over the same comparisons.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from persyn_hf.core.pairs import TIE


Objective = Literal["bt", "soft_bt"]


def two_hot(a: Tensor, b: Tensor, num_teachers: int) -> Tensor:
    """The paper's z: -1 at teacher A, +1 at teacher B. Indices (M,) -> (M, num_teachers)."""
    z = torch.zeros(len(a), num_teachers)
    rows = torch.arange(len(a))
    z[rows, a] = -1.0
    z[rows, b] = 1.0
    return z


def win_probability(z: Tensor, scores: Tensor) -> Tensor:
    """Paper Eq. 3: the probability sigmoid(z . pi(x)) that B is preferred to A. (M, n), (M, n) -> (M,)."""
    return torch.sigmoid((z * scores).sum(dim=-1))


def pair_loss(scores: Tensor, z: Tensor, labels: Tensor) -> Tensor:
    """Paper Eq. 4: mean binary cross-entropy over comparisons. scores (M, n), z (M, n), labels (M,) -> scalar."""
    return binary_cross_entropy_with_logits((z.to(scores) * scores).sum(dim=-1), labels.to(scores))


def preference_targets(rewards: Tensor, objective: Objective, tau: float) -> Tensor:
    """y_ij, how much teacher i is preferred to j: (B, n) -> (B, n, n).

    `bt`: 1, 0, or 0.5 for a tie (the paper). `soft_bt`: sigmoid((r_i - r_j) / tau), which keeps how large a gap is.
    """
    gap = rewards[:, :, None] - rewards[:, None, :]
    if objective == "soft_bt":
        return torch.sigmoid(gap / tau)
    return torch.where(gap.abs() <= TIE, 0.5, (gap > 0).to(rewards))


def grouped_loss(
    scores: Tensor, rewards: Tensor, objective: Objective = "bt", tau: float = 0.1, mask: Tensor | None = None
) -> Tensor:
    """Mean over prompts of the mean binary cross-entropy over all unordered pairs of a prompt's measured teachers.

    scores (B, n), rewards (B, n) with NaN for missing cells, mask (B, n) true where measured (default: not NaN)
    -> scalar. Prompts with fewer than two measured cells do not count; where none counts the loss is 0.
    """
    measured = ~torch.isnan(rewards) if mask is None else mask & ~torch.isnan(rewards)
    targets = preference_targets(torch.where(measured, rewards, 0.0).to(scores), objective, tau)
    pairs = (measured[:, :, None] & measured[:, None, :]).triu(diagonal=1)
    losses = binary_cross_entropy_with_logits(scores[:, :, None] - scores[:, None, :], targets, reduction="none")
    num_pairs = pairs.sum(dim=(1, 2))
    per_prompt = torch.where(pairs, losses, 0.0).sum(dim=(1, 2)) / num_pairs.clamp(min=1)
    return per_prompt.sum() / (num_pairs > 0).sum().clamp(min=1)
