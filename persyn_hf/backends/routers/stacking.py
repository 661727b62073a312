"""Train the head `stacking`: ridge regressions and nearest neighbours of all settings, added up with weights.

Each member is trained on some folds of the calibration prompts and predicts the others. Non-negative least squares
over these predictions gives the weights (stacked regression, Breiman 1996), and every member of a weight above 0 is
trained again on all prompts. What is added is how far a member departs from the teachers' means. Least squares counts
the errors of all teachers, and a choice hangs on the best ones. So all weights are multiplied by the `share` of them
that surely pays: with 0 the router is the best single teacher.

So nothing hangs on which prompts served to choose a setting (docs/router.md, "Less luck").

A prior (`core.priors`) adds members: ridge regressions on what it expects of every prompt that it knows, measured or
not. Their weights, too, are those by which measured rewards are predicted best: 0 where the prior is of no use. The
teachers' means have its pseudo-counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.backends.routers import RouterSettings, Scale, teacher_means
from persyn_hf.backends.routers.heads import Split, folds_of
from persyn_hf.backends.routers.linear import Linear, fit_ridge
from persyn_hf.backends.routers.neighbours import Neighbours
from persyn_hf.core.arrays import BoolArray, FloatArray, IntArray
from persyn_hf.core.priors import fit_prior, means_with


FOLDS, CELLS = 5, 4000  # folds; cells that are predicted at least, by further folds where prompts are few
MOST = 4  # times that all prompts are dealt into folds
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Stacked:
    """The weighted sum of a linear head and of the means over several numbers of neighbours."""

    scale: Scale = "reward"

    def __init__(self, linear: Linear, neighbours: Neighbours, weights: Mapping[int, float]) -> None:
        self.linear = linear
        self.neighbours = neighbours  # with the rewards of all prompts
        self.weights = dict(weights)  # number of neighbours -> weight
        self._near = {k: Neighbours(neighbours.points, neighbours.rewards, k) for k in self.weights}

    def scores(self, features: Any) -> FloatArray:
        scores = self.linear.scores(features)
        for k, weight in self.weights.items():
            scores = scores + weight * self._near[k].scores(features)
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
    by_prior: bool = False  # it learns what a prior expects, not what was measured

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
    train, told = _believed(train)
    members = _members(settings, train)
    unseen = _unseen(settings, members, train, np.random.default_rng(seed))
    weights, share = _weights(unseen, train.rewards)
    parts = _parts(train)
    own = weights[[not member.by_prior for member in members]].sum()
    # The own members bring their share of `own_means` back. Without a prior the sum has the bits of its last term.
    bias = parts.means - parts.own_means + parts.own_means * (1 - own)
    linear = Linear(np.zeros((train.features.shape[1], len(bias))), bias, "reward")
    weighed = list(zip(members, weights.tolist(), strict=True))
    for member, weight in weighed:
        if member.kind == "ridge" and weight > 0:
            head, middle = parts.fit(member, settings)
            bias = linear.bias + weight * (head.bias - (middle if member.by_prior else 0.0))
            linear = Linear(linear.weights + weight * head.weights, bias, "reward")
    near = {int(member.value): weight for member, weight in weighed if member.kind == "knn" and weight > 0}
    return Stacked(linear, Neighbours(*parts.own[:2], len(parts.own.rewards)), near), _record(weighed, share) | told


def _record(weighed: Sequence[tuple["_Member", float]], share: float) -> dict[str, Any]:
    """Return the training record: the weight of each member, and by how much all were multiplied."""
    members = [
        {member.kind: member.value, "weight": weight} | ({"prior": True} if member.by_prior else {})
        for member, weight in weighed
    ]
    return {"members": members, "share": share}


def _believed(train: Split) -> tuple[Split, dict[str, Any]]:
    """Leave out a prior that the rewards do not bear out, and say for the record what it counts for."""
    if train.prior is None:
        return train, {}
    fitted = fit_prior(train.prior, train.rewards)
    told = {"prior": {"slope": fitted.slope, "count": fitted.counts.tolist()}}
    if fitted.slope:
        return train, told
    rows = np.flatnonzero(~np.isnan(train.rewards).all(axis=1))
    return Split(train.features[rows], train.rewards[rows]), told


def unseen_gains(settings: RouterSettings, train: Split, seed: int) -> FloatArray:
    """Return what the router gains over the best single teacher on prompts that it has not seen, (M,) rewards.

    Weights count in full: the `share` would hide a small gain, and this says how large it may be at most. A prompt on
    which the router leaves the best teacher is known where both the chosen and the best teacher are measured. It
    stands for those that are not known, so its gain is multiplied. M is the number of prompts, 0 where none is known.

    Example: of 10 prompts the router leaves the best teacher on 4; 2 of these are known, with gains of 0.3 and -0.1.
    Each stands for two: 0.6, -0.2 and eight zeros, 0.04 on average.
    """
    train = _believed(train)[0]
    unseen = _unseen(settings, _members(settings, train), train, np.random.default_rng(seed))
    weights = _least_squares(unseen, train.rewards)
    chosen = (unseen.means + np.tensordot(weights, unseen.departs, axes=(0, 1))).argmax(axis=-1)
    return _in_proportion(_gains(unseen, train.rewards, chosen), chosen != unseen.means.argmax(axis=-1))


def _in_proportion(gains: FloatArray, leaves: BoolArray) -> FloatArray:
    """Let the known gains stand for all that leave the best teacher: (deals, N) twice -> (N,), or (0,) if none is."""
    known = leaves & ~np.isnan(gains)
    if leaves.any() and not known.any():
        return np.zeros(0)
    return np.asarray(np.where(known, gains, 0.0).mean(axis=0) * leaves.sum() / max(known.sum(), 1))


def _members(settings: RouterSettings, train: Split) -> list[_Member]:
    """Return the members, the smoothest of each kind first.

    With a prior, folds differ in how many of their prompts are measured. A neighbourhood of nearly all of these would
    say nearly nothing in a fold and get a weight that is far too large for what it says of all prompts.
    """
    penalties = sorted(set(settings.ridge_l2), reverse=True)
    most = len(train.rewards)
    if train.prior is not None:
        most = max(1, int((~np.isnan(train.rewards)).any(axis=1).sum()) // 2)
    members = [_Member("ridge", value) for value in penalties]
    members += [_Member("knn", k) for k in sorted({min(k, most) for k in settings.neighbours}, reverse=True)]
    return members + [_Member("ridge", value, by_prior=True) for value in penalties if train.prior is not None]


class _Parts(NamedTuple):
    """What members learn from, with the teachers' means (n,) that each member departs from."""

    own: Split  # the prompts with measured rewards
    own_means: FloatArray
    means: FloatArray  # with the pseudo-counts of a prior; without one, `own_means`
    expected: Split  # the prompts that the prior knows, and what it expects; without one, `own`

    def fit(self, member: _Member, settings: RouterSettings) -> tuple[Any, FloatArray]:
        """Train a member, and return it with the means that it departs from."""
        if member.by_prior:
            return member.fit(settings, self.expected), self.expected.rewards.mean(axis=0)
        return member.fit(settings, self.own), self.own_means


def _parts(train: Split) -> _Parts:
    """Take apart what is measured and what a prior expects."""
    if train.prior is None:
        means = teacher_means(train.rewards)
        return _Parts(train, means, means, train)
    fitted = fit_prior(train.prior, train.rewards)
    rows = np.flatnonzero((~np.isnan(train.rewards)).any(axis=1))
    known = np.flatnonzero(fitted.known)
    own = Split(train.features[rows], train.rewards[rows])
    return _Parts(
        own,
        teacher_means(own.rewards),
        means_with(fitted, train.rewards),
        Split(train.features[known], fitted.expected[known]),
    )


class _Unseen(NamedTuple):
    """What members say of prompts that they were not trained on, each time that these were dealt into folds."""

    means: FloatArray  # (deals, N, n), the teachers' means over the other folds
    departs: FloatArray  # (deals, members, N, n), how far the members' predictions are from them
    known: BoolArray  # (deals, N, n): the teacher was measured on the prompt, and in other folds


def _unseen(settings: RouterSettings, members: Sequence[_Member], train: Split, rng: np.random.Generator) -> _Unseen:
    """Have every member predict every prompt from other folds."""
    measured = ~np.isnan(train.rewards)
    deals = min(MOST, -(-CELLS // max(int(measured.sum()), 1)))
    means = np.zeros((deals, *measured.shape))
    departs = np.zeros((deals, len(members), *measured.shape))
    known = np.zeros(means.shape, dtype=bool)
    for deal in range(deals):
        for inside, outside in folds_of(len(measured), FOLDS, rng):
            prior = None if train.prior is None else train.prior[inside]
            parts = _parts(Split(train.features[inside], train.rewards[inside], prior))
            means[deal, outside] = parts.means
            known[deal, outside] = measured[outside] & measured[inside].any(axis=0)
            for place, member in enumerate(members):
                head, middle = parts.fit(member, settings)
                departs[deal, place, outside] = head.scores(train.features[outside]) - middle
    return _Unseen(means, departs, known)


def _least_squares(unseen: _Unseen, rewards: FloatArray) -> FloatArray:
    """Return the weight of each member, (members,), by which they predict unseen prompts best."""
    from scipy.optimize import nnls

    known = unseen.known
    if not known.any():
        return np.zeros(unseen.departs.shape[1])
    wanted = (rewards - unseen.means)[known]
    return np.asarray(nnls(np.moveaxis(unseen.departs, 1, -1)[known], wanted)[0])


def _gains(unseen: _Unseen, rewards: FloatArray, chosen: IntArray) -> FloatArray:
    """Return what the chosen teachers (deals, N) gain over the best one of the other folds; NaN: not measured."""
    row = np.arange(len(rewards))
    return np.asarray(rewards[row, chosen] - rewards[row, unseen.means.argmax(axis=-1)])


def _weights(unseen: _Unseen, rewards: FloatArray) -> tuple[FloatArray, float]:
    """Return the weight of each member, (members,), and the share by which least squares were multiplied.

    The share is the one whose choices gain most over the best teacher of the other folds, less one standard error.
    Only prompts count on which both the chosen and the best teacher were measured.
    """
    if not unseen.known.any():
        return np.zeros(unseen.departs.shape[1]), 0.0
    weights = _least_squares(unseen, rewards)
    departs = np.tensordot(weights, unseen.departs, axes=(0, 1))
    gains = [np.nan_to_num(_gains(unseen, rewards, (unseen.means + s * departs).argmax(axis=-1))) for s in SHARES]
    surely = [gain.mean() - gain.mean(axis=0).std() / np.sqrt(len(rewards)) for gain in gains]
    share = SHARES[int(np.argmax(surely))]
    return share * weights, share
