"""Learn on dev what a router's scores mean: how sure it is of its choice, and what a score is worth in reward.

On model results and on synthetic rewards a logistic curve over the margin was calibrated best on held-out prompts; the
softmax of the scores, with or without a fitted temperature, and isotonic regression of a few hundred prompts were not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persyn_hf.core.arrays import FloatArray


FOLDS = 5
STEPS = 50  # of Newton's method, which needs about ten


class Curve(NamedTuple):
    """The probability 1 / (1 + exp(-(intercept + slope * margin))) that a choice is near the best; slope >= 0.

    Example: intercept 0 and slope 2 give 0.5 at margin 0 and 0.731 at margin 0.5.
    """

    intercept: float
    slope: float

    def __call__(self, margin: ArrayLike) -> FloatArray:
        exponent = self.intercept + self.slope * np.asarray(margin, dtype=np.float64)
        return 1 / (1 + np.exp(-np.clip(exponent, -500, 500)))


class Worth(NamedTuple):
    """The expected reward of a teacher for a prompt: level + scale * (its score minus the prompt's mean score)."""

    level: float
    scale: float


def near_best(teacher: ArrayLike, rewards: ArrayLike, epsilon: float) -> FloatArray:
    """Return 1 where the chosen teacher's reward is within `epsilon` of the prompt's best, else 0; NaN: not measured.

    teacher (N,): indices; rewards (N, n), NaN where not measured. Returns (N,).
    """
    matrix = np.asarray(rewards, dtype=np.float64)
    reward = np.take_along_axis(matrix, np.asarray(teacher, dtype=np.int64)[:, None], axis=1)[:, 0]
    best = np.where(np.isnan(matrix), -np.inf, matrix).max(axis=1)
    return np.where(np.isnan(reward), np.nan, (reward >= best - epsilon - 1e-12).astype(np.float64))


def fit_curve(margin: ArrayLike, near: ArrayLike) -> Curve:
    """Fit the probability of `near` over the margin, (N,) each, by Platt's method.

    Targets are smoothed, and the slope per standard deviation of the margin has a unit normal prior. A slope below 0
    would be noise, the more so the fewer prompts there are: the curve is then flat, at the (smoothed) share of `near`.
    """
    x, y = np.asarray(margin, dtype=np.float64), np.asarray(near, dtype=np.float64)
    centre, width = x.mean(), x.std() or 1.0
    z = (x - centre) / width
    positives, negatives = y.sum(), (1 - y).sum()
    target = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean = target.mean()
    flat = float(np.log(mean / (1 - mean)))
    design, weights = np.column_stack([np.ones_like(z), z]), np.array([flat, 0.0])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - target) + [0.0, weights[1]]
        curvature = (design.T * (p * (1 - p))) @ design + np.diag([1e-12, 1.0])
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    if weights[1] <= 0:
        return Curve(flat, 0.0)
    return Curve(float(weights[0] - weights[1] * centre / width), float(weights[1] / width))


def held_out(margin: ArrayLike, near: ArrayLike) -> FloatArray:
    """Return the probability of each prompt, (N,), by a curve that was fitted on the other folds."""
    x, y = np.asarray(margin, dtype=np.float64), np.asarray(near, dtype=np.float64)
    fold = np.arange(len(x)) % FOLDS
    probability = np.empty(len(x))
    for number in range(FOLDS):
        here = fold == number
        probability[here] = fit_curve(x[~here], y[~here])(x[here])
    return probability


def top_softmax(scores: ArrayLike) -> FloatArray:
    """Return the probability of the best teacher under the softmax of the scores, (N, n) -> (N,)."""
    matrix = np.asarray(scores, dtype=np.float64)
    return 1 / np.exp(matrix - matrix.max(axis=1, keepdims=True)).sum(axis=1)


def reliability(predicted: ArrayLike, near: ArrayLike, bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error over bins of equal width on [0, 1], and the bins that hold prompts.

    predicted (N,): probabilities; near (N,): what came true, 0 to 1. A bin says where it begins (`from`), its mean
    prediction, its mean truth (`found`) and its number of prompts.
    """
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(near, dtype=np.float64)
    bin_of: NDArray[np.int64] = np.minimum((p * bins).astype(np.int64), bins - 1)
    rows, gaps = [], 0.0
    for number in np.unique(bin_of).tolist():
        here = bin_of == number
        gaps += abs(float((p - y)[here].sum()))
        means = {"predicted": float(p[here].mean()), "found": float(y[here].mean())}
        rows.append({"from": number / bins, **means, "prompts": int(here.sum())})
    return gaps / max(len(p), 1), rows


def worth(scores: ArrayLike, rewards: ArrayLike) -> Worth | None:
    """Fit by least squares how much reward a score is worth within a prompt; scores and rewards (N, n).

    NaN rewards are left out, as are prompts with fewer than two. Returns None where higher scores do not go with
    higher rewards, or nothing was measured. Example: scores [0, 2] and rewards [0.5, 0.9] give level 0.7 and scale
    0.2.
    """
    y = np.asarray(rewards, dtype=np.float64)
    measured = ~np.isnan(y)
    compared = measured.sum(axis=1) >= 2
    y, measured = y[compared], measured[compared]
    x = np.where(measured, np.asarray(scores, dtype=np.float64)[compared], np.nan)
    if not len(y):
        return None
    x, centred = (values - np.nanmean(values, axis=1, keepdims=True) for values in (x, y))
    square = float(np.nansum(x**2))
    scale = float(np.nansum(x * centred)) / square if square else 0.0
    return Worth(float(np.nanmean(y, axis=1).mean()), scale) if scale > 0 else None
