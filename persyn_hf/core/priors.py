"""Count rewards that exist already (a prior) as observations of rewards that are not measured yet.

A prior may be another student's rewards or a published matrix, on any scale. It enters as pseudo-counts in two steps:

- Its values are put on the scale of the rewards by least squares over the cells of which both are known, each less the
  mean of its prompt: what counts is who is better on a prompt, and a prior that only knows which prompts are hard says
  nothing of that. The slope is at least 0, and shrunk by what chance alone makes of it (positive-part James-Stein:
  1 - 1 / t^2, t being the slope in standard errors). So a prior that was wrong so far is not believed elsewhere.
- Each teacher's mean is then that of the prior, moved by its measured rewards as if the prior were some of them
  (`counts`; Fay and Herriot 1979, "Estimates of income for small places"). Their number is the variance of a reward
  over that of the teachers' means around what the prior says, times the same 1 - 1 / t^2, and `MOST` at most. The
  worse the prior fits, the less it counts.

Both are fitted anew on all cells so far: whatever the prior says, data overrule it.
"""

from typing import NamedTuple

import numpy as np

from persyn_hf.core.arrays import BoolArray, FloatArray


MOST = 20.0  # observations of a teacher that a prior counts for at most
FEWEST = 4  # prompts of which both prior and rewards are known, from which a prior counts at all


class Fitted(NamedTuple):
    """A prior on the scale of the rewards."""

    expected: FloatArray  # (N, n), the reward of a cell before it is measured; where the prior has none, a mean
    counts: FloatArray  # (n,), the observations of each teacher's mean that it stands for
    known: BoolArray  # (N,) booleans: the prior has something on the prompt
    slope: float  # rewards per unit of the prior


def fit_prior(prior: FloatArray, rewards: FloatArray) -> Fitted:
    """Put a prior on the scale of the rewards: (N, n) each, NaN where nothing is known.

    Example: teachers A and B on four prompts, the prior 0 for A and 1 for B everywhere, rewards 0.1, 0.3, 0.1, 0.3 of
    A and 0.7, 0.5, 0.7, 0.5 of B. B is ahead by 0.4 on average: the slope is 0.4, its standard error sqrt(0.08 / 3 /
    2) = 0.1155, t^2 = 12. It is shrunk by 1 - 1 / 12 to 0.3667. The middle is 0.4, so A is expected at 0.2167 and B at
    0.5833.
    """
    there = ~np.isnan(prior)
    both = there & ~np.isnan(rewards)
    both[both.sum(axis=1) < 2] = False  # one cell alone is compared with nothing
    slope, trust = _slope(_less_prompt(prior, both), _less_prompt(rewards, both), int(both.any(axis=1).sum()))
    middle = float(rewards[both].mean()) if slope else float(np.nanmean(rewards))
    expected = np.full(prior.shape, middle)
    if slope:
        expected += slope * (filled(prior) - prior[both].mean())
    counts = np.where(there.any(axis=0), trust * _pseudo_count(rewards - expected), 0.0)
    return Fitted(expected, counts, np.asarray(there.any(axis=1)), slope)


def _less_prompt(values: FloatArray, both: BoolArray) -> FloatArray:
    """Return the cells `both` (N, n) of a matrix, each less the mean of its prompt over these cells, (cells,)."""
    kept = np.where(both, values, 0.0)
    return np.asarray((kept - kept.sum(axis=1, keepdims=True) / np.maximum(both.sum(axis=1, keepdims=True), 1))[both])


def _slope(x: FloatArray, y: FloatArray, prompts: int) -> tuple[float, float]:
    """Return the slope of y on x, shrunk by chance, and 1 - 1 / t^2; 0 for both where it is not above chance."""
    spread, freedom = float(x @ x), len(x) - prompts - 1
    if prompts < FEWEST or freedom < 1 or spread < 1e-12 or (steepest := float(x @ y) / spread) <= 0:
        return 0.0, 0.0
    error = float(((y - steepest * x) ** 2).sum()) / freedom / spread
    trust = max(0.0, 1 - error / steepest**2)
    return trust * steepest, trust


def filled(prior: FloatArray) -> FloatArray:
    """Fill in what a prior does not know: a teacher's mean, or the mean of all where it does not know the teacher."""
    there = ~np.isnan(prior)
    sums, numbers = np.where(there, prior, 0.0).sum(axis=0), there.sum(axis=0)
    means = np.where(numbers > 0, sums / np.maximum(numbers, 1), np.where(there, prior, 0.0).sum() / there.sum())
    return np.where(there, prior, means)


def _pseudo_count(left: FloatArray) -> float:
    """Return the variance of what is `left` (N, n) within teachers over that of the teachers' means, at most `MOST`.

    The variance of the means is what they vary more than by chance (method of moments).
    """
    numbers = (~np.isnan(left)).sum(axis=0)
    asked = left[:, numbers >= 2]
    numbers = numbers[numbers >= 2]
    if len(numbers) < 2:
        return 0.0
    means = np.nanmean(asked, axis=0)
    within = float(np.nansum((asked - means) ** 2) / (numbers.sum() - len(numbers)))
    between = float(((means - means.mean()) ** 2).sum() / (len(means) - 1) - within * (1 / numbers).mean())
    return min(MOST, within / between) if between * MOST > within else MOST


def means_with(fitted: Fitted, rewards: FloatArray) -> FloatArray:
    """Return each teacher's mean (n,): what is expected over all prompts, moved by what is measured.

    A teacher that is expected at 0.5 and whose 20 rewards are 0.1 above what is expected of these cells has the mean
    0.5 + 0.1 * 20 / (20 + 20) = 0.55 with a count of 20.
    """
    there = ~np.isnan(rewards)
    left = np.where(there, rewards - fitted.expected, 0.0).sum(axis=0)
    number = np.maximum(there.sum(axis=0) + fitted.counts, 1)
    return np.asarray(fitted.expected[fitted.known].mean(axis=0) + left / number)
