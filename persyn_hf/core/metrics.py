"""Measure how good a router is, prompt by prompt: scores against rewards, both (num_prompts, num_teachers).

Rules that hold for all metrics:

- Only measured cells count: NaN in `rewards` takes the teacher out of that prompt's comparison.
- Equal scores count as a random order, by its exact expectation. So constant scores *are* the random router.
- A prompt for which a metric is undefined (nothing measured, or all rewards equal in an order metric) yields NaN.
- A vector of scores (num_teachers,) stands for every prompt.

Example, used below: one prompt, four teachers, scores [0.3, 0.9, 0.9, 0.1] and rewards [1.0, 0.4, 0.8, 0.8]. The
router is torn between the teachers 1 and 2, so each is chosen with probability 1/2.
"""

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.pairs import TIE


def _matrices(scores: ArrayLike, rewards: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return scores and rewards as float matrices (N, n) with NaN in both where a cell is not measured."""
    rewards = np.asarray(rewards, dtype=np.float64)
    scores = np.broadcast_to(np.asarray(scores, dtype=np.float64), rewards.shape)
    measured = ~np.isnan(rewards)
    if np.isnan(scores[measured]).any():
        raise ValueError("scores hold NaN where a reward was measured")
    return np.where(measured, scores, np.nan), rewards


def routed_share(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Return the probability that each teacher is chosen, (N, n): 1 at the best measured score, split among equals.

    Example (see the top of this file): [0, 0.5, 0.5, 0].
    """
    scores, _ = _matrices(scores, rewards)
    best = np.where(np.isnan(scores), -np.inf, scores).max(axis=1, keepdims=True)
    chosen = scores == best
    with np.errstate(invalid="ignore"):
        return chosen / chosen.sum(axis=1, keepdims=True)


def routed_reward(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Return the expected reward of the routed teacher, (N,). In the example it is (0.4 + 0.8) / 2 = 0.6."""
    return (routed_share(scores, rewards) * np.nan_to_num(np.asarray(rewards, dtype=np.float64))).sum(axis=1)


def best_reward(rewards: ArrayLike) -> FloatArray:
    """Return the reward of the best measured teacher, (N,): what an oracle gets. In the example 1.0."""
    return routed_reward(rewards, rewards)


def regret(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Return the best reward minus that of the routed teacher, (N,), 0 or more. In the example 1.0 - 0.6 = 0.4."""
    return best_reward(rewards) - routed_reward(scores, rewards)


def hit_at_k(scores: ArrayLike, rewards: ArrayLike, k: int) -> FloatArray:
    """Return the paper's Hit@k, (N,): 1 where the routed teacher's reward is at least the prompt's k-th best reward.

    Ties of reward count for the router: all teachers whose reward equals the k-th best are hits, so there may be more
    than k. Without ties a random choice among n teachers has an expected Hit@k of k/n. Where fewer than k teachers are
    measured, each of them is a hit.

    Example (see the top of this file): the second best reward is 0.8, which teacher 2 has and teacher 1 has not. So
    Hit@2 is 0.5. Hit@1 is 0, for the best reward is 1.0.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    ordered = -np.sort(-rewards, axis=1)  # NaN last
    last = np.clip(np.minimum(k, (~np.isnan(rewards)).sum(axis=1)) - 1, 0, None)
    threshold = np.take_along_axis(ordered, last[:, None], axis=1)
    return (routed_share(scores, rewards) * (rewards >= threshold)).sum(axis=1)


def ndcg_at_k(scores: ArrayLike, rewards: ArrayLike, k: int = 3) -> FloatArray:
    """Return the normalised discounted cumulative gain of the first k teachers by score, (N,), 0 to 1.

    The gain of a teacher is its reward above the prompt's worst reward (rewards may be negative). The discount of
    position 1, 2, ... is 1 / log2(position + 1). The sum is divided by that of the best order; NaN where all rewards
    are equal.

    Example: scores [3, 2, 1], rewards [0.2, 1.0, 0.6], k 3. The gains are [0, 0.8, 0.4]. The sum is 0 + 0.8 / log2(3)
    + 0.4 / 2 = 0.7047, the best order has 0.8 + 0.4 / log2(3) = 1.0524, and the result is 0.6697.
    """
    scores, rewards = _matrices(scores, rewards)
    gains = rewards - np.where(np.isnan(rewards), np.inf, rewards).min(axis=1, keepdims=True, initial=np.inf)
    achieved, ideal = _discounted(scores, gains, k), _discounted(gains, gains, k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ideal > 0, achieved / ideal, np.nan)


def _discounted(scores: FloatArray, gains: FloatArray, k: int) -> FloatArray:
    """Sum gain * discount over each prompt's teachers, (N,); equal scores share the mean discount of their places."""
    positions = np.arange(1, scores.shape[1] + 1)
    discounts = np.where(positions <= k, 1 / np.log2(positions + 1), 0.0)
    summed = np.concatenate([[0.0], np.cumsum(discounts)])
    before = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    discount = (summed[before + equal] - summed[before]) / np.maximum(equal, 1)
    return np.nansum(np.where(equal > 0, gains * discount, 0.0), axis=1)


def kendall_tau(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Return Kendall's tau-b between the scores and rewards of each prompt, (N,), -1 to 1; NaN where one is constant.

    Example (see the top of this file): of the six pairs one agrees, three disagree, one ties in score and one in
    reward: (1 - 3) / sqrt(5 * 5) = -0.4.
    """
    by_score, by_reward = (np.sign(_differences(values)) for values in _matrices(scores, rewards))
    agreement = np.nansum(by_score * by_reward, axis=1)
    pairs = np.sqrt(np.nansum(by_score**2, axis=1) * np.nansum(by_reward**2, axis=1))
    with np.errstate(invalid="ignore"):
        return agreement / pairs


def pair_accuracy(scores: ArrayLike, rewards: ArrayLike, tie: float = TIE) -> FloatArray:
    """Return the share of each prompt's comparisons that the scores order rightly, (N,); equal scores count half.

    Comparisons whose rewards differ by no more than `tie` have no right order and are left out.

    Example (see the top of this file): five comparisons count, one is right and one ties in score: 1.5 / 5 = 0.3.
    """
    by_score, by_reward = (_differences(values) for values in _matrices(scores, rewards))
    decided = np.abs(by_reward) > tie  # false for NaN
    right = np.where(decided, (1 + np.sign(by_score) * np.sign(by_reward)) / 2, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / decided.sum(axis=1)


def calibration_sums(scores: ArrayLike, rewards: ArrayLike, bins: int = 15) -> tuple[FloatArray, FloatArray]:
    """Sum the calibration errors of each prompt's comparisons by bin of the prediction.

    The prediction is sigmoid(o_i - o_j), the paper's Eq. 3; the truth is 1, 0, or 0.5 for a tie. Both orientations of
    every pair count, so the result does not depend on the order of the pool. Bins have equal width on [0, 1].

    Returns the sum of (prediction - truth) in each bin, (N, bins), and the number of comparisons, (N,).
    """
    by_score, by_reward = (_differences(values) for values in _matrices(scores, rewards))
    measured = ~np.isnan(by_reward)
    predicted = 1 / (1 + np.exp(-np.clip(np.where(measured, by_score, 0.0), -500, 500)))
    true = np.where(np.abs(by_reward) <= TIE, 0.5, (by_reward > 0).astype(np.float64))
    sums = np.zeros((len(predicted), bins))
    rows = np.broadcast_to(np.arange(len(predicted))[:, None], predicted.shape)
    for p, y in ((predicted, true), (1 - predicted, 1 - true)):
        bin_of = np.minimum((p * bins).astype(int), bins - 1)
        np.add.at(sums, (rows[measured], bin_of[measured]), (p - y)[measured])
    return sums, 2.0 * measured.sum(axis=1)


def gap_closed(reward: ArrayLike, baseline: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """Return the share of the gap from baseline to oracle that mean rewards close: 0 is the baseline, 1 the oracle.

    It is (reward - baseline) / (oracle - baseline), elementwise; NaN where there is no gap. Example: mean rewards 0.7,
    0.5 and 0.9 give 0.5. It is negative where the router does worse than the baseline.
    """
    reward, baseline, oracle = (np.asarray(value, dtype=np.float64) for value in (reward, baseline, oracle))
    gap = oracle - baseline
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gap > 1e-12, (reward - baseline) / gap, np.nan)


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """Return the Jensen-Shannon divergence of two allocations (..., n) in bits, (...): 0 the same, 1 disjoint."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    middle = (p + q) / 2
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2


def total_variation(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """Return the share of prompts that must change teacher to turn allocation p into q, (..., n), (..., n) -> (...).

    Example: [0.7, 0.3] and [0.5, 0.5] differ by 0.2.
    """
    return np.abs(np.asarray(p, dtype=np.float64) - np.asarray(q, dtype=np.float64)).sum(axis=-1) / 2


def effective_teachers(allocation: ArrayLike) -> FloatArray:
    """Return exp(entropy) of an allocation, (..., n) -> (...): as many teachers in even use have the same entropy.

    Example: [0.5, 0.5, 0] has 2 effective teachers.
    """
    shares = np.asarray(allocation, dtype=np.float64)
    return np.exp(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1))


def _relative_entropy(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return the Kullback-Leibler divergence of p from q in bits, (..., n), (..., n) -> (...)."""
    return (p * np.log2(np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0))).sum(axis=-1)


def _differences(values: FloatArray) -> FloatArray:
    """Return the value of i minus the value of j for all i < j, (N, n) -> (N, n(n-1)/2)."""
    first, second = np.triu_indices(values.shape[1], k=1)
    return values[:, first] - values[:, second]
