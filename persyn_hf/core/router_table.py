"""The table that goes with every router: its metrics beside random, global_best and the oracle, with intervals.

Each metric is a function of means over prompts, so one set of bootstrap draws of the prompts serves all rows and
columns: differences between rows and ratios such as the share of the gap closed stay paired.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core import metrics
from persyn_hf.core.rewards import FloatArray
from persyn_hf.core.statistics import RESAMPLES, bootstrap_means, means, percentile_bounds


Table = dict[str, dict[str, dict[str, float | None]]]

BASELINE = "global_best"
RANDOM = "random"


def router_table(
    scores: ArrayLike,
    rewards: ArrayLike,
    baselines: Mapping[str, ArrayLike],
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Table:
    """Rows `router`, `random`, the `baselines` and `oracle` -> metric -> {value, low, high}; None: undefined.

    scores (N, n); rewards (N, n), NaN where unmeasured; baselines: scores (n,) or (N, n) by name, with `global_best`,
    the mean calibration rewards. `random` is the exact expectation over choices. Calibration error is the router's
    alone: the others' scores are no log-odds.
    """
    if BASELINE not in baselines:
        raise ValueError(f"baselines must hold `{BASELINE}`, the mean calibration rewards; got {sorted(baselines)}")
    rewards = np.asarray(rewards, dtype=np.float64)
    rows = {"router": scores, RANDOM: np.zeros(rewards.shape[-1]), **baselines, "oracle": rewards}
    systems = {name: [of] for name, of in rows.items()}
    return compare(systems, rewards, baselines[BASELINE], rng, log_odds={"router"}, resamples=resamples, level=level)


def compare(
    systems: Mapping[str, Sequence[ArrayLike]],
    rewards: ArrayLike,
    baseline: ArrayLike,
    rng: np.random.Generator,
    *,
    log_odds: Collection[str] = (),
    over: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Table:
    """As `router_table`, for any rows; one named `random` counts as random.

    systems: name -> scores (N, n) or (n,), one for each time that it was trained; a metric is the mean over these.
    The interval is over the prompts alone. `log_odds`: whose scores can have a calibration error. `over`: label ->
    name; each row says in `gain_over_LABEL` how much more reward it gets than the row of that name. `baseline`: where
    `gap_closed` is 0.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if not np.isfinite(rewards).any():
        raise ValueError("a router table needs measured rewards, got none")
    columns = [(name, _columns(scores, rewards, baseline)) for name, runs in systems.items() for scores in runs]
    flat = np.hstack([block for _, parts in columns for block in parts.values()])
    both = np.vstack([means(flat)[None, :], bootstrap_means(flat, rng, resamples)])  # the value, then the replicates
    found: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in systems}
    start = 0
    for name, parts in columns:
        blocks = {}
        for part, block in parts.items():
            blocks[part] = both[:, start : start + block.shape[1]]
            start += block.shape[1]
        found[name].append(_summary(blocks, name == RANDOM, name in log_odds))
    mean = {
        name: {metric: np.mean([run[metric] for run in runs], axis=0) for metric in runs[0]}
        for name, runs in found.items()
    }
    for name in systems:
        for label, other in (over or {}).items():
            mean[name][f"gain_over_{label}"] = mean[name]["reward"] - mean[other]["reward"]
    return {name: {metric: _cell(of, level) for metric, of in row.items()} for name, row in mean.items()}


def _columns(scores: ArrayLike, rewards: FloatArray, baseline: ArrayLike) -> dict[str, FloatArray]:
    """Per-prompt columns whose means give every metric, each (N, width)."""
    sums, pairs = metrics.calibration_sums(scores, rewards)
    single = {
        **{f"hit_at_{k}": metrics.hit_at_k(scores, rewards, k) for k in (1, 3, 5)},
        "reward": metrics.routed_reward(scores, rewards),
        "regret": metrics.regret(scores, rewards),
        "ndcg_at_3": metrics.ndcg_at_k(scores, rewards, 3),
        "kendall_tau": metrics.kendall_tau(scores, rewards),
        "pair_accuracy": metrics.pair_accuracy(scores, rewards),
        "pairs": pairs,
        "baseline_reward": metrics.routed_reward(baseline, rewards),
        "oracle_reward": metrics.best_reward(rewards),
    }
    return {
        **{name: column[:, None] for name, column in single.items()},
        "calibration": sums,
        "allocation": metrics.routed_share(scores, rewards),
        "oracle_allocation": metrics.routed_share(rewards, rewards),
    }


def _summary(mean: Mapping[str, FloatArray], is_random: bool, is_log_odds: bool) -> dict[str, FloatArray]:
    """Means of the columns (R, width) -> metrics (R,)."""
    plain = ("hit_at_1", "hit_at_3", "hit_at_5", "reward", "regret", "ndcg_at_3", "kendall_tau", "pair_accuracy")
    found = {metric: mean[metric][:, 0] for metric in plain}
    if is_random:
        found["kendall_tau"] = np.zeros_like(found["kendall_tau"])  # its expectation; tau-b of constant scores is 0/0
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(mean["calibration"]).sum(axis=1) / mean["pairs"][:, 0]
    return {
        **found,
        "gap_closed": metrics.gap_closed(
            mean["reward"][:, 0], mean["baseline_reward"][:, 0], mean["oracle_reward"][:, 0]
        ),
        "calibration_error": error if is_log_odds else np.full_like(error, np.nan),
        "allocation_js": metrics.jensen_shannon(mean["allocation"], mean["oracle_allocation"]),
        "allocation_tv": metrics.total_variation(mean["allocation"], mean["oracle_allocation"]),
        "effective_teachers": metrics.effective_teachers(mean["allocation"]),
    }


def _cell(values: FloatArray, level: float) -> dict[str, float | None]:
    """Of the value and its replicates (1 + R,)."""
    low, high = percentile_bounds(values[1:], level)
    found = {"value": float(values[0]), "low": low, "high": high}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
