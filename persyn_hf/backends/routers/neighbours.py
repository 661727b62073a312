"""Train heads that go by similarity: `knn` (the prompts nearest by cosine), `best_per_topic` (the nearest cluster)."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from persyn_hf.backends.routers import RouterSettings, Scale, teacher_means
from persyn_hf.backends.routers.heads import Split, choose
from persyn_hf.core.arrays import FloatArray


CELLS = 2**20  # similarities in memory at a time
SAME = 1e-6  # cosines that differ by less are equal: rounding must not choose a neighbour
PRIOR = 5.0  # prompts of mean reward that each topic starts with, so that a tiny one stays near the mean of all
RESTARTS = 5  # of k-means


class Neighbours:
    """The mean reward of the `k` nearest training prompts, and of those as near as the k-th.

    Missing cells are left out; a teacher that no neighbour measured has its mean over all prompts. A prompt that
    shares nothing with any other is equally far from all, so it gets the mean of all.
    """

    scale: Scale = "reward"

    def __init__(self, points: Any, rewards: FloatArray, k: int) -> None:
        self.points = points  # (num_points, num_features), CSR or dense
        self.rewards = rewards
        self.k = min(k, len(rewards))
        self.measured = (~np.isnan(rewards)).astype(np.float64)
        self.filled = np.nan_to_num(rewards)
        self.means = teacher_means(rewards)

    def scores(self, features: Any) -> FloatArray:
        scores = np.zeros((features.shape[0], self.rewards.shape[1]))
        block = max(1, CELLS // len(self.rewards))
        for start in range(0, len(scores), block):
            cosine = features[start : start + block] @ self.points.T
            cosine = cosine if isinstance(cosine, np.ndarray) else cosine.toarray()
            kth = np.partition(cosine, -self.k, axis=1)[:, [-self.k]]
            near = (cosine > kth - SAME).astype(np.float64)
            number = near @ self.measured
            mean = near @ self.filled / np.maximum(number, 1)
            scores[start : start + block] = np.where(number > 0, mean, self.means)
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        own = {"rewards": self.rewards, "k": np.array([self.k])}
        if isinstance(self.points, np.ndarray):
            return {**own, "points": self.points}
        parts = {name: getattr(self.points, name) for name in ("data", "indices", "indptr")}
        return {**own, **parts, "shape": np.array(self.points.shape)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], scale: Scale) -> "Neighbours":
        from scipy.sparse import csr_matrix

        if "points" in arrays:
            points: Any = arrays["points"]
        else:
            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            points = csr_matrix(parts, shape=tuple(arrays["shape"]))
        return cls(points, arrays["rewards"], int(arrays["k"][0]))


def fit_knn(
    settings: RouterSettings, train: Split, validation: Split | None, seed: int
) -> tuple[Neighbours, dict[str, Any]]:
    """Choose `k` on the validation prompts, ties to the larger; return the head and its training record."""
    grid = sorted({min(k, len(train.rewards)) for k in settings.neighbours}, reverse=True)

    def make(k: int) -> Neighbours:
        return Neighbours(train.features, train.rewards, k)

    return choose("neighbours", grid, make, validation)


class Topics:
    """The mean reward in the nearest topic; prompts without features are a topic of their own."""

    scale: Scale = "reward"

    def __init__(self, centres: FloatArray, rewards: FloatArray) -> None:
        self.centres = centres  # (num_topics, num_features)
        self.rewards = rewards  # (num_topics + 1, num_teachers), the last row of prompts without features

    def scores(self, features: Any) -> FloatArray:
        return self.rewards[nearest_centre(features, self.centres)]

    def arrays(self) -> dict[str, np.ndarray]:
        return {"centres": self.centres, "rewards": self.rewards}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], scale: Scale) -> "Topics":
        return cls(arrays["centres"], arrays["rewards"])


def fit_topics(
    settings: RouterSettings, train: Split, validation: Split | None, seed: int
) -> tuple[Topics, dict[str, Any]]:
    """Cluster the training prompts (k-means), and choose the number of topics, ties to the smaller.

    Returns the head and its training record.
    """
    grid = sorted({min(number, len(train.rewards)) for number in settings.topics})

    def make(number: int) -> Topics:
        centres = _centres(train.features, number, seed)
        return Topics(centres, _topic_means(nearest_centre(train.features, centres), train.rewards, number))

    return choose("topics", grid, make, validation)


def nearest_centre(features: Any, centres: FloatArray) -> np.ndarray:
    """Find the nearest centre (Euclidean) of each row, as its index; num_topics for a row of zeros."""
    distance = (centres**2).sum(axis=1) - 2 * np.asarray(features @ centres.T)
    empty = np.asarray(abs(features).sum(axis=1)).ravel() == 0
    return np.where(empty, len(centres), distance.argmin(axis=1))


def _centres(features: Any, number: int, seed: int) -> FloatArray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():  # threads add up in any order: other last digits each time
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different prompts than topics: some stay empty
        clusters = KMeans(number, n_init=RESTARTS, random_state=seed).fit(features)
    return np.asarray(clusters.cluster_centers_, dtype=np.float64)


def _topic_means(topic: np.ndarray, rewards: FloatArray, number: int) -> FloatArray:
    """Compute mean rewards (number + 1, n); `PRIOR` prompts pull each topic's towards the mean of all."""
    sums, counts = (np.zeros((number + 1, rewards.shape[1])) for _ in range(2))
    np.add.at(sums, topic, np.nan_to_num(rewards))
    np.add.at(counts, topic, ~np.isnan(rewards))
    return (sums + PRIOR * teacher_means(rewards)) / (counts + PRIOR)
