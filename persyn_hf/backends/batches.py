"""Turn rows of different lengths into padded batches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    import torch


def pad(rows: Sequence[Sequence[int] | np.ndarray], token: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
    """Pad rows of token ids on the right with `token`; return the ids and their mask, both (num_rows, longest), int64.

    The mask is 1 on the tokens of a row and 0 on its padding.
    """
    import torch

    ids = torch.full((len(rows), max(1, *map(len, rows))), token)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.as_tensor(tokens, dtype=torch.long)
        mask[row, : len(tokens)] = 1
    return ids, mask


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row numbers, longest row first, so that rows x longest length stays within `batch_tokens`.

    A row that is longer than `batch_tokens` gets a batch of its own.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
