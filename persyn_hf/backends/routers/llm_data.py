"""Lay out what the llm router is trained on: the preferences of each prompt, in the order of an epoch."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from persyn_hf.backends.routers import Labelled, RouterSettings
from persyn_hf.backends.routers.llm_model import HEADS
from persyn_hf.core.bradley_terry import compared, preference_losses, preferences


class Prompts(torch.utils.data.Dataset):
    """The token ids, preferences and weight of each prompt, in the order of an epoch.

    Every step has the same number of rows. The last step of an epoch, and a step that does not divide by the number of
    processes, are filled up with rows of weight 0. The weights of a step add up to 1.
    """

    def __init__(self, tokens: Sequence[list[int]], preferred: torch.Tensor, batch_size: int, seed: int) -> None:
        usable = _counts(preferred)
        self.rows = torch.nonzero(usable).flatten().tolist()  # the others have nothing to learn from
        self.tokens, self.preferred = tokens, preferred
        self.batch_size, self.seed = batch_size, seed
        self.steps = math.ceil(len(self.rows) / batch_size)
        self.num_pairs = int(compared(preferred.flatten(0, 1)).sum())
        self.fill(1, batch_size)

    def fill(self, processes: int, micro: int) -> None:
        """Cut steps into micro batches of `micro` prompts at most, the same number for each process."""
        self.accumulation = math.ceil(self.batch_size / (processes * micro))
        self.micro = math.ceil(self.batch_size / (processes * self.accumulation))
        self.per_step = processes * self.micro * self.accumulation
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of an epoch; Accelerate calls this.

        Prompts of a step are ordered by length, so that micro batches need little padding.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows).tolist()
        self.order: list[tuple[int, float]] = []
        for start in range(0, len(order), self.batch_size):
            step = sorted(order[start : start + self.batch_size], key=lambda row: (-len(self.tokens[row]), row))
            self.order += [(row, 1 / len(step)) for row in step] + [(step[-1], 0.0)] * (self.per_step - len(step))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[list[int], torch.Tensor, float]:
        row, weight = self.order[place]
        return self.tokens[row], self.preferred[row], weight


def targets(labelled: Labelled, alpha: float | None, settings: RouterSettings) -> torch.Tensor:
    """Compute the preferences of every prompt for each head: (num_prompts, num_heads, n, n)."""
    if alpha is None and labelled.preferences is not None:
        return torch.tensor(labelled.preferences[:, None])
    rewards = [labelled.rewards] if alpha is None else [getattr(labelled, head) for head in HEADS]
    return torch.stack(
        [preferences(torch.tensor(matrix), settings.objective, settings.tau) for matrix in rewards], dim=1
    )


def prompt_losses(outputs: torch.Tensor, preferred: torch.Tensor) -> torch.Tensor:
    """Compute the loss of each prompt, the mean over its heads: (B, heads x n), (B, heads, n, n) -> (B,)."""
    heads, teachers = preferred.shape[1:3]
    losses = preference_losses(outputs.reshape(-1, teachers), preferred.flatten(0, 1))
    return losses.view(-1, heads).mean(dim=1)


def mean_loss(outputs: torch.Tensor, preferred: torch.Tensor) -> torch.Tensor:
    """Compute the mean loss over the prompts that have a comparison; the shapes are those of `prompt_losses`."""
    return prompt_losses(outputs, preferred).sum() / _counts(preferred).sum().clamp(min=1)


def _counts(preferred: torch.Tensor) -> torch.Tensor:
    """Tell which prompts have a comparison: (B, heads, n, n) -> (B,)."""
    return compared(preferred.flatten(0, 1)).flatten(1).any(dim=1).view(preferred.shape[:2]).any(dim=1)
