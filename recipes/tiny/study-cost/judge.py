"""How far what calibration tells of a router without dev prompts is from the truth: many draws, all answers known.

    persyn run recipes/tiny/study.yaml --set 'strategies=[oracle]' --set until=assign
    python recipes/tiny/study-cost/judge.py recipes/tiny/study.yaml --prompts 100 --share 1

A draw pays for cells of some calibration prompts. Five routers over words, each trained without one fold, give the
estimate with its interval of 95 %. The truth is what the router that is trained on all of these cells gains over the
best single teacher on all other prompts.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from calibrate import error
from world import World

from persyn_hf.backends.routers import RouterSettings, teacher_means
from persyn_hf.backends.routers.featured import fit_head
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.backends.routers.heads import Split, folds_of
from persyn_hf.backends.routers.judging import FOLDS
from persyn_hf.core import partial_calibration as core
from persyn_hf.core.cross_fitting import cross_fitted_gain
from persyn_hf.recipe.file import load_recipe


HELD_OUT, ROUNDS = 0.15, 3  # share that chooses the settings of a router; rounds of `uncertainty`


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    parser.add_argument("--kind", choices=("ridge", "knn", "logistic", "stacking"), default="ridge")
    parser.add_argument("--rule", choices=("whole_prompts", "uncertainty"), default="whole_prompts")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--share", type=float, default=1.0, help="of the cells of these prompts")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--alpha", type=float, default=0.4)
    given = parser.parse_args()
    world, settings = World(load_recipe(given.recipe, []), given.store), RouterSettings(kind=given.kind)
    found = []
    for draw in range(given.draws):
        found.append(play(world, given.alpha, settings, given.rule, given.prompts, given.share, draw))
        print(draw, *(f"{value:.4f}" for value in found[-1]), flush=True)
    truth, value, low, high = np.array(found).T
    held = int(((low <= truth) & (truth <= high)).sum())
    off = value - truth
    print(f"truth {truth.mean():.4f}, told {value.mean():.4f} (off by {off.mean():.4f} ± {error(off):.4f})")
    print(f"the interval, {(high - low).mean():.4f} wide, holds the truth in {held} of {len(truth)} draws")


def play(
    world: World, alpha: float, settings: RouterSettings, rule: str, number: int, share: float, draw: int
) -> tuple[float, ...]:
    """Return the true gain of a draw, and what the estimate and its interval say."""
    order, rng = np.random.default_rng([17, draw]).permutation(len(world.ids)), np.random.default_rng([18, draw])
    own, others = order[:number], order[number:]
    asked = cells(world, alpha, own, rule, share, rng)
    measured = asked.any(axis=1)
    rewards, own = world.known(asked, own, alpha)[measured], own[measured]
    truth = world.rewards(alpha)[others]

    def routed(train: Any, prompts: Any) -> Any:
        """Train on some rows of `own`, and score prompts."""
        words = Tfidf.fit([world.texts[at] for at in own[train]], settings.max_features)
        rows = np.random.default_rng(1).permutation(len(train))
        cut = round(HELD_OUT * len(train))
        parts = [Split(words.transform([world.texts[at] for at in own[train[some]]]), rewards[train[some]])
                 for some in (rows[cut:], rows[:cut], rows)]  # fmt: skip
        if settings.kind == "stacking":  # folds take the place of validation prompts
            parts[0] = parts[2]
        return fit_head(settings, parts[0], parts[1], 0)[0].scores(
            words.transform([world.texts[at] for at in prompts])
        )

    chosen = routed(np.arange(len(own)), others).argmax(axis=1)
    best = truth[:, teacher_means(rewards).argmax()]
    gain = float((truth[np.arange(len(truth)), chosen] - best).mean())
    scores, means = np.zeros(rewards.shape), np.zeros(rewards.shape)
    for outside, inside in folds_of(len(own), FOLDS, rng):
        scores[inside], means[inside] = routed(outside, own[inside]), teacher_means(rewards[outside])
    told = cross_fitted_gain(scores, means, rewards, FOLDS)
    return (gain, np.nan, np.nan, np.nan) if told is None else (gain, *told)


def cells(world: World, alpha: float, own: Any, rule: str, share: float, rng: Any) -> Any:
    """Choose the cells that are paid for, (N, n) booleans."""
    shape = len(own), len(world.pool)
    queue = rng.permutation(len(own))
    if rule == "whole_prompts":
        return core.first_in_full(shape, int(share * len(own) * shape[1] + 1e-9), queue)
    words = Tfidf.fit([world.texts[at] for at in own], RouterSettings().max_features)
    features = words.transform([world.texts[at] for at in own])
    asked = core.first_at_random(shape, core.quota(np.zeros(shape, dtype=bool), share, ROUNDS, 1), queue, rng)
    for round in range(2, ROUNDS + 1):
        asked = core.contend(asked, core.quota(asked, share, ROUNDS, round), world.known(asked, own, alpha), features)
    return asked


if __name__ == "__main__":
    main()
