"""Compare routers on the same dev prompts, each trained several times: which is better, by how much, how surely."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.core import metrics
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.pair_calibration import fit_temperature, preference_bins, preference_pairs
from persyn_hf.core.router_table import BASELINE, RANDOM, compare


INTERVALS = ("gap_closed", "gain_over_global_best", "gain_over_best")


class Scored(NamedTuple):
    """The scores of a router after one training: on dev, and on the validation prompts by which it was tuned.

    dev (num_dev, n). validation and validation_rewards (num_validation, n). is_log_odds: whether differences of scores
    are log-odds of preference (else they are rewards).
    """

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
    """Compare the routers by all metrics; values are means over a router's trainings.

    Args:
        runs: router -> its trainings.
        chosen: the router whose reliability is given bin by bin, after its first training.
        rewards: (N, n) of dev, NaN where unmeasured.
        baseline: (n,) mean calibration rewards.
        rng: draws the dev prompts of the intervals.

    Returns:
        `best`: the router of least regret, `global_best` not counted. `trainings`: of each router. `means`: router ->
        metric -> value. The `INTERVALS`: router -> value, low and high, paired over the dev prompts. `calibration` and
        `reliability`: of predicted preferences.
    """
    learned = [name for name in runs if name != BASELINE] or [BASELINE]
    best = min(learned, key=lambda name: mean_regret(runs[name], rewards))
    systems: dict[str, Sequence[Any]] = {name: [run.dev for run in trained] for name, trained in runs.items()}
    systems |= {RANDOM: [np.zeros_like(baseline)], BASELINE: [baseline], "oracle": [rewards]}
    log_odds = {name for name, trained in runs.items() if trained[0].is_log_odds}
    over = {BASELINE: BASELINE, "best": best}
    table = compare(systems, rewards, baseline, rng, log_odds=log_odds, over=over)
    plain = [metric for metric in table[BASELINE] if metric not in INTERVALS]
    return {
        "best": best,
        "trainings": max(len(trained) for trained in runs.values()),
        "means": {name: {metric: row[metric]["value"] for metric in plain} for name, row in table.items()},
        **{metric: {name: row[metric] for name, row in table.items()} for metric in INTERVALS},
        "calibration": {name: _calibration(trained, rewards) for name, trained in runs.items()},
        "reliability": {"router": chosen, **_reliability(runs[chosen][0], rewards)},
    }


def mean_regret(runs: Sequence[Scored], rewards: FloatArray) -> float:
    """Return the mean regret on dev over a router's trainings and the measured prompts."""
    return float(np.mean([np.nanmean(metrics.regret(run.dev, rewards)) for run in runs]))


def learning_curve(
    runs: Mapping[str, Mapping[int, Sequence[FloatArray]]], rewards: FloatArray, baseline: FloatArray
) -> dict[str, Any]:
    """Return the share of the gap closed by number of calibration prompts: mean, lowest and highest over trainings.

    runs: router -> number of prompts -> dev scores (N, n) of each training. rewards (N, n): of dev. baseline (n,):
    mean rewards of all calibration prompts, so the gap is the same for every number of prompts.
    """
    curves: dict[str, Any] = {"mean": {}, "lowest": {}, "highest": {}}
    for name, sizes in runs.items():
        closed = {size: [_gap(scores, rewards, baseline) for scores in trained] for size, trained in sizes.items()}
        for word, summarise in (("mean", np.mean), ("lowest", np.min), ("highest", np.max)):
            values = {str(size): float(summarise(shares)) for size, shares in closed.items()}
            curves[word][name] = {size: value if np.isfinite(value) else None for size, value in values.items()}
    return curves


def _gap(scores: FloatArray, rewards: FloatArray, baseline: FloatArray) -> float:
    """Return the share of the gap from baseline to oracle that the scores close on dev."""
    choices = (scores, baseline, rewards)
    routed, least, most = (np.nanmean(metrics.routed_reward(choice, rewards)) for choice in choices)
    return float(metrics.gap_closed(routed, least, most))


def _calibration(runs: Sequence[Scored], rewards: FloatArray) -> dict[str, float | None]:
    """Return a router's mean calibration error: of its scores as they are, and at the temperature of validation."""
    measured: dict[str, list[float]] = {"error": [], "temperature": [], "error_at_temperature": []}
    for run in runs:
        pairs = preference_pairs(run.dev, rewards)
        temperature = fit_temperature(preference_pairs(run.validation, run.validation_rewards))
        if run.is_log_odds:
            measured["error"].append(preference_bins(pairs)[0])
        if temperature is not None:
            measured["temperature"].append(temperature)
            measured["error_at_temperature"].append(preference_bins(pairs, temperature)[0])
    return {name: float(np.mean(values)) if values else None for name, values in measured.items()}


def _reliability(run: Scored, rewards: FloatArray) -> dict[str, Any]:
    """Return the bins of the reliability diagram: before and after the temperature; before only for log-odds."""
    pairs = preference_pairs(run.dev, rewards)
    temperature = fit_temperature(preference_pairs(run.validation, run.validation_rewards))
    before = preference_bins(pairs)[1] if run.is_log_odds else []
    after = preference_bins(pairs, temperature)[1] if temperature is not None else []
    return {"temperature": temperature, "before": before, "after": after}
