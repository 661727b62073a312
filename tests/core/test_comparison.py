"""Comparisons of strategies: against numbers by hand, scipy, and a bootstrap written out item by item."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from persyn_hf.core.comparison import TaskScores, compare


ONCE = np.ones(4)


def test_values_by_hand() -> None:
    """Two strategies, two seeds. Items that were not judged do not count, one with three parts counts three times."""
    nan = float("nan")
    one = np.array([[[1, 0, 1, 1], [1, 0, 0, 1]], [[0, 0, 1, nan], [1, nan, nan, nan]]])
    other = np.array([[[0.5, 1.0], [0.5, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    tasks = [TaskScores(one, ONCE), TaskScores(other, np.array([1.0, 3.0]))]
    found = compare(tasks, np.random.default_rng(0), 50)
    assert found.values[0] == pytest.approx([(3 / 4 + 2 / 4) / 2, (3.5 / 4 + 0.5 / 4) / 2, (0.625 + 0.5) / 2])
    assert found.values[1] == pytest.approx([(1 / 3 + 1) / 2, (1 / 4 + 3 / 4) / 2, (2 / 3 + 0.5) / 2])
    assert found.difference(0, 1, 1).value == pytest.approx(0.0)
    assert found.replicates.shape == (50, 2, 3)


def test_one_seed_is_the_paired_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(5)
    scores = np.stack([rng.random(300) < 0.6, rng.random(300) < 0.5]).astype(float)[:, None, :]
    found = compare([TaskScores(scores, np.ones(300))], np.random.default_rng(0), 4000)
    theirs = bootstrap((scores[0, 0] - scores[1, 0],), np.mean, n_resamples=4000, method="percentile", rng=1)
    ours = found.difference(0, 1, 0)
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.006)
    alone = bootstrap((scores[0, 0],), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert found.interval(0, 0)[1:] == pytest.approx(tuple(alone.confidence_interval), abs=0.006)


def test_seeds_and_items_are_drawn_as_written_out_here() -> None:
    """Two tasks of different weights, three seeds; resamples drawn one by one, all strategies on the same draws."""
    rng = np.random.default_rng(3)
    tasks = []
    for number in (40, 25):
        level = rng.normal(0.5, 0.15, size=(2, 3, 1))
        scores = (rng.random((2, 3, number)) < level).astype(float)
        scores[0, 1, :2] = np.nan
        tasks.append(TaskScores(scores, rng.integers(1, 4, number).astype(float)))
    found = compare(tasks, np.random.default_rng(0), 8000)
    drawn = []
    for _ in range(3000):
        seeds, means = rng.integers(0, 3, size=2), []
        for scores, weights in tasks:
            items = rng.integers(0, len(weights), size=len(weights))
            some, weight = scores[:, :, items][:, seeds], weights[items] * np.isfinite(scores[:, :, items][:, seeds])
            means.append(((np.nan_to_num(some) * weight).sum(axis=2) / weight.sum(axis=2)).mean(axis=1))
        drawn.append([*means, np.mean(means, axis=0)])
    columns = np.array(drawn)  # (resamples, columns, strategies)
    for column in range(3):
        wanted = np.quantile(columns[:, column, 0] - columns[:, column, 1], [0.025, 0.975])
        assert found.difference(0, 1, column)[1:] == pytest.approx(tuple(wanted), abs=0.02)
        assert found.replicates[:, 0, column].std() == pytest.approx(columns[:, column, 0].std(), rel=0.06)


def test_seeds_vary_as_their_standard_error_says() -> None:
    """With items that do not matter, the replicates have the variance of the mean of four seeds: s^2 / 4."""
    levels = np.array([0.2, 0.5, 0.3, 0.8])
    scores = np.broadcast_to(levels[None, :, None], (1, 4, 6))
    found = compare([TaskScores(scores, np.ones(6))], np.random.default_rng(0), 40_000)
    assert found.replicates.var() == pytest.approx(levels.var(ddof=1) / 4, rel=0.03)
    assert found.values[0, 0] == pytest.approx(0.45)


def test_a_strategy_against_itself_is_certain_and_a_missing_seed_is_left_out() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random((2, 3, 30))
    scores[1] = scores[0]
    found = compare([TaskScores(scores, np.ones(30))], np.random.default_rng(0), 200)
    assert found.difference(0, 1, 0) == (0.0, 0.0, 0.0)
    scores[1, 2] = np.nan
    found = compare([TaskScores(scores, np.ones(30))], np.random.default_rng(0), 200)
    assert found.values[1, 0] == pytest.approx(scores[1, :2].mean())
    assert np.isfinite(found.difference(0, 1, 0)).all()
