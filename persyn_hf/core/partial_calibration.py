"""Choose which (prompt, teacher) cells of the calibration prompts to pay for, round by round.

`asked` (num_prompts, num_teachers) says which cells are paid for so far; the functions return it with more cells.
`order` (num_prompts,) lists the prompts in the order in which they are drawn. Rewards are NaN where nothing is
measured. A prompt gets at least two cells or none: one cell alone is compared with nothing.

Three strategies share the rounds and their `quota`:

- Whole prompts asks every teacher on some prompts (`first_in_full`), in later rounds on new ones (`more_in_full`).
- Successive halving asks every teacher on the first prompts (`first_in_full`). Each later round keeps the better half
  of the teachers (`survivors`) and asks these on new prompts (`halve`).
- Uncertainty asks a few random teachers on many prompts (`first_at_random`). Each later round asks the cells that may
  still turn out to be the best of their prompt (`contend`).

Where a budget limits the cells, the first round is small and asks every teacher equally often (`first_evenly`), which
tells the price of a cell by teacher. Later rounds spend an `allowance`.
"""

from typing import Any

import numpy as np

from persyn_hf.core.arrays import BoolArray, FloatArray, IntArray
from persyn_hf.core.assignment import column_means
from persyn_hf.core.priors import fit_prior, means_with


SIGNALS = (0.1, 0.3, 0.6, 0.9)  # shares of a teacher's reward variance that features may explain; the rest is noise
DEVIATIONS = 1.0  # half-width of a predicted interval, in standard deviations


def allowance(total: float, spent: float, rounds: int, round: int) -> float:
    """Return what this round (2 to `rounds`) may spend: an even part of what is left of `total`, 0 at least.

    Example: the first of three rounds has spent 100 of 1,000. The second may spend 450. If it spends 400, the third
    may spend 500.
    """
    return max(0.0, total - spent) / (rounds - round + 1)


def quota(asked: BoolArray, share: float, rounds: int, round: int) -> int:
    """Return how many cells this round (1 to `rounds`) may add: an even part of what is left of `share` of all cells.

    Example: 100 prompts and 5 teachers are 500 cells, and a share of 0.4 pays for 200. Of three rounds the first may
    add 200 // 3 = 66, the second 134 // 2 = 67, the third 67. A round that adds fewer leaves the rest to later ones.
    """
    return max(0, int(share * asked.size + 1e-9) - int(asked.sum())) // (rounds - round + 1)


def first_in_full(shape: tuple[int, int], number: int, order: IntArray) -> BoolArray:
    """Ask every teacher on the first prompts of `order`, as many as `number` cells allow."""
    asked = np.zeros(shape, dtype=bool)
    asked[order[: number // shape[1]]] = True
    return asked


def first_at_random(shape: tuple[int, int], number: int, order: IntArray, rng: np.random.Generator) -> BoolArray:
    """Ask random teachers on every prompt, as many on each as `number` cells allow.

    Where they do not allow two, two are asked on the first prompts of `order` only. Example: 7 cells for 5 prompts are
    2 teachers on each of 3 prompts.
    """
    num_prompts, num_teachers = shape
    each = min(max(2, number // num_prompts), num_teachers)
    place = rng.permuted(np.tile(np.arange(num_teachers), (num_prompts, 1)), axis=1)
    asked = np.zeros(shape, dtype=bool)
    rows = order[: number // each]
    asked[rows] = (place < each)[rows]
    return asked


def first_evenly(shape: tuple[int, int], number: int, order: IntArray, rng: np.random.Generator) -> BoolArray:
    """Ask every teacher equally often, two or more of them on each prompt, with about `number` cells.

    So the cost of each teacher's answers is known after the round. Prompts come in `order`. Example: of 3 teachers and
    6 cells, the prompts get the teachers 2 and 0, 1 and 2, 0 and 1, as the lot has it: two cells of each.
    """
    num_prompts, num_teachers = shape
    each = min(max(2, number // num_prompts), num_teachers)
    asked = np.zeros(shape, dtype=bool)
    for place, row in enumerate(order[: number // each]):
        if place % num_teachers == 0:
            dealt = rng.permutation(num_teachers)
        asked[row, dealt[(each * place + np.arange(each)) % num_teachers]] = True
    return asked


def more_in_full(asked: BoolArray, number: float, order: IntArray, price: FloatArray | None = None) -> BoolArray:
    """Ask every teacher on new prompts, in `order`, as many as `number` pays for at `price` (n,) a cell, None: 1 each.

    Example: with three teachers and `order` [2, 0, 3, 1], prompt 2 was asked; 7 more cells are the prompts 0 and 3.
    """
    new = order[~asked[order].any(axis=1)]
    extended = asked.copy()
    extended[new[: int(number // (asked.shape[1] if price is None else price.sum()))]] = True
    return extended


def survivors(rewards: FloatArray, costs: FloatArray, keep: int, prior: FloatArray | None = None) -> BoolArray:
    """Choose the teachers that go on, (n,) booleans: the `keep` best by mean reward, and the specialists.

    Equal means go by lower `costs` (n,), then by pool order. A specialist is the best on at least half an even share
    of the prompts that it is measured on, 1 / (2 n) of them, whatever its mean: a router is for what it is best at.
    With a `prior` (N, n) the means have its pseudo-counts.

    Example: four teachers, `keep` 2. The two best means stay. Of the other two, one that is best on 10 of its 80
    prompts stays as well, for 10 / 80 = 1 / (2 * 4); one that is best on 9 leaves.
    """
    measured_means = column_means(rewards) if prior is None else means_with(fit_prior(prior, rewards), rewards)
    means = np.where(np.isnan(rewards).all(axis=0), -np.inf, measured_means)
    alive = np.zeros(len(means), dtype=bool)
    alive[np.lexsort((costs, -means))[:keep]] = True
    best = rewards == np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1, keepdims=True, initial=-np.inf)
    wins = (best / np.maximum(best.sum(axis=1, keepdims=True), 1)).sum(axis=0)
    measured = (~np.isnan(rewards)).sum(axis=0)
    return np.asarray(alive | (wins >= np.maximum(measured, 1) / (2 * len(means))))


def halve(
    asked: BoolArray, number: float, order: IntArray, alive: BoolArray, price: FloatArray | None = None
) -> BoolArray:
    """Ask the teachers `alive` (n,) on new prompts; where these run out, on old ones; at last the other teachers.

    Prompts come in `order`. Example: with three teachers and `order` [2, 0, 3, 1], the first round asked all three on
    prompt 2. With the first two alive, 4 more cells are these two on the prompts 0 and 3.
    """
    place = np.empty(len(order))
    place[order] = np.arange(len(order)) / len(order)
    new = np.asarray(~asked.any(axis=1))
    return _add(asked, np.where(alive, 1.0 + new[:, None], 0.0) - place[:, None], number, price)


def contend(
    asked: BoolArray,
    number: float,
    rewards: FloatArray,
    features: Any,
    price: FloatArray | None = None,
    prior: FloatArray | None = None,
) -> BoolArray:
    """Ask the cells that contend most: whose predicted interval reaches highest above the prompt's best prediction.

    features (num_prompts, num_features): rows of length 1, CSR or dense. The value of a cell is its predicted mean +
    `DEVIATIONS` standard deviations - the best predicted mean of its prompt. So a cell is asked where it may well be
    the best, either because it is expected to be or because little is known of it. On a new prompt the best cell gets
    the value of the second best, so that the two are asked together: one alone would be compared with nothing.

    Example: on two prompts the teachers A and B were measured, with mean rewards 0.85 and 0.2; C never was. C's reward
    is predicted as the mean of all, 0.525, with a deviation of 0.3345. Its value on these prompts is 0.525 + 0.3345 -
    0.85 = 0.0095. On new prompts the values are 0.038 for A, brought down to C's 0.0095, and -0.57 for B. So C is
    asked first where A was, then A and C together on new prompts; B is asked last.
    """
    mean, deviation = predict(rewards, features, prior)
    value = np.where(asked, -np.inf, mean + DEVIATIONS * deviation - mean.max(axis=1, keepdims=True))
    new = ~asked.any(axis=1)
    value[new] = np.minimum(value[new], np.sort(value[new], axis=1)[:, [-2]])  # its best two come together
    return _add(asked, value, number, price)


def predict(rewards: FloatArray, features: Any, prior: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Predict every cell's expected reward by a Bayesian ridge regression of each teacher on the prompts' features.

    The share of the reward's variance that features explain is one of `SIGNALS`: the one by which the teacher's
    measured rewards are most likely. A teacher with fewer than two measured rewards is predicted as the mean of all.
    With a `prior` (num_prompts, num_teachers), NaN where it knows nothing, the regression is of what rewards are above
    what `priors.fit_prior` expects, and each teacher's mean has its pseudo-counts.

    Returns the means and their standard deviations, (num_prompts, num_teachers) each.
    """
    product = features @ features.T
    kernel = np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), dtype=np.float64)
    expected, count = np.zeros(rewards.shape), np.zeros(rewards.shape[1])
    if prior is not None and (fitted := fit_prior(prior, rewards)).slope:
        expected, count = fitted.expected, fitted.counts
    rewards = rewards - expected
    every = rewards[~np.isnan(rewards)]
    mean, deviation = np.full(rewards.shape, every.mean()), np.full(rewards.shape, max(every.std(), 1e-3))
    for teacher, column in enumerate(rewards.T):
        rows = np.flatnonzero(~np.isnan(column))
        if len(rows) < 2:
            continue
        number = len(rows) + count[teacher]
        middle, variance = column[rows].mean() * (len(rows) / number), column[rows].var() + 1e-6
        values, vectors = np.linalg.eigh(kernel[np.ix_(rows, rows)])
        turned = vectors.T @ (column[rows] - middle)
        spectra = {signal: variance * (signal * np.maximum(values, 0) + 1 - signal) for signal in SIGNALS}
        likelihood = [-float((turned**2 / spectra[share] + np.log(spectra[share])).sum()) for share in SIGNALS]
        signal = SIGNALS[int(np.argmax(likelihood))]
        cross = signal * variance * (kernel[:, rows] @ vectors)
        mean[:, teacher] = middle + cross @ (turned / spectra[signal])
        explained = (cross**2 / spectra[signal]).sum(axis=1)
        spread = np.maximum(signal * variance * kernel.diagonal() - explained, 0) + variance / number
        deviation[:, teacher] = np.sqrt(spread)
    return mean + expected, deviation


def _add(asked: BoolArray, value: FloatArray, number: float, price: FloatArray | None = None) -> BoolArray:
    """Add the unasked cells of the highest value that `number` pays for; one that would stand alone is left out.

    price (n,): of a cell by teacher; None: 1 each. What is paid for is the first cells by value, whose prices sum to
    `number` at most: by value per price, cheap teachers would be asked where they cannot be the best.
    """
    extended = asked.copy()
    first = np.argsort(-np.where(asked, -np.inf, value), axis=None, kind="stable")[: int((~asked).sum())]
    prices = np.ones(asked.shape[1]) if price is None else price
    extended.flat[first[np.cumsum(prices[first % asked.shape[1]]) <= number]] = True
    extended[extended.sum(axis=1) == 1] = False
    return extended
