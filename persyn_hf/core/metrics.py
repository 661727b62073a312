"""How good a router is, prompt by prompt: scores against measured rewards, both (num_prompts, num_teachers).

Rules that hold for all of them:
- Only measured cells count: NaN in `rewards` takes the teacher out of that prompt's comparison.
- Equal scores count as a random order, by its exact expectation. So constant scores *are* the random router.
- A prompt for which a metric is undefined (nothing measured, or all rewards equal in an order metric) yields NaN.
"""

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core.pairs import TIE
from persyn_hf.core.rewards import FloatArray


def _matrices(scores: ArrayLike, rewards: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float matrices; a (n,) vector of scores stands for every prompt; unmeasured cells are NaN in both."""
    rewards = np.asarray(rewards, dtype=np.float64)
    scores = np.broadcast_to(np.asarray(scores, dtype=np.float64), rewards.shape)
    measured = ~np.isnan(rewards)
    if np.isnan(scores[measured]).any():
        raise ValueError("scores hold NaN where a reward was measured")
    return np.where(measured, scores, np.nan), rewards


def routed_share(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Probability that each teacher is chosen: 1 at the best measured score, split evenly among equals. (N, n)."""
    scores, _ = _matrices(scores, rewards)
    best = np.where(np.isnan(scores), -np.inf, scores).max(axis=1, keepdims=True)
    chosen = scores == best
    with np.errstate(invalid="ignore"):
        return chosen / chosen.sum(axis=1, keepdims=True)


def routed_reward(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Measured reward of the routed teacher. (N,)."""
    return (routed_share(scores, rewards) * np.nan_to_num(np.asarray(rewards, dtype=np.float64))).sum(axis=1)


def best_reward(rewards: ArrayLike) -> FloatArray:
    """Reward of the best measured teacher: the oracle's. (N,)."""
    return routed_reward(rewards, rewards)


def regret(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Best reward minus the reward of the routed teacher, 0 or more. (N,)."""
    return best_reward(rewards) - routed_reward(scores, rewards)


def hit_at_k(scores: ArrayLike, rewards: ArrayLike, k: int) -> FloatArray:
    """1 where the routed teacher's reward is at least the k-th best reward of the prompt, else 0. (N,).

    The paper's Hit@k; ties of reward count for the router. A random choice of n teachers hits k/n without ties.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    ordered = -np.sort(-rewards, axis=1)  # NaN last
    last = np.clip(np.minimum(k, (~np.isnan(rewards)).sum(axis=1)) - 1, 0, None)
    threshold = np.take_along_axis(ordered, last[:, None], axis=1)
    return (routed_share(scores, rewards) * (rewards >= threshold)).sum(axis=1)


def ndcg_at_k(scores: ArrayLike, rewards: ArrayLike, k: int = 3) -> FloatArray:
    """Normalised discounted cumulative gain of the first k teachers by score. (N,).

    Gain: reward above the prompt's worst (rewards may be negative); discount: 1 / log2(position + 1).
    """
    scores, rewards = _matrices(scores, rewards)
    gains = rewards - np.where(np.isnan(rewards), np.inf, rewards).min(axis=1, keepdims=True, initial=np.inf)
    found, ideal = _discounted(scores, gains, k), _discounted(gains, gains, k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ideal > 0, found / ideal, np.nan)


def _discounted(scores: FloatArray, gains: FloatArray, k: int) -> FloatArray:
    """Sum of gain * discount; teachers with equal scores share the mean discount of the places they take."""
    positions = np.arange(1, scores.shape[1] + 1)
    discounts = np.where(positions <= k, 1 / np.log2(positions + 1), 0.0)
    summed = np.concatenate([[0.0], np.cumsum(discounts)])
    before = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    discount = (summed[before + equal] - summed[before]) / np.maximum(equal, 1)
    return np.nansum(np.where(equal > 0, gains * discount, 0.0), axis=1)


def kendall_tau(scores: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """Kendall's tau-b between scores and rewards of each prompt, -1 to 1; NaN where either is constant. (N,)."""
    by_score, by_reward = (np.sign(_differences(values)) for values in _matrices(scores, rewards))
    agreement = np.nansum(by_score * by_reward, axis=1)
    pairs = np.sqrt(np.nansum(by_score**2, axis=1) * np.nansum(by_reward**2, axis=1))
    with np.errstate(invalid="ignore"):
        return agreement / pairs


def pair_accuracy(scores: ArrayLike, rewards: ArrayLike, tie: float = TIE) -> FloatArray:
    """Share of a prompt's comparisons that the scores order rightly; equal scores count half. (N,).

    Comparisons whose rewards differ by no more than `tie` have no right order and are left out.
    """
    by_score, by_reward = (_differences(values) for values in _matrices(scores, rewards))
    decided = np.abs(by_reward) > tie  # false for NaN
    right = np.where(decided, (1 + np.sign(by_score) * np.sign(by_reward)) / 2, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / decided.sum(axis=1)


def calibration_sums(scores: ArrayLike, rewards: ArrayLike, bins: int = 15) -> tuple[FloatArray, FloatArray]:
    """Per prompt: sum of (predicted - true preference) in each of `bins` bins (N, bins), number of pairs (N,).

    Predicted: sigmoid(o_i - o_j), paper Eq. 3; true: 1, 0, or 0.5 for a tie. Both orientations of every pair count,
    so the result does not hang on the order of the pool. Bins have equal width on [0, 1].
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
    """(R - R_baseline) / (R_oracle - R_baseline) of mean rewards: 0 is the baseline, 1 the oracle; NaN without gap."""
    reward, baseline, oracle = (np.asarray(value, dtype=np.float64) for value in (reward, baseline, oracle))
    gap = oracle - baseline
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gap > 1e-12, (reward - baseline) / gap, np.nan)


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """Jensen-Shannon divergence of two allocations, base 2: 0 the same, 1 disjoint. (..., n), (..., n) -> (...)."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    middle = (p + q) / 2
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2


def total_variation(p: ArrayLike, q: ArrayLike) -> FloatArray:
    """Share of prompts that must change teacher to turn one allocation into the other. (..., n) -> (...)."""
    return np.abs(np.asarray(p, dtype=np.float64) - np.asarray(q, dtype=np.float64)).sum(axis=-1) / 2


def effective_teachers(allocation: ArrayLike) -> FloatArray:
    """exp(entropy): how many teachers an even allocation of the same entropy would use. (..., n) -> (...)."""
    shares = np.asarray(allocation, dtype=np.float64)
    return np.exp(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1))


def _relative_entropy(p: FloatArray, q: FloatArray) -> FloatArray:
    return (p * np.log2(np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0))).sum(axis=-1)


def _differences(values: FloatArray) -> FloatArray:
    """Value of i minus value of j for all i < j: (N, n) -> (N, n(n-1)/2)."""
    first, second = np.triu_indices(values.shape[1], k=1)
    return values[:, first] - values[:, second]
