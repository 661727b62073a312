"""Bradley-Terry preferences between teachers, from one score vector per prompt (PerSyn, section 2.3).

The paper trains on one row per comparison. All comparisons of a prompt share its score vector o = pi(x), so their
mean loss and its gradient follow from one forward pass: `grouped_loss` equals `pair_loss` over the same comparisons.

Preferences (B, n, n) say of teachers i < j how much i is preferred to j, NaN where the two were not compared; what
they hold elsewhere is not read.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from persyn_hf.core.pairs import TIE


Objective = Literal["bt", "soft_bt", "two_head"]


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


def preferences(rewards: Tensor, objective: Objective = "bt", tau: float = 0.1) -> Tensor:
    """What rewards say of every two teachers: (B, n), NaN where a cell is missing -> (B, n, n).

    `bt`: 1, 0, or 0.5 for a tie (the paper). `soft_bt`: sigmoid((r_i - r_j) / tau), which keeps how large a gap is;
    `two_head` is that for quality and for learnability, each in turn.
    """
    gap = rewards[:, :, None] - rewards[:, None, :]
    if objective != "bt":
        return torch.sigmoid(gap / tau)
    hard = torch.where(gap.abs() <= TIE, 0.5, (gap > 0).to(rewards))
    return torch.where(gap.isnan(), gap, hard)


def preference_losses(scores: Tensor, preferred: Tensor) -> Tensor:
    """Mean binary cross-entropy over the comparisons of each prompt; 0 without any. (B, n), (B, n, n) -> (B,)."""
    pairs = compared(preferred)
    targets = torch.where(pairs, preferred, 0.5).to(scores)
    losses = binary_cross_entropy_with_logits(scores[:, :, None] - scores[:, None, :], targets, reduction="none")
    return torch.where(pairs, losses, 0.0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def compared(preferred: Tensor) -> Tensor:
    """The comparisons that count, each once: true at i < j. (B, n, n)."""
    return (~preferred.isnan()).triu(diagonal=1)


def grouped_loss(scores: Tensor, rewards: Tensor, objective: Objective = "bt", tau: float = 0.1) -> Tensor:
    """Mean over prompts of the mean binary cross-entropy over all pairs of a prompt's measured teachers.

    scores (B, n), rewards (B, n) with NaN for missing cells -> scalar. Prompts with fewer than two measured cells do
    not count; where none counts the loss is 0.
    """
    preferred = preferences(rewards, objective, tau)
    counts = compared(preferred).any(dim=(1, 2)).sum().clamp(min=1)
    return preference_losses(scores, preferred).sum() / counts
