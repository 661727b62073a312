"""Weigh several criteria of quality into one, per prompt across teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.rewards import NOISE, How, fill, normalise, numbers, to_matrix, weighted_sum


def mix_criteria(
    columns: Mapping[str, Sequence[Any]],
    said: Mapping[str, Sequence[float | None]],
    weights: Mapping[str, float],
    normalisation: How = "minmax",
    in_part: bool = False,
    near_tie: float = NOISE,
) -> list[float | None]:
    """Make the column `quality_raw` of a rewards dataset: the weighted mean of its criteria, each normalised.

    A criterion is brought to one scale as quality and learnability are: per prompt across teachers, by
    `normalisation`; with `none` the raw numbers are averaged. The answers to a prompt are compared by the same
    criteria: one that says nothing of any of them (`correct` without a reference) does not count for that prompt, and
    the weights of the others make up for it. Where it says something of some answers, the quality of the others is
    None.

    Args:
        columns: `prompt_id` and `teacher` of the cells, one row each.
        said: criterion -> what it says of each cell; those without a weight are not looked at.
        weights: criterion -> weight above 0; only their ratios count.
        normalisation, in_part, near_tie: see `rewards.recombine`.

    Returns:
        One value per row; None where the answer could not be judged.

    Raises:
        InputError: a criterion says what is no finite number.

    Example: {correct: 0.7, judge: 0.3}, two teachers, correct [1, 0], judge [4, 10]: [0.7 x 1 + 0.3 x 0, 0.7 x 0 + 0.3
    x 1] = [0.7, 0.3]. Where correct is null of both, [0, 1].
    """
    ids, names = columns["prompt_id"], columns["teacher"]
    pool = list(dict.fromkeys(names))
    terms: list[FloatArray] = []
    share: FloatArray = np.zeros((len(set(ids)), 1))  # of the weights that count for a prompt
    for criterion, weight in weights.items():
        raw = numbers({**columns, criterion: said[criterion]}, criterion).tolist()
        matrix = to_matrix(ids, names, [None if value != value else value for value in raw], pool)[1]
        known = ~np.isnan(matrix)
        says = known.any(axis=1, keepdims=True)
        scaled = normalise(fill(matrix) if in_part else matrix, normalisation, near_tie)
        terms.append(np.where(says, weight * np.where(known, scaled, np.nan), 0.0))
        share = share + weight * says
    mean = weighted_sum(terms) / np.where(share > 0, share, np.nan)
    row = {prompt_id: place for place, prompt_id in enumerate(dict.fromkeys(ids))}
    cells = [mean[row[prompt_id], pool.index(name)] for prompt_id, name in zip(ids, names, strict=True)]
    return [None if value != value else float(value) for value in cells]
