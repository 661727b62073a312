"""Train the head `stacking`: ridge regressions and nearest neighbours of all settings, added up with weights.

Each member is trained on some folds of the calibration prompts and predicts the others. Non-negative least squares over
these predictions gives the weights (stacked regression, Breiman 1996), and every member of a weight above 0 is trained
again on all prompts. What is added is how far a member departs from the teachers' means, so weights that sum to little
are a router that hardly leaves the best single teacher.

So nothing hangs on which prompts served to choose a setting: at 100 prompts and seven teachers the gap closed varies
from draw to draw half as much as with one setting chosen on a seventh of the prompts (docs/router.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.backends.routers import RouterSettings, Scale, teacher_means
from persyn_hf.backends.routers.cross_validation import folds_of
from persyn_hf.backends.routers.heads import Split
from persyn_hf.backends.routers.linear import Linear, fit_ridge
from persyn_hf.backends.routers.neighbours import Neighbours
from persyn_hf.core.arrays import FloatArray


FOLDS, CELLS = 5, 4000  # folds; cells that are predicted at least, by further folds where prompts are few
MOST = 4  # times that all prompts are dealt into folds


class Stacked:
    """The weighted sum of a linear head and of the means over several numbers of neighbours."""

    scale: Scale = "reward"

    def __init__(self, linear: Linear, neighbours: Neighbours, weights: Mapping[int, float]) -> None:
        self.linear = linear
        self.neighbours = neighbours  # with the rewards of all prompts
        self.weights = dict(weights)  # number of neighbours -> weight

    def scores(self, features: Any) -> FloatArray:
        scores = self.linear.scores(features)
        for k, weight in self.weights.items():
            scores = scores + weight * self.neighbours.of(k).scores(features)
        measured = self.neighbours.measured.any(axis=0)
        lowest = scores[:, measured].min(axis=1, keepdims=True)
        return np.where(measured, scores, lowest - 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        own = {"sizes": np.array(list(self.weights), dtype=np.int64), "shares": np.array(list(self.weights.values()))}
        return {**self.neighbours.arrays(), **self.linear.arrays(), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], scale: Scale) -> "Stacked":
        weights = dict(zip(arrays["sizes"].tolist(), arrays["shares"].tolist(), strict=True))
        return cls(Linear.from_arrays(arrays, scale), Neighbours.from_arrays(arrays, scale), weights)


class _Member(NamedTuple):
    """A head with one setting."""

    kind: str  # ridge or knn
    value: float

    def fit(self, settings: RouterSettings, train: Split) -> Any:
        if self.kind == "knn":
            return Neighbours(train.features, train.rewards, int(self.value))
        return fit_ridge(settings.model_copy(update={"ridge_l2": (self.value,)}), train, None, seed=0)[0]


def fit_stacking(
    settings: RouterSettings, train: Split, validation: Split | None, seed: int
) -> tuple[Stacked, dict[str, Any]]:
    """Weigh `ridge` of every `ridge_l2` and `knn` of every `neighbours`, and return the head with its record.

    `validation` is not read: folds of `train` tell what predicts prompts that a member has not seen.
    """
    number = len(train.rewards)
    members = [_Member("ridge", value) for value in sorted(set(settings.ridge_l2), reverse=True)]
    members += [_Member("knn", k) for k in sorted({min(k, number) for k in settings.neighbours}, reverse=True)]
    weights = _weights(settings, members, train, np.random.default_rng(seed))
    means = teacher_means(train.rewards)
    linear = Linear(np.zeros((train.features.shape[1], len(means))), means * (1 - weights.sum()), "reward")
    for member, weight in zip(members, weights.tolist(), strict=True):
        if member.kind == "ridge" and weight > 0:
            head = member.fit(settings, train)
            linear = Linear(linear.weights + weight * head.weights, linear.bias + weight * head.bias, "reward")
    near = {int(m.value): w for m, w in zip(members, weights.tolist(), strict=True) if m.kind == "knn" and w > 0}
    record = {"members": [{m.kind: m.value, "weight": w} for m, w in zip(members, weights.tolist(), strict=True)]}
    return Stacked(linear, Neighbours(train.features, train.rewards, number), near), record


def _weights(
    settings: RouterSettings, members: Sequence[_Member], train: Split, rng: np.random.Generator
) -> FloatArray:
    """Return the weight of each member, (members,), that predicts the cells of folds it was not trained on best."""
    from scipy.optimize import nnls

    number, measured = len(train.rewards), int((~np.isnan(train.rewards)).sum())
    predicted, wanted = [], []
    for _ in range(min(MOST, -(-CELLS // max(measured, 1)))):
        for inside, outside in folds_of(number, FOLDS, rng):
            part = Split(train.features[inside], train.rewards[inside])
            known = ~np.isnan(part.rewards).all(axis=0) & ~np.isnan(train.rewards[outside])
            means = teacher_means(part.rewards)
            heads = [member.fit(settings, part) for member in members]
            departs = [(head.scores(train.features[outside]) - means)[known] for head in heads]
            predicted.append(np.stack(departs, axis=1))
            wanted.append((train.rewards[outside] - means)[known])
    together = np.concatenate(predicted), np.concatenate(wanted)
    return np.asarray(nnls(*together)[0]) if len(together[1]) else np.zeros(len(members))
