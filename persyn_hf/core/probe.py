"""Decide whether routing is worth it on a pool, from the rewards of a few hundred (prompt, teacher) cells.

Arrays hold the prompts that all `kept` teachers (those that were not dropped) have rewards on, unless it says
otherwise. Three numbers decide:

- `router_gain`: what a cheap router gains over the best single teacher on prompts that it was not trained on. It has
  an interval, which allows for folds that share their training prompts.
- `chance`: the p-value of a permutation test. Its hypothesis is that the prompts' features have nothing to do with
  which teacher is better. The test uses all cells, so it finds a link long before the interval leaves 0.
- `oracle_gain`: what a perfect router would gain on these rewards. It bounds every router, and says no more: the best
  of several noisy rewards is high by chance alone, and nothing in a prompt tells who will have it.

With `worth`, the gain from which a router is worth its trouble, the rule of `decide` is:

    the features sort the teachers (chance <= SURE)   route where the gain is at least worth / 2;
                                                      one teacher where the interval ends below worth / 2
    nothing sure                                      one teacher where the interval ends below worth
    fewer than FEWEST prompts, and all else           unknown

Half of `worth` decides where the features surely sort the teachers, because a router that has something to learn gains
more from more cells: on the tiny world twice as much.

Example, `worth` 0.05: chance 0.001 and a gain of 0.056 from -0.004 to 0.116: route. Chance 0.3 and 0.002 from -0.012
to 0.016: one teacher. Chance 0.3 and 0.02 from -0.03 to 0.07: unknown.
"""

from typing import Literal, NamedTuple

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.metrics import best_reward, routed_reward, routed_share
from persyn_hf.core.partial_calibration import BoolArray
from persyn_hf.core.statistics import RESAMPLES, Interval, bootstrap_means, means, percentile_bounds


Verdict = Literal["one teacher", "route", "unknown"]

LEVEL = 0.9  # of all intervals: each end is passed in one case of twenty
NORMAL = 1.6449  # half-width of such an interval in standard errors
SURE = 0.01  # chance from which the features surely sort the teachers
FEWEST = 30  # prompts from which anything is said
PERMUTATIONS = 999


class Probe(NamedTuple):
    """The findings of a probe; teachers are columns of the reward matrix. All gains are in units of reward."""

    verdict: Verdict
    best: int  # the teacher with the best mean reward
    reward: Interval  # of that teacher
    behind: list[Interval]  # of every teacher, how much less reward it has than the best, on the prompts of both
    oracle_gain: Interval
    router_gain: Interval
    leaves: float  # share of the prompts that the router sends to another teacher than the best
    chance: float
    prompts: int  # that all kept teachers have rewards on
    enough: int  # cells in all at which the interval of `router_gain` would be worth / 2 to each side


def probe(
    rewards: FloatArray,
    kept: BoolArray,
    scores: FloatArray,
    similarity: FloatArray,
    folds: int,
    worth: float,
    rng: np.random.Generator,
) -> Probe:
    """Find what a pool offers to routing.

    Args:
        rewards: (N, n) of all prompts and teachers, NaN where unmeasured.
        kept: (n,) booleans, the teachers that were asked to the end.
        scores: (repeats, M, number of kept) of routers that were trained without the prompt, for the `complete` ones.
        similarity: (M, M) of the features of these prompts, such as cosines.
        folds: of the cross-validation that made the scores.
        worth: the gain in reward from which routing is worth it.
        rng: draws prompts and permutations.
    """
    rows = complete(rewards, kept)
    measured = rewards[rows][:, kept]
    column = int(measured.mean(axis=0).argmax())
    best = int(np.flatnonzero(kept)[column])
    oracle = oracle_gain(rewards, kept, best, rng)
    gains = router_gains(scores, measured, column)
    gain = corrected_interval(gains, folds, oracle.value)
    chance = chance_of_link(similarity, measured, rng)
    half = (gain.high - gain.low) / 2
    cells = int((~np.isnan(rewards)).sum())
    return Probe(
        verdict=decide(gain, chance, len(measured), worth),
        best=best,
        reward=_best_mean(measured, column, rng),
        behind=_intervals(rewards[:, [best]] - rewards, rng),
        oracle_gain=oracle,
        router_gain=gain,
        leaves=float(1 - np.mean([routed_share(repeat, measured)[:, column] for repeat in scores])),
        chance=chance,
        prompts=len(measured),
        enough=max(cells, int(np.ceil(cells * (half / (worth / 2)) ** 2))),
    )


def complete(rewards: FloatArray, kept: BoolArray) -> BoolArray:
    """Say which prompts have rewards of all kept teachers: (N, n), (n,) booleans -> (N,) booleans."""
    return np.asarray(~np.isnan(rewards[:, kept]).any(axis=1))


def decide(gain: Interval, chance: float, prompts: int, worth: float) -> Verdict:
    """Decide by the rule at the top of this file; `prompts` is how many the gain was measured on."""
    sure = chance <= SURE
    bar = worth / 2 if sure else worth
    if prompts < FEWEST:
        return "unknown"
    if gain.high < bar:
        return "one teacher"
    return "route" if sure and gain.value >= bar else "unknown"


def router_gains(scores: FloatArray, rewards: FloatArray, best: int) -> FloatArray:
    """Return the reward of the routed teacher minus that of `best`, mean over repeats: (R, M, n), (M, n) -> (M,).

    Example: rewards [[1, 0], [0, 1]], best 0. A router that takes teacher 1 on the second prompt in one of two repeats
    gains [0, 0.5].
    """
    routed = np.mean([routed_reward(repeat, rewards) for repeat in scores], axis=0)
    return np.asarray(routed - rewards[:, best])


def corrected_interval(gains: FloatArray, folds: int | None, unseen: float, width: float = NORMAL) -> Interval:
    """Return the mean of cross-validated gains (M,) with a normal interval that allows for what the gains do not show.

    `width` is half the interval in standard errors. Without `folds` one router has made all gains. Two things are
    added to their variance:

    - Routers of two folds share most of their training prompts, so their gains are no independent trials. After
      Nadeau and Bengio, the variance of the mean of `folds` folds is 1 / folds + 1 / (folds - 1) times that of one
      fold, where independent folds would have 1 / folds.
    - A router that never left the best teacher has gained nothing on each prompt, which does not make the next one
      certain. The variance is that with two prompts more, one that gains `unseen` and one that loses as much.

    Example: gains [0.2, 0, 0.2, 0] in 2 folds, `unseen` 0.1: mean 0.1. With 0.1 more and 0.1 less than the mean the
    sum of squares is 6 * 0.01. The variance of the mean is 0.06 / 5 / 6 * (1 + 2) = 0.006, and the interval 0.1 -
    0.1274 to 0.1 + 0.1274.
    """
    value, number = float(gains.mean()), len(gains) + 2
    squares = float(((gains - value) ** 2).sum()) + 2 * unseen**2
    variance = squares / (number - 1) / number * (1 if folds is None else 1 + folds / (folds - 1))
    half = width * float(np.sqrt(variance))
    return Interval(value, value - half, value + half)


def chance_of_link(
    similarity: FloatArray, rewards: FloatArray, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> float:
    """Return the p-value of a link between the prompts' features and who is better on them: (M, M), (M, n) -> 0 to 1.

    What is compared are rewards without the mean of their teacher and of their prompt. The statistic is the sum over
    pairs of prompts of their similarity times the product of these rewards: large where similar prompts suit the same
    teachers (the Hilbert-Schmidt criterion with a linear kernel on rewards). Prompts are permuted to see how large it
    is by chance, which is exact for any number of prompts.

    Example: four prompts, similar in pairs, rewards [[1, 0], [1, 0], [0, 1], [0, 1]]. Of the 24 permutations 8 keep
    the pairs together and reach the statistic, so the p-value is near 1 / 3: four prompts can be no surer.
    """
    special = rewards - rewards.mean(axis=0)
    special = special - special.mean(axis=1, keepdims=True)
    alike = special @ special.T
    np.fill_diagonal(alike, 0.0)
    found = float((similarity * alike).sum())
    least = found - 1e-9 * float(np.abs(similarity * alike).sum())  # equal sums in another order
    orders = (rng.permutation(len(alike)) for _ in range(permutations))
    as_large = sum(float((similarity * alike[np.ix_(order, order)]).sum()) >= least for order in orders)
    return (1 + as_large) / (1 + permutations)


def oracle_gain(rewards: FloatArray, kept: BoolArray, best: int, rng: np.random.Generator) -> Interval:
    """Return what choosing each prompt's best reward gains over the teacher `best`, over the whole pool.

    Dropped teachers have rewards on few prompts. What the best of all has there above the best of the kept ones is
    added as a mean of its own. rewards (N, n), kept (n,) booleans.

    Example: two kept teachers gain 0.2 over the best one on all prompts, and a dropped one adds 0.05 on the prompts
    that it was asked: 0.25.
    """
    whole = complete(rewards, kept)
    everyone = whole & ~np.isnan(rewards).any(axis=1)
    top = np.full(len(rewards), np.nan)
    top[whole] = best_reward(rewards[whole][:, kept])
    more = np.full(len(rewards), np.nan)
    more[everyone] = best_reward(rewards[everyone]) - top[everyone]
    parts = np.column_stack([top - rewards[:, best], more])[whole]
    if not everyone.any():  # an answer is missing on each of the first prompts
        parts[:, 1] = 0.0
    low, high = percentile_bounds(bootstrap_means(parts, rng, RESAMPLES).sum(axis=1), LEVEL)
    return Interval(float(means(parts).sum()), low, high)


def _best_mean(rewards: FloatArray, best: int, rng: np.random.Generator) -> Interval:
    """Return the mean reward of the best teacher, without the part that it owes to being chosen on these prompts.

    That part is estimated by bootstrap: how much higher the best mean of a sample is there than on all prompts.
    """
    values, replicates = rewards.mean(axis=0), bootstrap_means(rewards, rng)
    chosen = replicates.argmax(axis=1)
    flattered = float((replicates[np.arange(len(replicates)), chosen] - values[chosen]).mean())
    low, high = percentile_bounds(replicates[:, best] - flattered, LEVEL)
    return Interval(float(values[best]) - flattered, low, high)


def _intervals(columns: FloatArray, rng: np.random.Generator) -> list[Interval]:
    """Return the mean of each column over its measured rows with its bootstrap interval."""
    values, replicates = means(columns), bootstrap_means(columns, rng)
    return [
        Interval(float(value), *percentile_bounds(of, LEVEL)) for value, of in zip(values, replicates.T, strict=True)
    ]
