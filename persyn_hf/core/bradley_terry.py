"""Bradley-Terry preferences between teachers, from one score vector per prompt (PerSyn, section 2.3).

The paper trains on one row per comparison (tests/core/naive.py). All comparisons of a prompt share its score vector
o = pi(x), so their mean loss and its gradient follow from one forward pass: where every teacher was measured, the mean
of `preference_losses` over the prompts equals the paper's mean over all comparisons.

Preferences (B, n, n) say of teachers i < j how much i is preferred to j, NaN where the two were not compared; what
they hold elsewhere is not read.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from persyn_hf.core.pairs import TIE


Objective = Literal["bt", "soft_bt", "two_head"]


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
