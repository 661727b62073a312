"""A column for a teacher that joins a trained router, from few prompts.

The score of a new teacher is the mean of the old scores, plus a bias, plus weights times their deviations from that
mean, plus weights times the prompt's features, where there are any: scores say what kind of prompt it is as far as the
old teachers differ on it, and only their differences have a meaning.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from persyn_hf.core.pairs import TIE
from persyn_hf.core.rewards import FloatArray


L2 = (10.0, 1.0, 0.1, 0.01, 1e-3)  # tried in turn, per anchor
FOLDS = 5


class Joined(NamedTuple):
    """weights (num_old, num_new), of_features (num_features, num_new), bias (num_new,); l2: as cross-validation chose.

    Without features `of_features` has no rows.
    """

    weights: FloatArray
    of_features: FloatArray
    bias: FloatArray
    l2: tuple[float, ...]

    def scores(self, old: FloatArray, features: Any = None) -> FloatArray:
        """Old scores (N, num_old), features (N, num_features) -> scores of the new teachers (N, num_new)."""
        level = old.mean(axis=1, keepdims=True)
        more = 0.0 if features is None else np.asarray(features @ self.of_features)
        return level + (old - level) @ self.weights + more + self.bias


def join(
    new: FloatArray, old: FloatArray, scores: FloatArray, scale: Literal["reward", "log_odds"], features: Any = None
) -> Joined:
    """Fit the columns of new teachers; the prompts that count are those where it and some old one are measured.

    new (N, num_new), old (N, num_old): rewards, NaN where unmeasured; scores (N, num_old): the router's; features
    (N, num_features): rows of length 1, CSR or dense. `reward`: least squares of the new teacher's lead over the old
    ones. `log_odds`: the Bradley-Terry loss of its comparisons with them.
    """
    found = [_column(column, old, scores, scale, features) for column in new.T]
    weights, of_features, bias, l2 = zip(*found, strict=True)
    return Joined(np.column_stack(weights), np.column_stack(of_features), np.array(bias), l2)


def _column(
    new: FloatArray, old: FloatArray, scores: FloatArray, scale: str, features: Any
) -> tuple[FloatArray, FloatArray, float, float]:
    lead = new[:, None] - old
    anchors = np.flatnonzero(~np.isnan(lead).all(axis=1))
    lead, scores = lead[anchors], scores[anchors]
    gaps = scores - scores.mean(axis=1, keepdims=True)  # by how much the new score must exceed the mean to win
    centre = gaps.mean(axis=0)
    unit = float(np.sqrt(((gaps - centre) ** 2).sum(axis=1).mean())) or 1.0  # rows of length 1, as those of features
    inputs = (gaps - centre) / unit
    kernel = inputs @ inputs.T
    if features is not None:
        features = features[anchors]
        product = features @ features.T
        kernel = kernel + (product if isinstance(product, np.ndarray) else product.toarray())
    # ridge on wide inputs is ridge on these coordinates, no more than there are anchors
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-9 * max(values[-1], 1e-9)
    coordinates = vectors[:, kept] * np.sqrt(values[kept])
    solved, l2 = _choose(np.column_stack([coordinates, np.ones(len(lead))]), gaps, lead, scale)
    dual = vectors[:, kept] @ (solved[:-1] / np.sqrt(values[kept]))
    weights = inputs.T @ dual / unit
    of_features = np.zeros(0) if features is None else np.asarray(features.T @ dual, dtype=np.float64)
    return weights, of_features, float(solved[-1] - centre @ weights), l2


def _choose(inputs: FloatArray, gaps: FloatArray, lead: FloatArray, scale: str) -> tuple[FloatArray, float]:
    """Weights at the regularisation of the least loss on the folds left out; ties go to the strongest."""
    fold = np.arange(len(lead)) % FOLDS
    losses = []
    for l2 in L2:
        left_out = 0.0
        for k in range(FOLDS):
            solved = _solve(inputs[fold != k], gaps[fold != k], lead[fold != k], scale, l2)
            left_out += _loss(inputs[fold == k] @ solved, gaps[fold == k], lead[fold == k], scale)[0].sum()
        losses.append(left_out)
    best = L2[int(np.argmin(losses))]
    return _solve(inputs, gaps, lead, scale, best), best


def _solve(inputs: FloatArray, gaps: FloatArray, lead: FloatArray, scale: str, l2: float) -> FloatArray:
    """Least mean loss + l2 / 2 |weights|^2; the last weight, the bias, goes free.

    A router that is sure of itself has log-odds far apart, and a new score must move as far: weights count in units
    of the root mean square of `gaps` where that is above 1.
    """
    unit = max(1.0, float(np.sqrt((gaps**2).mean()))) if scale == "log_odds" else 1.0
    penalty = np.array([*np.full(inputs.shape[1] - 1, l2), 0.0])

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        losses, slopes = _loss(unit * (inputs @ weights), gaps, lead, scale)
        gradient = unit * (inputs.T @ slopes) / len(inputs) + penalty * weights
        return float(losses.mean() + penalty @ weights**2 / 2), gradient

    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(objective, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return unit * np.asarray(found.x, dtype=np.float64)


def _loss(score: FloatArray, gaps: FloatArray, lead: FloatArray, scale: str) -> tuple[FloatArray, FloatArray]:
    """Loss of each prompt, the mean over its measured comparisons, and its derivative. (N,) each."""
    if scale == "reward":
        error = score - np.nanmean(lead + gaps, axis=1)
        return error**2 / 2, error
    margin = score[:, None] - gaps
    losses = np.logaddexp(0, -margin) + (1 - _preferred(lead)) * margin
    return np.nanmean(losses, axis=1), np.nanmean(expit(margin) - _preferred(lead), axis=1)


def _preferred(lead: FloatArray) -> FloatArray:
    """1 where the new teacher is preferred, 0 where the old one is, 0.5 for a tie, NaN where not compared."""
    return np.where(np.isnan(lead), np.nan, np.where(np.abs(lead) <= TIE, 0.5, (lead > 0).astype(np.float64)))
