"""Compare strategies on the same benchmark items and with the same SFT seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.statistics import RESAMPLES, Interval, bootstrap_means, means, percentile_bounds


class TaskScores(NamedTuple):
    """The scores of one task: of every strategy with every seed on every item; NaN: not judged, or not there."""

    scores: FloatArray  # (strategies, seeds, items)
    weights: FloatArray  # (items,): how often an item counts


class Comparison(NamedTuple):
    """The mean scores and their bootstrap replicates; one column per task, then their mean where tasks are several."""

    values: FloatArray  # (strategies, columns)
    replicates: FloatArray  # (resamples, strategies, columns)

    def interval(self, strategy: int, column: int) -> Interval:
        """Return a strategy's mean score with its 95 % interval; arguments are indices."""
        return Interval(float(self.values[strategy, column]), *percentile_bounds(self.replicates[:, strategy, column]))

    def difference(self, one: int, other: int, column: int) -> Interval:
        """Return the score of strategy `one` minus that of `other` with its 95 % interval, paired; indices."""
        value = float(self.values[one, column] - self.values[other, column])
        replicates = self.replicates[:, one, column] - self.replicates[:, other, column]
        return Interval(value, *percentile_bounds(replicates))


def compare(tasks: Sequence[TaskScores], rng: np.random.Generator, resamples: int = RESAMPLES) -> Comparison:
    """Bootstrap the mean scores over items, within each task, and over seeds.

    All strategies share the draws, so their differences are paired. The score of a strategy is the mean over its
    seeds. Of S seeds S - 1 are drawn with replacement: the variance of their mean is then, without bias, that of the
    mean of S seeds. S draws would give (S - 1) / S of it: with two seeds, half. One seed says nothing of how seeds
    vary.
    """
    num_seeds = tasks[0].scores.shape[1]
    seeds = np.full(num_seeds, 1 / num_seeds)
    drawn = rng.multinomial(max(1, num_seeds - 1), seeds, size=resamples).astype(np.float64)
    values, replicates = [], []
    for scores, weights in tasks:
        num_strategies, _, num_items = scores.shape
        columns, shape = scores.reshape(-1, num_items).T, (num_strategies, num_seeds)
        values.append(_over_seeds(means(columns, weights).reshape(1, *shape), np.ones((1, num_seeds)))[0])
        resampled = bootstrap_means(columns, rng, resamples, weights).reshape(resamples, *shape)
        replicates.append(_over_seeds(resampled, drawn))
    if len(tasks) > 1:
        values.append(np.mean(values, axis=0))
        replicates.append(np.mean(replicates, axis=0))
    return Comparison(np.stack(values, axis=-1), np.stack(replicates, axis=-1))


def _over_seeds(scores: FloatArray, drawn: FloatArray) -> FloatArray:
    """Return the mean over the seeds that have a score, each counted as often as drawn, (R, strategies).

    scores (R, strategies, seeds); drawn (R, seeds).
    """
    counts = np.isfinite(scores) * drawn[:, None, :]
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(scores) * counts).sum(axis=2) / counts.sum(axis=2)
