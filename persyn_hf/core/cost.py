"""What route-then-generate costs against generate-then-select (PerSyn, section 2.2 and Table 1)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Generations(NamedTuple):
    """`cells`: (prompt, teacher) pairs answered; `samples`: responses sampled, several per cell where n > 1."""

    cells: int
    samples: float


def generate_then_select(num_prompts: int, samples: Sequence[int]) -> Generations:
    """Every teacher answers every prompt: N * n cells. `samples` (n,): responses per cell of each teacher."""
    return Generations(num_prompts * len(samples), float(num_prompts * sum(samples)))


def route_then_generate(
    num_prompts: int, num_labelled: int, samples: Sequence[int], allocation: ArrayLike | None = None
) -> Generations:
    """Every teacher answers the labelled prompts, one teacher each of the rest: m * n + (N - m) cells.

    `num_labelled`: calibration and dev together; `allocation` (n,): share of the rest per teacher, default even.
    """
    shares = np.full(len(samples), 1 / len(samples)) if allocation is None else np.asarray(allocation)
    rest = num_prompts - num_labelled
    labelled = generate_then_select(num_labelled, samples)
    return Generations(labelled.cells + rest, labelled.samples + rest * float(shares @ np.asarray(samples)))


def generation_flops(params_b: float, num_tokens: float) -> float:
    """FLOPs of a forward pass over `num_tokens`: 2 per parameter and token; `params_b` in billions, active ones."""
    return 2 * params_b * 1e9 * num_tokens
