"""What the package is compared with: the paper's loss over pairs, and one number of a batch's losses or errors."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from persyn_hf.core.bradley_terry import Objective, compared, preference_losses, preferences
from persyn_hf.core.metrics import calibration_sums


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


def grouped_loss(scores: Tensor, rewards: Tensor, objective: Objective = "bt", tau: float = 0.1) -> Tensor:
    """Mean over prompts of the mean binary cross-entropy over all pairs of a prompt's measured teachers.

    scores (B, n), rewards (B, n) with NaN for missing cells -> scalar. Prompts with fewer than two measured cells do
    not count; where none counts the loss is 0.
    """
    preferred = preferences(rewards, objective, tau)
    counts = compared(preferred).any(dim=(1, 2)).sum().clamp(min=1)
    return preference_losses(scores, preferred).sum() / counts


def expected_calibration_error(scores: ArrayLike, rewards: ArrayLike, bins: int = 15) -> float:
    """Mean over all comparisons of the gap between predicted and true preference in their bin; 0 is calibrated."""
    sums, pairs = calibration_sums(scores, rewards, bins)
    return float(np.abs(sums.sum(axis=0)).sum() / pairs.sum()) if pairs.sum() else float("nan")
