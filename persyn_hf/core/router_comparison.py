"""Several routers on the same dev prompts, each trained several times: who is better, by how much, how surely."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.core import metrics
from persyn_hf.core.pair_calibration import fit_temperature, preference_bins, preference_pairs
from persyn_hf.core.rewards import FloatArray
from persyn_hf.core.router_table import BASELINE, RANDOM, compare


INTERVALS = ("gap_closed", "gain_over_global_best", "gain_over_best")


class Scored(NamedTuple):
    """Scores of a router after one training, on dev and on the prompts by which its numbers were chosen."""

    dev: FloatArray
    validation: FloatArray
    validation_rewards: FloatArray
    is_log_odds: bool


def comparison(
    runs: Mapping[str, Sequence[Scored]],
    chosen: str,
    rewards: FloatArray,
    baseline: FloatArray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Means over the trainings; where there are intervals they are paired, over the dev prompts.

    rewards (N, n) of dev; baseline (n,): the mean calibration rewards. `best`: the router of least regret but for
    `global_best`. `chosen`: whose reliability is given bin by bin, after its first training.
    """
    learned = [name for name in runs if name != BASELINE] or [BASELINE]
    best = min(learned, key=lambda name: mean_regret(runs[name], rewards))
    systems: dict[str, Sequence[Any]] = {name: [run.dev for run in of] for name, of in runs.items()}
    systems |= {RANDOM: [np.zeros_like(baseline)], BASELINE: [baseline], "oracle": [rewards]}
    log_odds = {name for name, of in runs.items() if of[0].is_log_odds}
    over = {BASELINE: BASELINE, "best": best}
    table = compare(systems, rewards, baseline, rng, log_odds=log_odds, over=over)
    plain = [metric for metric in table[BASELINE] if metric not in INTERVALS]
    return {
        "best": best,
        "trainings": max(len(of) for of in runs.values()),
        "means": {name: {metric: row[metric]["value"] for metric in plain} for name, row in table.items()},
        **{metric: {name: row[metric] for name, row in table.items()} for metric in INTERVALS},
        "calibration": {name: _calibration(of, rewards) for name, of in runs.items()},
        "reliability": {"router": chosen, **_reliability(runs[chosen][0], rewards)},
    }


def mean_regret(runs: Sequence[Scored], rewards: FloatArray) -> float:
    """Over the trainings and the prompts."""
    return float(np.mean([np.nanmean(metrics.regret(run.dev, rewards)) for run in runs]))


def learning_curve(
    runs: Mapping[str, Mapping[int, Sequence[FloatArray]]], rewards: FloatArray, baseline: FloatArray
) -> dict[str, Any]:
    """Share of the gap closed by number of calibration prompts: mean, lowest and highest over the trainings.

    runs: name -> number of prompts -> dev scores of each training. The gap is that of all calibration prompts.
    """
    found: dict[str, Any] = {"mean": {}, "lowest": {}, "highest": {}}
    for name, sizes in runs.items():
        closed = {size: [_gap(scores, rewards, baseline) for scores in of] for size, of in sizes.items()}
        for word, summarise in (("mean", np.mean), ("lowest", np.min), ("highest", np.max)):
            values = {str(size): float(summarise(of)) for size, of in closed.items()}
            found[word][name] = {size: value if np.isfinite(value) else None for size, value in values.items()}
    return found


def _gap(scores: FloatArray, rewards: FloatArray, baseline: FloatArray) -> float:
    routed, least, most = (np.nanmean(metrics.routed_reward(of, rewards)) for of in (scores, baseline, rewards))
    return float(metrics.gap_closed(routed, least, most))


def _calibration(runs: Sequence[Scored], rewards: FloatArray) -> dict[str, float | None]:
    """Expected calibration error as the scores are and at the temperature of the validation prompts; means."""
    found: dict[str, list[float]] = {"error": [], "temperature": [], "error_at_temperature": []}
    for run in runs:
        pairs = preference_pairs(run.dev, rewards)
        temperature = fit_temperature(preference_pairs(run.validation, run.validation_rewards))
        if run.is_log_odds:
            found["error"].append(preference_bins(pairs)[0])
        if temperature is not None:
            found["temperature"].append(temperature)
            found["error_at_temperature"].append(preference_bins(pairs, temperature)[0])
    return {name: float(np.mean(values)) if values else None for name, values in found.items()}


def _reliability(run: Scored, rewards: FloatArray) -> dict[str, Any]:
    """Bins of the diagram; `before` only where differences of scores are log-odds."""
    pairs = preference_pairs(run.dev, rewards)
    temperature = fit_temperature(preference_pairs(run.validation, run.validation_rewards))
    before = preference_bins(pairs)[1] if run.is_log_odds else []
    after = preference_bins(pairs, temperature)[1] if temperature is not None else []
    return {"temperature": temperature, "before": before, "after": after}
