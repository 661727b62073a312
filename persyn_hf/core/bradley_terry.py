"""Learn Bradley-Terry preferences between teachers from one score vector per prompt (PerSyn, section 2.3).

The paper trains on one row per comparison (tests/core/naive.py). All comparisons of a prompt share its score vector
o = pi(x), so their mean loss and its gradient follow from one forward pass: where every teacher was measured, the mean
of `preference_losses` over the prompts equals the paper's mean over all comparisons.

Preferences (B, n, n) say for teachers i < j how much i is preferred to j, NaN where the two were not compared. What
they hold at i >= j is not read.

Example: a prompt with the scores (2, 0, 1) and the rewards (0.9, 0.2, 0.2). Teacher 0 beats both others, who tie. The
model holds teacher 0 better than teacher 1 with probability sigmoid(2 - 0) = 0.8808, a loss of -ln 0.8808 = 0.1269;
better than teacher 2 with sigmoid(1) = 0.7311, a loss of 0.3133; the tie of 1 and 2 costs
-(ln sigmoid(-1) + ln sigmoid(1)) / 2 = 0.8133. The mean, 0.4178, is the loss of the prompt.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from persyn_hf.core.pairs import TIE


Objective = Literal["bt", "soft_bt", "two_head"]


def preferences(rewards: Tensor, objective: Objective = "bt", tau: float = 0.1) -> Tensor:
    """Return how much each teacher is preferred to each other by its reward, (B, n) -> (B, n, n).

    Args:
        rewards: (B, n), NaN where a cell is missing; its comparisons are NaN then.
        objective: `bt`: 1, 0, or 0.5 for a tie (the paper). `soft_bt` and `two_head`: sigmoid((r_i - r_j) / tau),
            which keeps how large a gap is. With `two_head` the caller passes quality and learnability, each in turn.
        tau: reward gap at which the preference is sigmoid(1) = 0.73.

    Example: rewards 0.9 and 0.8 give 1 and 0 with `bt`, and 0.7311 and 0.2689 with `soft_bt` and tau 0.1.
    """
    gap = rewards[:, :, None] - rewards[:, None, :]
    if objective != "bt":
        return torch.sigmoid(gap / tau)
    hard = torch.where(gap.abs() <= TIE, 0.5, (gap > 0).to(rewards))
    return torch.where(gap.isnan(), gap, hard)


def preference_losses(scores: Tensor, preferred: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over each prompt's comparisons, (B,) in nats; 0 for a prompt without any.

    scores (B, n); preferred (B, n, n): see the top of this file.
    """
    pairs = compared(preferred)
    targets = torch.where(pairs, preferred, 0.5).to(scores)
    losses = binary_cross_entropy_with_logits(scores[:, :, None] - scores[:, None, :], targets, reduction="none")
    return torch.where(pairs, losses, 0.0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def compared(preferred: Tensor) -> Tensor:
    """Return which comparisons count, (B, n, n): true at i < j where i and j were compared, so each counts once."""
    return (~preferred.isnan()).triu(diagonal=1)
