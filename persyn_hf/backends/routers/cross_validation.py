"""Score prompts by cheap routers that were trained without them: repeated cross-validation, settings chosen inside.

The candidates are `global_best`, `ridge` and `knn`, each setting of the latter two being one candidate. Of each fold's
training prompts an inner cross-validation measures the squared error of every candidate. The first one, the simplest,
that is not worse than the best by more than one standard error is trained on all of them. So a router leaves the best
teacher only where the prompts surely tell something.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from persyn_hf.backends.routers import RouterSettings, featured, teacher_means
from persyn_hf.backends.routers.heads import Split, folds_of
from persyn_hf.core.arrays import FloatArray


FOLDS, INNER_FOLDS, REPEATS = 10, 5, 3


def cross_validated(
    features: FloatArray, rewards: FloatArray, settings: RouterSettings, rng: np.random.Generator
) -> FloatArray:
    """Score each prompt `REPEATS` times, each time in other folds: (N, num_features), (N, n) -> (REPEATS, N, n).

    Every cell is measured. A fold's scores are shifted to the teachers' means over all prompts, so what is
    cross-validated is only what depends on the prompt. Else a fold in which a teacher does well by chance would be
    routed away from that teacher, which does badly on the other folds, and of two equal teachers the wrong one would
    be the best one most of the time.
    """
    scores = np.zeros((REPEATS, *rewards.shape))
    for repeat in scores:
        for train, test in folds_of(len(rewards), FOLDS, rng):
            candidate = choose(features[train], rewards[train], settings, rng)
            routed = scores_of(candidate, features[train], rewards[train], features[test])
            repeat[test] = routed + rewards.mean(axis=0) - rewards[train].mean(axis=0)
    return scores


def coordinates(features: Any) -> FloatArray:
    """Turn features (N, num_features), CSR or dense, into coordinates with the same products, (N, up to N)."""
    product = features @ features.T
    gram = np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), dtype=np.float64)
    values, vectors = np.linalg.eigh(gram)
    there = values > 1e-9 * values[-1]
    there[-1] = True  # one of zeros, where no prompt has any feature
    return np.asarray(vectors[:, there] * np.sqrt(np.maximum(values[there], 0.0)))


def _candidates(settings: RouterSettings, number: int) -> list[RouterSettings]:
    """Return the candidates for `number` training prompts, the simplest first."""
    near = sorted({k for k in settings.neighbours if k < number}, reverse=True)
    own: list[dict[str, Any]] = [
        {"kind": "global_best"},
        *({"kind": "ridge", "ridge_l2": (value,)} for value in sorted(settings.ridge_l2, reverse=True)),
        *({"kind": "knn", "neighbours": (k,)} for k in near),
    ]
    return [settings.model_copy(update=update) for update in own]


def scores_of(candidate: RouterSettings, train: FloatArray, rewards: FloatArray, test: FloatArray) -> FloatArray:
    """Train a candidate and score the prompts of `test`, (num_test, n)."""
    if candidate.kind == "global_best":
        return np.tile(teacher_means(rewards), (len(test), 1))
    return featured.fit_head(candidate, Split(train, rewards), None, seed=0)[0].scores(test)


def choose(
    features: FloatArray, rewards: FloatArray, settings: RouterSettings, rng: np.random.Generator
) -> RouterSettings:
    """Choose the simplest candidate within one standard error of the one with the least squared error."""
    folds = folds_of(len(rewards), INNER_FOLDS, rng)
    candidates = _candidates(settings, min(len(train) for train, _ in folds))
    errors = np.zeros((len(candidates), len(rewards)))
    for train, test in folds:
        for own, candidate in zip(errors, candidates, strict=True):
            scores = scores_of(candidate, features[train], rewards[train], features[test])
            own[test] = ((scores - rewards[test]) ** 2).sum(axis=1)
    return candidates[simplest(errors)]


def simplest(errors: Sequence[Any] | FloatArray) -> int:
    """Return the first candidate whose mean error is within one standard error of the least; errors (candidates, N).

    The standard error is that of the paired difference. Example: errors [[1, 1, 4], [1, 1, 1]] differ by 1 in the
    mean, with a standard error of 1: the first. Of [[2, 2, 2], [1, 1, 1]] the second, for 1 is more than 0.
    """
    errors = np.asarray(errors, dtype=np.float64)
    behind = errors - errors[errors.mean(axis=1).argmin()]
    within = behind.std(axis=1, ddof=1) / np.sqrt(errors.shape[1])
    return int(np.argmax(behind.mean(axis=1) <= within + 1e-12))
