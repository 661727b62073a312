"""Look at what the cells so far have brought, and say whether a further round of calibration pays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.backends.routers.heads import Split
from persyn_hf.backends.routers.stacking import FOLDS, unseen_gains
from persyn_hf.core.arrays import BoolArray, FloatArray
from persyn_hf.core.conversations import user_text
from persyn_hf.core.priors import fit_prior
from persyn_hf.core.probe import FEWEST
from persyn_hf.core.stopping import look_ahead, perfect_gain
from persyn_hf.recipe.recipe import Calibration


def look_at(
    wanted: Calibration,
    seed: int,
    columns: dict[str, list[Any]],
    rewards: FloatArray,
    asked: BoolArray,
    pool: int,
    prior: FloatArray | None = None,
) -> dict[str, Any]:
    """Return, in plain JSON, what a router gains by the cells so far, and whether calibration stops.

    The router is `stacking` over the words of the prompts, whatever kind is trained in the end. columns: `messages` of
    the calibration prompts, in the order of `rewards`, `asked` and `prior` (N, n). pool: the number of pool prompts.
    The gain is what cells and prior have brought together, so the prior counts as the cells that it stands for.
    """
    measured = ~np.isnan(rewards).all(axis=1)
    rows = np.flatnonzero(measured if prior is None else measured | ~np.isnan(prior).all(axis=1))
    learnt = None if prior is None else prior[rows]
    train = Split(words_of([columns["messages"][row] for row in rows]), rewards[rows], learnt)
    gains = unseen_gains(RouterSettings(kind="stacking"), train, seed) if measured.sum() >= FEWEST else np.zeros(0)
    cells, price = int(asked.sum()), float(wanted.price)
    counted = cells if prior is None else cells + round(float(fit_prior(prior, rewards).counts.sum()))
    found = look_ahead(gains, FOLDS, perfect_gain(rewards[measured]), counted, pool, price)
    weighed: dict[str, Any] = {"cells": cells, "pool": pool, "price": price}
    if found is None:
        return weighed | {"gain": None, "per_cell": None, "stop": False}
    return weighed | {"gain": found.gain._asdict(), "per_cell": found.per_cell, "stop": found.stop}


def words_of(conversations: Sequence[Any]) -> Any:
    """Return the TF-IDF features of conversations, fitted on them, (N, num_features)."""
    texts = [user_text(messages) for messages in conversations]
    return Tfidf.fit(texts, RouterSettings().max_features).transform(texts)
