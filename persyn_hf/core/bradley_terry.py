"""Learn Bradley-Terry preferences between teachers from one score vector per prompt (PerSyn, section 2.3).

The paper trains on one row per comparison. All comparisons of a prompt share its score vector o = pi(x), so their
mean loss and its gradient follow from one forward pass: `grouped_loss` equals `pair_loss` over the same comparisons.

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


def two_hot(a: Tensor, b: Tensor, num_teachers: int) -> Tensor:
    """Return the paper's z of M comparisons, (M, num_teachers): -1 at teacher A, +1 at teacher B, 0 elsewhere.

    a, b: (M,) indices of the two teachers.
    """
    z = torch.zeros(len(a), num_teachers)
    rows = torch.arange(len(a))
    z[rows, a] = -1.0
    z[rows, b] = 1.0
    return z


def win_probability(z: Tensor, scores: Tensor) -> Tensor:
    """Return the probability sigmoid(z . pi(x)) that B is preferred to A, the paper's Eq. 3.

    z (M, n): see `two_hot`; scores (M, n): pi(x) of each comparison's prompt. Returns (M,).
    """
    return torch.sigmoid((z * scores).sum(dim=-1))


def pair_loss(scores: Tensor, z: Tensor, labels: Tensor) -> Tensor:
    """Return the paper's Eq. 4: the mean binary cross-entropy over comparisons, a scalar in nats.

    scores (M, n) and z (M, n): as in `win_probability`; labels (M,): 1 if B is preferred, 0 if A is, 0.5 for a tie.
    """
    return binary_cross_entropy_with_logits((z.to(scores) * scores).sum(dim=-1), labels.to(scores))


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


def grouped_loss(scores: Tensor, rewards: Tensor, objective: Objective = "bt", tau: float = 0.1) -> Tensor:
    """Return the mean over prompts of the mean binary cross-entropy over all pairs of the prompt's measured teachers.

    Args:
        scores: (B, n).
        rewards: (B, n), NaN where a cell is missing. A prompt with fewer than two measured cells does not count; where
            no prompt counts the loss is 0.
        objective, tau: see `preferences`.

    Returns:
        A scalar in nats. For one prompt it equals `pair_loss` over its comparisons; see the example at the top.
    """
    preferred = preferences(rewards, objective, tau)
    counts = compared(preferred).any(dim=(1, 2)).sum().clamp(min=1)
    return preference_losses(scores, preferred).sum() / counts
