"""Router kind `auto`: train every candidate on every draw of the calibration prompts, keep the best on dev.

The best is the candidate with the least mean dev regret. It is kept as it was trained on the first draw.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from persyn_hf.backends.routers import Advance, Labelled, teacher_means
from persyn_hf.backends.routers.settings import FEATURED, RouterSettings, Trained
from persyn_hf.backends.routers.trainings import Draw, Prompts, Trial, try_head, try_kind
from persyn_hf.core.router_comparison import Scored, comparison, learning_curve, mean_regret
from persyn_hf.recipe.strict import read_section


class Best(NamedTuple):
    """The record of the candidate that was kept, the comparison of all, and their times (which no rerun repeats)."""

    record: dict[str, Any]
    comparison: dict[str, Any]
    times: dict[str, dict[str, float]]


Draws = Mapping[int, Sequence[Draw]]  # by number of calibration prompts
Tried = dict[str, dict[int, list[Trial]]]  # candidate -> number of prompts -> a trial per draw


def fit_best(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    calibration: Labelled,
    dev: Labelled,
    draws: Draws,
    folder: Path,
    rng: np.random.Generator,
    advance: Advance,
) -> Best:
    """Train every candidate on every draw, and write the best one into `folder`; ties go to the simpler candidate.

    The draws of the most prompts decide; all draws together are the learning curve. `advance(1)` follows every
    training.
    """
    tried, save = _try_all(settings, teachers, Prompts(calibration, dev), draws, folder, advance)
    most, baseline = max(draws), teacher_means(calibration.rewards)
    held_out = [calibration.rewards[list(draw.validation)] for draw in draws[most]]
    runs = {
        name: [
            Scored(trial.dev, trial.validation, rewards, trial.scale == "log_odds")
            for trial, rewards in zip(trials[most], held_out, strict=True)
        ]
        for name, trials in tried.items()
    }
    regrets = {name: mean_regret(scored, dev.rewards) for name, scored in runs.items()}
    chosen = min(regrets, key=lambda name: regrets[name])
    save[chosen](folder)
    compared = comparison(runs, chosen, dev.rewards, baseline, rng)
    if len(draws) > 1:
        scores = {
            name: {size: [trial.dev for trial in trials[size]] for size in draws} for name, trials in tried.items()
        }
        compared["learning_curve"] = learning_curve(scores, dev.rewards, baseline)
        if steps := _steps(tried):
            compared["learning_curve"]["steps"] = steps
    record = {
        "chosen": chosen,
        "chosen_by": f"dev regret, among {len(runs)}: the dev figures of this router flatter it slightly",
        **tried[chosen][most][0].record,
        "candidates": [{"candidate": name, "regret": regret} for name, regret in regrets.items()],
    }
    times = {name: _times(trials[most], len(dev.rewards)) for name, trials in tried.items()}
    return Best(record, compared, times)


def _try_all(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    prompts: Prompts,
    draws: Draws,
    folder: Path,
    advance: Advance,
) -> tuple[Tried, dict[str, Callable[[Path], object]]]:
    """Try every candidate on every draw.

    Returns the trials, and for each candidate the function that writes it as it was after the first draw of the most
    prompts.
    """
    each = candidates(settings)
    tried: Tried = {name: {size: [] for size in draws} for name in each}
    save: dict[str, Callable[[Path], object]] = {}
    for size in sorted(draws, reverse=True):
        for number, draw in enumerate(draws[size]):
            for place, (name, candidate) in enumerate(each.items()):
                apart = folder.with_name(f"{folder.name}-{place}-{size}-{number}")
                if candidate.kind in FEATURED:
                    trial, write = try_head(candidate, teachers, prompts, draw)
                else:
                    trial, write = try_kind(candidate, teachers, prompts, draw, apart)
                tried[name][size].append(trial)
                if name in save:
                    shutil.rmtree(apart, ignore_errors=True)
                save.setdefault(name, write)
                advance(1)
    return tried, save


def _steps(tried: Tried) -> dict[str, dict[str, float]]:
    """Compute the mean training steps by number of prompts, for the candidates that train in steps."""
    return {
        name: {
            str(size): float(np.mean([trial.record["steps"] for trial in trials])) for size, trials in sizes.items()
        }
        for name, sizes in tried.items()
        if all("steps" in trial.record for trials in sizes.values() for trial in trials)
    }


def _times(trials: Sequence[Trial], num_prompts: int) -> dict[str, float]:
    training_s, routing_s = (float(np.mean([trial[place] for trial in trials])) for place in (-2, -1))
    return {"training_s": training_s, "prompts_per_s": num_prompts / routing_s}


def candidates(settings: RouterSettings) -> dict[str, RouterSettings]:
    """Return the settings of each candidate by its name, the simplest first.

    A candidate that is a kind alone is tried over tfidf, and over embeddings too where there is an encoder.
    """
    by_name = {}
    for given in sorted(settings.candidates, key=lambda given: get_args(Trained).index(_kind(given))):
        if isinstance(given, str):
            both = given in FEATURED and settings.encoder is not None
            for features in ("tfidf", "embeddings") if both else ("tfidf",):
                values = settings.model_copy(update={"kind": given, "features": features})
                by_name[_name(given, features, {})] = values
        else:
            base = settings.model_dump(include=set(RouterSettings.model_fields) - {"candidates"})
            if given.get("features", base["features"]) == "tfidf":
                base |= {"encoder": None, "encoder_revision": None}
            values = read_section(RouterSettings, {**base, **given}, "train_router.candidates")
            by_name[_name(values.kind, values.features, given)] = values
    return by_name


def _kind(candidate: str | Mapping[str, Any]) -> str:
    return candidate if isinstance(candidate, str) else str(candidate["kind"])


def _name(kind: str, features: str, given: Mapping[str, Any]) -> str:
    """Name a candidate, such as `knn over tfidf`, with all that its settings give; of folders only the last part."""
    own = [f"{key} {Path(str(value)).name}" for key, value in given.items() if key not in ("kind", "features")]
    return ", ".join([f"{kind} over {features}" if kind in FEATURED else kind, *own])
