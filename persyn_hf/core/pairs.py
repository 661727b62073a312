"""Turn rewards into comparisons: every two teachers of a prompt, once (PerSyn, section 2.3 and appendix A.2).

n measured teachers give n(n-1)/2 comparisons (the paper's 190 for 19 teachers is a slip: 19 * 18 / 2 = 171).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.errors import InputError


TIE = 1e-6  # rewards that differ by no more count as equal


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """The comparisons of a reward matrix: five arrays with one entry per comparison, prompt by prompt, and counts.

    prompt: row of the reward matrix. a, b: columns of the two teachers. label: the paper's C, 1 if B is preferred, 0
    if A is, 0.5 for a tie. margin: reward of B minus reward of A. ties: comparisons that are ties. missing_cells:
    cells of the matrix without a reward. skipped: comparisons that lack a reward and are left out.
    """

    prompt: IntArray
    a: IntArray
    b: IntArray
    label: FloatArray
    margin: FloatArray
    ties: int
    missing_cells: int
    skipped: int


def compare_teachers(
    prompt_ids: Sequence[str], teachers: Sequence[str], rewards: ArrayLike, *, tie: float = TIE
) -> Comparisons:
    """Compare all teachers of each prompt two by two.

    Args:
        prompt_ids: (N,).
        teachers: (n,) names.
        rewards: (N, n), NaN where missing. Comparisons with a missing cell are left out and counted.
        tie: rewards that differ by no more count as equal.

    Which of the two teachers is A is drawn from a hash of the prompt and the two names. If it were the order of the
    pool, labels would lean to one side wherever the pool is sorted by strength. As it is, labels neither lean nor
    change with that order.

    Example: prompt `p1`, teachers x, y, z with rewards 0.9, 0.2, 0.2. The comparisons (A, B) are (y, x) with label 1
    and margin 0.7, (x, z) with label 0 and margin -0.7, and (z, y) with label 0.5, a tie.
    """
    matrix = np.asarray(rewards, dtype=np.float64)
    names = np.argsort(np.argsort(np.array(teachers, dtype=str), kind="stable"), kind="stable")
    first, second = np.triu_indices(len(teachers), k=1)
    swap = names[first] > names[second]  # `first` is the earlier name, whatever the order of the pool
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    of_prompt = np.array([_hash(prompt_id) for prompt_id in prompt_ids], dtype=np.uint64)
    of_pair = np.array(
        [_hash(f"{teachers[int(i)]}\0{teachers[int(j)]}") for i, j in zip(first, second, strict=True)], dtype=np.uint64
    )
    flip = _mix(of_prompt[:, None] ^ of_pair[None, :]) & np.uint64(1) == 1
    a, b = np.where(flip, second, first), np.where(flip, first, second)
    margin = np.take_along_axis(matrix, b, axis=1) - np.take_along_axis(matrix, a, axis=1)
    measured = ~np.isnan(margin)
    tied = np.abs(margin) <= tie
    label = np.where(tied, 0.5, (margin > 0).astype(np.float64))
    return Comparisons(
        prompt=np.nonzero(measured)[0].astype(np.int64),
        a=a[measured].astype(np.int64),
        b=b[measured].astype(np.int64),
        label=label[measured],
        margin=margin[measured],
        ties=int(tied.sum()),
        missing_cells=int(np.isnan(matrix).sum()),
        skipped=int((~measured).sum()),
    )


def preferences(columns: Mapping[str, Sequence[Any]], pool: Sequence[str]) -> tuple[list[str], FloatArray]:
    """Turn the columns of a pairs dataset into one preference matrix per prompt.

    Returns the prompts in order of first appearance, and how much teacher i is preferred to teacher j, (N, n, n), 0 to
    1, NaN where the two were never compared. Several comparisons of the same two teachers on a prompt (judges who
    disagree) are averaged.

    Raises:
        InputError: a teacher is not in the pool, or a label is no number from 0 to 1.

    Example: x and y were compared twice, and each won once: preferred[0, x, y] = preferred[0, y, x] = 0.5.
    """
    rows = {prompt_id: row for row, prompt_id in enumerate(dict.fromkeys(columns["prompt_id"]))}
    place = {teacher: column for column, teacher in enumerate(pool)}
    unknown = sorted({*columns["teacher_a"], *columns["teacher_b"]} - set(place))
    if unknown:
        raise InputError(
            f"the pairs name the teacher `{unknown[0]}`, the pool holds {', '.join(pool)}; add it to `teachers`"
        )
    prompt = np.array([rows[prompt_id] for prompt_id in columns["prompt_id"]], dtype=np.int64)
    a, b = (np.array([place[t] for t in columns[f"teacher_{side}"]], dtype=np.int64) for side in "ab")
    label = np.array(columns["label"], dtype=np.float64)
    wrong = np.flatnonzero(~((label >= 0) & (label <= 1)))
    if len(wrong):
        raise InputError(
            f"the pairs hold the label {label[wrong[0]]} for prompt {columns['prompt_id'][wrong[0]]}, a number from 0 "
            "(A preferred) to 1 (B preferred) is needed; mend that row or leave it out"
        )
    shape = len(rows), len(pool), len(pool)
    votes, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(votes, (prompt, b, a), label)
    np.add.at(votes, (prompt, a, b), 1 - label)
    np.add.at(counts, (prompt, b, a), 1)
    np.add.at(counts, (prompt, a, b), 1)
    with np.errstate(invalid="ignore"):
        return list(rows), votes / counts


def win_shares(preferred: FloatArray) -> FloatArray:
    """Return the share of its comparisons that each teacher wins, (N, n, n) -> (N, n); it stands in for a reward.

    A tie counts half. NaN: the teacher was not compared on the prompt.
    """
    counts = (~np.isnan(preferred)).sum(axis=2)
    return np.where(counts, np.nansum(preferred, axis=2) / np.maximum(counts, 1), np.nan)


def _hash(text: str) -> int:
    """Return 64 bits that are the same for a text on every machine, unlike Python's own `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every input bit over the low bit (SplitMix64's finaliser); the plain xor of two hashes would not."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
