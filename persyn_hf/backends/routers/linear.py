"""Train linear heads: `logistic` on all comparisons of a prompt (the loss of `llm`), `ridge` on the rewards."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from persyn_hf.backends.routers import RouterSettings, Scale
from persyn_hf.backends.routers.heads import Split, choose
from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.pairs import TIE
from persyn_hf.errors import require


class Linear:
    """The linear head: scores = features @ weights + bias."""

    def __init__(self, weights: FloatArray, bias: FloatArray, scale: Scale) -> None:
        self.weights = weights  # (num_features, num_teachers)
        self.bias = bias  # (num_teachers,)
        self.scale: Scale = scale

    def scores(self, features: Any) -> FloatArray:
        return np.asarray(features @ self.weights + self.bias)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], scale: Scale) -> "Linear":
        return cls(arrays["weights"], arrays["bias"], scale)


def fit_logistic(
    settings: RouterSettings, train: Split, validation: Split | None, seed: int
) -> tuple[Linear, dict[str, Any]]:
    """Minimise mean loss + l2 / 2 |weights|^2, for the strongest `l2` first and each from where the last one ended.

    Returns the head of the chosen `l2` and its training record.
    """
    num_features, num_teachers = train.features.shape[1], train.rewards.shape[1]
    start = np.zeros((num_features + 1, num_teachers))
    compared = _Comparisons(train.rewards, settings)

    def make(l2: float) -> Linear:
        nonlocal start
        start = _solve(train.features, compared, l2, start)
        return _unmeasured_last(Linear(start[:-1], start[-1], "log_odds"), train.rewards)

    def loss(scores: FloatArray, rewards: FloatArray) -> float:
        return _Comparisons(rewards, settings).loss(scores)[0]

    grid = sorted(set(settings.l2), reverse=True)
    return choose("l2", grid, make, validation, loss)


def fit_ridge(
    settings: RouterSettings, train: Split, validation: Split | None, seed: int
) -> tuple[Linear, dict[str, Any]]:
    """Minimise mean squared error / 2 + l2 / 2 |weights|^2 for each teacher over its measured prompts.

    Returns the head of the chosen `l2` and its training record.
    """
    from sklearn.linear_model import Ridge

    measured = ~np.isnan(train.rewards)
    patterns, pattern_of = np.unique(measured, axis=1, return_inverse=True)  # teachers measured alike share one solve

    def make(l2: float) -> Linear:
        weights = np.zeros((train.features.shape[1], train.rewards.shape[1]))
        bias = np.zeros(train.rewards.shape[1])
        for number, rows in enumerate(patterns.T):
            teachers = pattern_of == number
            if rows.any():
                solved = Ridge(alpha=l2 * rows.sum(), tol=1e-10).fit(
                    train.features[rows], train.rewards[np.ix_(rows, teachers)]
                )
                weights[:, teachers] = solved.coef_.reshape(teachers.sum(), -1).T  # flat for one teacher
                bias[teachers] = solved.intercept_
        return _unmeasured_last(Linear(weights, bias, "reward"), train.rewards)

    grid = sorted(set(settings.ridge_l2), reverse=True)
    return choose("ridge_l2", grid, make, validation)


def _unmeasured_last(head: Linear, rewards: FloatArray) -> Linear:
    """Put a teacher without any reward below the others on every prompt: |features @ w| is at most |w|."""
    measured = ~np.isnan(rewards).all(axis=0)
    lowest = (head.bias - np.linalg.norm(head.weights, axis=0))[measured].min()
    return Linear(head.weights, np.where(measured, head.bias, lowest - 1.0), head.scale)


class _Comparisons:
    """The comparisons of all prompts.

    `loss` is the mean loss of `llm_data.mean_loss` with its gradient, computed without torch: each call is short, and
    threads that wait for one another made it five times slower on a busy machine.
    """

    def __init__(self, rewards: FloatArray, settings: RouterSettings) -> None:
        first, second = np.triu_indices(rewards.shape[1], k=1)
        of_teachers = np.eye(rewards.shape[1])
        self.signs = of_teachers[first] - of_teachers[second]  # (num_pairs, num_teachers)
        preferred = _preferred(rewards, first, second, settings)
        is_compared = ~np.isnan(preferred)
        number = is_compared.sum(axis=1, keepdims=True)
        self.targets = np.nan_to_num(preferred)
        self.weights = is_compared / np.maximum(number, 1) / max((number > 0).sum(), 1)

    def loss(self, scores: FloatArray) -> tuple[float, FloatArray]:
        """Compute the loss and its gradient with respect to the scores (N, n)."""
        from scipy.special import expit

        gap = scores @ self.signs.T
        value = float((self.weights * (np.logaddexp(0, gap) - self.targets * gap)).sum())
        return value, (self.weights * (expit(gap) - self.targets)) @ self.signs


def _preferred(rewards: FloatArray, first: IntArray, second: IntArray, settings: RouterSettings) -> FloatArray:
    """Return how much teacher `first` is preferred to `second` (N, pairs), as `core.bradley_terry` has it.

    Only soft preferences ask torch, whose sigmoid may have another last digit than others'.
    """
    if settings.objective == "bt":
        gap = rewards[:, first] - rewards[:, second]
        return np.where(np.isnan(gap), gap, np.where(np.abs(gap) <= TIE, 0.5, gap > 0))
    torch = require("torch", extra="models", feature=f"a logistic router with the objective {settings.objective}")
    from persyn_hf.core.bradley_terry import preferences

    soft: FloatArray = preferences(torch.tensor(rewards), settings.objective, settings.tau).numpy()
    return soft[:, first, second]


def _solve(features: Any, compared: _Comparisons, l2: float, start: FloatArray) -> FloatArray:
    """Minimise by L-BFGS from `start` (num_features + 1, n); its last row is the bias, which l2 does not touch."""
    from scipy.optimize import minimize

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        head = flat.reshape(start.shape)
        weights, bias = head[:-1], head[-1]
        loss, by_score = compared.loss(features @ weights + bias)
        gradient = np.vstack([features.T @ by_score + l2 * weights, by_score.sum(axis=0)])
        return loss + l2 / 2 * float((weights**2).sum()), gradient.ravel()

    solution = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(solution.x).reshape(start.shape)
