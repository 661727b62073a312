"""Rows of different lengths as padded batches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    import torch


def pad(rows: Sequence[Sequence[int] | np.ndarray], token: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
    """Token ids (num_rows, longest), filled up with `token` on the right, and their mask: 1 on tokens of the row."""
    import torch

    ids = torch.full((len(rows), max(1, *map(len, rows))), token)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.as_tensor(tokens, dtype=torch.long)
        mask[row, : len(tokens)] = 1
    return ids, mask


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group rows, longest first, so that rows x longest stays within `batch_tokens` (a longer row goes alone)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
