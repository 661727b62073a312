"""Which (prompt, teacher) cells of the calibration prompts to pay for, round by round.

`asked` (num_prompts, num_teachers) says which cells are paid for so far; every function here returns it with more.
`order` lists the prompts in the order in which they are drawn. Rewards are NaN where nothing is measured. A prompt
gets two cells or none: one alone is compared with nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.assignment import column_means
from persyn_hf.core.rewards import FloatArray, IntArray


BoolArray = NDArray[np.bool_]

SIGNALS = (0.1, 0.3, 0.6, 0.9)  # shares of a teacher's reward variance that features may explain; the rest is noise
DEVIATIONS = 1.0  # half-width of a predicted interval


def quota(asked: BoolArray, share: float, rounds: int, round: int) -> int:
    """Cells that this round (1, 2, ...) may add: an even part of what is left of `share` of all cells."""
    return max(0, int(share * asked.size + 1e-9) - int(asked.sum())) // (rounds - round + 1)


def first_in_full(shape: tuple[int, int], number: int, order: IntArray) -> BoolArray:
    """Every teacher on the first prompts."""
    asked = np.zeros(shape, dtype=bool)
    asked[order[: number // shape[1]]] = True
    return asked


def first_at_random(shape: tuple[int, int], number: int, order: IntArray, rng: np.random.Generator) -> BoolArray:
    """As many random teachers on every prompt as `number` allows, at least two; then not on every prompt."""
    num_prompts, num_teachers = shape
    each = min(max(2, number // num_prompts), num_teachers)
    place = rng.permuted(np.tile(np.arange(num_teachers), (num_prompts, 1)), axis=1)
    asked = np.zeros(shape, dtype=bool)
    rows = order[: number // each]
    asked[rows] = (place < each)[rows]
    return asked


def survivors(rewards: FloatArray, costs: FloatArray, keep: int) -> BoolArray:
    """Teachers that go on: the `keep` best by mean reward (ties: the cheaper, then pool order), and the specialists.

    A specialist is the best on at least half an even share of the prompts that it is measured on, 1 / (2 n), wherever
    its mean stands: what it is best on is what a router is for.
    """
    means = np.where(np.isnan(rewards).all(axis=0), -np.inf, column_means(rewards))
    alive = np.zeros(len(means), dtype=bool)
    alive[np.lexsort((costs, -means))[:keep]] = True
    best = rewards == np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1, keepdims=True, initial=-np.inf)
    wins = (best / np.maximum(best.sum(axis=1, keepdims=True), 1)).sum(axis=0)
    measured = (~np.isnan(rewards)).sum(axis=0)
    return np.asarray(alive | (wins >= np.maximum(measured, 1) / (2 * len(means))))


def halve(asked: BoolArray, number: int, order: IntArray, alive: BoolArray) -> BoolArray:
    """The teachers alive on new prompts; where these run out, on old ones, and at last the others."""
    place = np.empty(len(order))
    place[order] = np.arange(len(order)) / len(order)
    new = np.asarray(~asked.any(axis=1))
    return _add(asked, np.where(alive, 1.0 + new[:, None], 0.0) - place[:, None], number)


def contend(asked: BoolArray, number: int, rewards: FloatArray, features: Any) -> BoolArray:
    """The cells whose predicted interval reaches highest above the best prediction of their prompt.

    features (num_prompts, num_features), rows of length 1, CSR or dense.
    """
    mean, deviation = predict(rewards, features)
    value = np.where(asked, -np.inf, mean + DEVIATIONS * deviation - mean.max(axis=1, keepdims=True))
    new = ~asked.any(axis=1)
    value[new] = np.minimum(value[new], np.sort(value[new], axis=1)[:, [-2]])  # its best two come together
    return _add(asked, value, number)


def predict(rewards: FloatArray, features: Any) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every cell's expected reward: Bayesian ridge regression of each teacher.

    How much the features explain is what makes the teacher's rewards most likely.
    """
    product = features @ features.T
    kernel = np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), dtype=np.float64)
    every = rewards[~np.isnan(rewards)]
    mean, deviation = np.full(rewards.shape, every.mean()), np.full(rewards.shape, max(every.std(), 1e-3))
    for teacher, column in enumerate(rewards.T):
        rows = np.flatnonzero(~np.isnan(column))
        if len(rows) < 2:
            continue
        middle, variance = column[rows].mean(), column[rows].var() + 1e-6
        values, vectors = np.linalg.eigh(kernel[np.ix_(rows, rows)])
        turned = vectors.T @ (column[rows] - middle)
        spectra = {signal: variance * (signal * np.maximum(values, 0) + 1 - signal) for signal in SIGNALS}
        likelihood = [-float((turned**2 / spectra[share] + np.log(spectra[share])).sum()) for share in SIGNALS]
        signal = SIGNALS[int(np.argmax(likelihood))]
        cross = signal * variance * (kernel[:, rows] @ vectors)
        mean[:, teacher] = middle + cross @ (turned / spectra[signal])
        known = (cross**2 / spectra[signal]).sum(axis=1)
        spread = np.maximum(signal * variance * kernel.diagonal() - known, 0) + variance / len(rows)
        deviation[:, teacher] = np.sqrt(spread)
    return mean, deviation


def _add(asked: BoolArray, value: FloatArray, number: int) -> BoolArray:
    """The `number` unasked cells of the highest value; a cell that would stand alone in its prompt is left out."""
    more = asked.copy()
    first = np.argsort(-np.where(asked, -np.inf, value), axis=None, kind="stable")
    more.flat[first[: min(number, int((~asked).sum()))]] = True
    more[more.sum(axis=1) == 1] = False
    return more
