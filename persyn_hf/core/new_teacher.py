"""Fit the column of a teacher that joins a trained router, from few prompts.

The score of a new teacher for a prompt is the mean of the old teachers' scores + a bias + weights times the deviations
of the old scores from that mean + weights times the prompt's features, where there are any. The old scores tell what
kind of prompt it is as far as the old teachers differ on it. Only their differences have a meaning, hence the mean.

Example: old scores (1, 3) have the mean 2 and the deviations (-1, 1). Weights (0, 0.5) and a bias of 0.1 give the new
teacher 2 + 0.5 + 0.1 = 2.6.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.pairs import TIE


L2 = (10.0, 1.0, 0.1, 0.01, 1e-3)  # strengths of the penalty that are tried, per anchor (a prompt to learn from)
FOLDS = 5  # of the cross-validation that chooses among them


class Joined(NamedTuple):
    """The columns of new teachers, one column of each matrix per new teacher.

    weights (num_old, num_new): of the old scores' deviations. of_features (num_features, num_new): weights of
    features, no rows where there are none. bias (num_new,). l2: the penalty that cross-validation chose for each.
    """

    weights: FloatArray
    of_features: FloatArray
    bias: FloatArray
    l2: tuple[float, ...]

    def scores(self, old: FloatArray, features: Any = None) -> FloatArray:
        """Return the scores of the new teachers, (N, num_new), from old scores (N, num_old) and features.

        features (N, num_features): CSR or dense; None where the columns were fitted without.
        """
        level = old.mean(axis=1, keepdims=True)
        from_features = 0.0 if features is None else np.asarray(features @ self.of_features)
        return level + (old - level) @ self.weights + from_features + self.bias


def join(
    new: FloatArray, old: FloatArray, scores: FloatArray, scale: Literal["reward", "log_odds"], features: Any = None
) -> Joined:
    """Fit the columns of new teachers.

    Args:
        new, old: rewards (N, num_new) and (N, num_old), NaN where unmeasured. A prompt counts for a new teacher where
            it and at least one old teacher are measured.
        scores: (N, num_old), the router's.
        scale: `reward`: least squares of the new teacher's lead over the old ones. `log_odds`: the Bradley-Terry loss
            of its comparisons with them.
        features: (N, num_features), rows of length 1, CSR or dense; None: scores alone.
    """
    columns = [_column(column, old, scores, scale, features) for column in new.T]
    weights, of_features, bias, l2 = zip(*columns, strict=True)
    return Joined(np.column_stack(weights), np.column_stack(of_features), np.array(bias), l2)


def _column(
    new: FloatArray, old: FloatArray, scores: FloatArray, scale: str, features: Any
) -> tuple[FloatArray, FloatArray, float, float]:
    """Fit one new teacher, rewards (N,); returns its weights, feature weights, bias and penalty."""
    lead = new[:, None] - old
    anchors = np.flatnonzero(~np.isnan(lead).all(axis=1))
    lead, scores = lead[anchors], scores[anchors]
    gaps = scores - scores.mean(axis=1, keepdims=True)  # by how much the new score must exceed the mean to win
    centre = gaps.mean(axis=0)
    unit = float(np.sqrt(((gaps - centre) ** 2).sum(axis=1).mean())) or 1.0  # rows get length 1, as features have
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
    """Return weights and penalty, the one of the least loss on folds that were left out (ties: the strongest)."""
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
    """Return the weights that minimise the mean loss + l2 / 2 |weights|^2; the last weight, the bias, has no penalty.

    A router that is sure of itself has log-odds far apart, and a new score must move as far. So the penalty counts
    weights in units of the root mean square of `gaps` where that is above 1.
    """
    unit = max(1.0, float(np.sqrt((gaps**2).mean()))) if scale == "log_odds" else 1.0
    penalty = np.array([*np.full(inputs.shape[1] - 1, l2), 0.0])

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        losses, slopes = _loss(unit * (inputs @ weights), gaps, lead, scale)
        gradient = unit * (inputs.T @ slopes) / len(inputs) + penalty * weights
        return float(losses.mean() + penalty @ weights**2 / 2), gradient

    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    optimum = minimize(objective, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return unit * np.asarray(optimum.x, dtype=np.float64)


def _loss(score: FloatArray, gaps: FloatArray, lead: FloatArray, scale: str) -> tuple[FloatArray, FloatArray]:
    """Return each prompt's loss, the mean over its measured comparisons, and its slope by the score, (N,) each."""
    if scale == "reward":
        error = score - np.nanmean(lead + gaps, axis=1)
        return error**2 / 2, error
    margin = score[:, None] - gaps
    losses = np.logaddexp(0, -margin) + (1 - _preferred(lead)) * margin
    return np.nanmean(losses, axis=1), np.nanmean(expit(margin) - _preferred(lead), axis=1)


def _preferred(lead: FloatArray) -> FloatArray:
    """Return 1 where the new teacher is preferred, 0 where the old one is, 0.5 for a tie, NaN where not compared."""
    return np.where(np.isnan(lead), np.nan, np.where(np.abs(lead) <= TIE, 0.5, (lead > 0).astype(np.float64)))
