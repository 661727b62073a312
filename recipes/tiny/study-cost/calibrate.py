"""Which cells of calibration to pay for, and when to stop: rules compared on answers that are all known.

    persyn run recipes/tiny/study.yaml --set 'strategies=[oracle]' --set until=assign
    python recipes/tiny/study-cost/calibrate.py recipes/tiny/study.yaml --shares 0.1 0.2 0.3

A draw is 400 prompts, of which a rule pays for some cells in rounds that end at the shares. The router `stacking` over
words learns from these cells, and is judged on all other prompts: reward over the best single teacher there. Beside it
stands what a further cell brings at most, by which `calibration.stop: gain` decides. It works for every recipe whose
oracle was run.

With `--prior` the rewards of another recipe's student are the prior (`calibration.prior`); `--spoil cells` deals them
out anew over all cells, `--spoil teachers` gives each teacher the rewards of another, so the prior is wrong:

    python recipes/tiny/study-cost/calibrate.py recipes/tiny/study-student.yaml --prior recipes/tiny/study.yaml
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from world import World

from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.backends.routers.heads import Split
from persyn_hf.backends.routers.stacking import FOLDS, fit_stacking, unseen_gains
from persyn_hf.core import partial_calibration as core
from persyn_hf.core.stopping import look_ahead, perfect_gain
from persyn_hf.recipe.file import load_recipe


PROMPTS, FIRST = 400, 10  # calibration prompts of a draw; prompts that the first round asks of each teacher
RULES = ("whole_prompts", "uncertainty", "posterior", "gradient")  # the last two are not in the package
SETTINGS = RouterSettings(kind="stacking")


def first(rule: str, shape: tuple[int, int], order: Any, rng: Any) -> Any:
    if rule == "whole_prompts":
        return core.first_in_full(shape, FIRST * shape[1], order)
    return core.first_evenly(shape, FIRST * shape[1], order, rng)


def further(
    rule: str, asked: Any, number: int, rewards: Any, features: Any, order: Any, rng: Any, prior: Any = None
) -> Any:
    if rule == "whole_prompts":
        return core.more_in_full(asked, number, order)
    if rule == "uncertainty":
        return core.contend(asked, number, rewards, features, prior=prior)
    if rule == "posterior":
        return posterior_sampling(asked, number, rewards, features, rng)
    return knowledge_gradient(asked, number, rewards, features)


def posterior_sampling(asked: Any, number: int, rewards: Any, features: Any, rng: Any) -> Any:
    """Ask the cells that are the best of their prompt in a sample of what the rewards may be (Thompson 1933)."""
    mean, deviation = core.predict(rewards, features)
    value = mean + deviation * rng.normal(size=mean.shape) - mean.max(axis=1, keepdims=True)
    new = ~asked.any(axis=1)
    value[new] = np.minimum(value[new], np.sort(value[new], axis=1)[:, [-2]])
    return core._add(asked, value, number)


def knowledge_gradient(asked: Any, number: int, rewards: Any, features: Any) -> Any:
    """Ask the cells from which the choices on all prompts gain most (Frazier, Powell, Dayanik 2009).

    The model is that of `core.predict`. Cells are taken one by one; each narrows what its teacher may do elsewhere.
    """
    mean, covariances, noises = posterior(rewards, features)
    asked = asked.copy()
    worth = np.stack(
        [worths(mean, *of, teacher) for teacher, of in enumerate(zip(covariances, noises, strict=True))], 1
    )
    while number > 1:
        new, value = ~asked.any(axis=1), np.where(asked, -np.inf, worth)
        pairs = np.where(new, np.sort(value, axis=1)[:, -2:].mean(axis=1), -np.inf)
        value[new] = -np.inf
        if max(value.max(), pairs.max()) == -np.inf:
            break
        if pairs.max() > value.max():
            row = int(pairs.argmax())
            teachers = np.argsort(-worth[row])[:2].tolist()
        else:
            row, teacher = np.unravel_index(value.argmax(), value.shape)
            teachers = [int(teacher)]
        for teacher in teachers:
            of, line = covariances[teacher], covariances[teacher][:, row].copy()
            covariances[teacher] = of - np.outer(line, line) / (of[row, row] + noises[teacher])
            asked[row, teacher] = True
            worth[:, teacher] = worths(mean, covariances[teacher], noises[teacher], teacher)
        number -= len(teachers)
    return asked


def posterior(rewards: Any, features: Any) -> tuple[Any, list[Any], list[float]]:
    """Return means (N, n) as `core.predict` has them, and each teacher's covariance (N, N) and noise."""
    kernel = (features @ features.T).toarray()
    mean, covariances, noises = core.predict(rewards, features)[0], [], []
    for column in rewards.T:
        rows = np.flatnonzero(~np.isnan(column))
        variance = column[rows].var() + 1e-6
        values, vectors = np.linalg.eigh(kernel[np.ix_(rows, rows)])
        turned = vectors.T @ (column[rows] - column[rows].mean())
        spectra = {share: variance * (share * np.maximum(values, 0) + 1 - share) for share in core.SIGNALS}
        share = max(spectra, key=lambda share: -float((turned**2 / spectra[share] + np.log(spectra[share])).sum()))
        cross = share * variance * (kernel[:, rows] @ vectors)
        covariances.append(share * variance * kernel - (cross / spectra[share]) @ cross.T + variance / len(rows))
        noises.append((1 - share) * variance)
    return mean, covariances, noises


def worths(mean: Any, covariance: Any, noise: float, teacher: int) -> Any:
    """Return what the best predictions of all prompts are expected to gain from each cell of a teacher, (N,)."""
    behind = np.abs(mean[:, teacher] - np.delete(mean, teacher, axis=1).max(axis=1))[:, None]
    moves = np.abs(covariance) / np.sqrt(np.maximum(covariance.diagonal(), 1e-9) + noise)
    z = behind / np.maximum(moves, 1e-12)
    return (moves * np.exp(-z * z / 2) / np.sqrt(2 * np.pi) - behind * ndtr(-z)).sum(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.2, 0.3])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first draw")
    parser.add_argument("--alpha", type=float, default=0.4)
    parser.add_argument("--last", action="store_true", help="judge after the last round only")
    parser.add_argument("--look", action="store_true", help="tell what a further cell brings, too")
    parser.add_argument("--prior", type=Path, default=None, help="another recipe of the same prompts and teachers")
    parser.add_argument("--by", choices=("reward", "quality"), default="reward", help="what the prior holds")
    parser.add_argument("--spoil", choices=("cells", "teachers"), default=None, help="make the prior wrong")
    given = parser.parse_args()
    world = World(load_recipe(given.recipe, []), given.store)
    known = None
    if given.prior is not None:
        known = prior_of(World(load_recipe(given.prior, []), given.store), world, given.by, given.alpha)
    found: dict[tuple[float, str], list[tuple[float, float]]] = {}
    for draw in range(given.first, given.first + given.draws):
        for rule in given.rules:
            for share, cells, *values in play(
                world, given.alpha, rule, draw, given.shares, given.last, given.look, known, given.spoil
            ):
                found.setdefault((share, rule), []).append((values[0], values[1]))
                print(draw, rule, cells, *(f"{value:.4f}" for value in values), flush=True)
    for (share, rule), lines in sorted(found.items()):
        of, gap = np.array(lines).T
        shown = [f"{x.mean():.4f} ± {error(x):.4f}" for x in (of, of / gap)]
        print(f"| {share:.0%} | {rule} | {shown[0]} | {shown[1]} |")


def prior_of(other: World, world: World, by: str, alpha: float) -> Any:
    """Return another student's rewards, or the quality of the answers, in the order of this one's (N, n)."""
    row_of = {prompt_id: row for row, prompt_id in enumerate(other.ids)}
    rows = [row_of[prompt_id] for prompt_id in world.ids]
    found = other.rewards(alpha)[rows] if by == "reward" else other.measured("quality_raw", rows)
    return found[:, [other.pool.index(name) for name in world.pool]]


def spoilt(prior: Any, how: str | None, draw: int) -> Any:
    """Make a prior wrong: its values at random places, or those of other teachers."""
    rng = np.random.default_rng([9, draw])
    if how == "cells":
        return rng.permutation(prior.ravel()).reshape(prior.shape)
    return prior if how is None else prior[:, rng.permutation(prior.shape[1])]


def error(values: Any) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def play(
    world: World,
    alpha: float,
    rule: str,
    draw: int,
    shares: list[float],
    last: bool,
    look: bool,
    known: Any = None,
    spoil: str | None = None,
) -> Any:
    """Yield after each share: it, the cells, the router's gain and a perfect one's, and what a further cell brings."""
    order = np.random.default_rng([7, draw]).permutation(len(world.ids))
    own, others = order[:PROMPTS], order[PROMPTS:]
    rng = np.random.default_rng([8, draw])
    words = Tfidf.fit([world.texts[at] for at in own], SETTINGS.max_features)
    features, unseen = (words.transform([world.texts[at] for at in some]) for some in (own, others))
    truth = world.rewards(alpha)[others]
    best = truth[:, world.rewards(alpha).mean(axis=0).argmax()]
    prior = None if known is None else spoilt(known[own], spoil, draw)
    queue = rng.permutation(PROMPTS)
    asked = first(rule, (PROMPTS, len(world.pool)), queue, rng)
    for share in shares:
        number = int(share * asked.size + 1e-9) - int(asked.sum())
        asked = further(rule, asked, number, world.known(asked, own, alpha), features, queue, rng, prior)
        if last and share != shares[-1]:
            continue
        rewards, measured = world.known(asked, own, alpha), asked.any(axis=1)
        rows = np.flatnonzero(measured) if prior is None else np.arange(PROMPTS)
        train = Split(features[rows], rewards[rows], prior)
        head = fit_stacking(SETTINGS, train, None, 0)[0]
        chosen = truth[np.arange(len(truth)), head.scores(unseen).argmax(axis=1)]
        line = [share, int(asked.sum()), float((chosen - best).mean()), float((truth.max(axis=1) - best).mean())]
        if look:
            gains = unseen_gains(SETTINGS, train, 0)
            ahead = look_ahead(gains, FOLDS, perfect_gain(rewards[measured]), line[1], len(others), 0.05)
            line += [np.nan] * 2 if ahead is None else [ahead.gain.high, ahead.per_cell]
        yield line


if __name__ == "__main__":
    main()
