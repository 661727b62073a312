"""Settings under which a tiny llm router learns in seconds."""

from pathlib import Path

import numpy as np
from corpora import TEACHERS, corpus

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load, merged
from persyn_hf.core.assignment import column_means
from persyn_hf.core.router_table import router_table


def tiny(backbone: Path, **changes) -> RouterSettings:
    values = {"kind": "llm", "backbone": str(backbone), "learning_rate": 3e-3, "head_learning_rate": 1e-2, "epochs": 6}
    return RouterSettings(**{**values, "device": "cpu", "batch_size": 16, **changes})


def train(settings: RouterSettings, folder: Path, missing: float = 0.0) -> tuple[dict, Labelled]:
    """Fit on 120 prompts, choose on 24; the record and all 144 labelled prompts."""
    parts = corpus(120, 1, missing), corpus(24, 2)
    return fit(settings, TEACHERS, *parts, folder, seed=0), merged(*parts)


def dev_row(folder: Path, labelled: Labelled) -> dict:
    dev = corpus(100, 3)
    baselines = {"global_best": column_means(labelled.rewards)}
    scores = load(folder, "cpu").scores(dev.conversations)
    return router_table(scores, dev.rewards, baselines, np.random.default_rng(0), resamples=100)["router"]
