"""Make the table that goes with every router: its metrics next to random, global_best and the oracle, with intervals.

Each metric is a function of means over prompts. So one set of bootstrap draws of the prompts serves all rows and
columns, and differences between rows and ratios such as the share of the gap closed stay paired.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from persyn_hf.core import metrics
from persyn_hf.core.arrays import FloatArray
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
    """Make the table of one router.

    Args:
        scores: (N, n) of the router.
        rewards: (N, n), NaN where unmeasured.
        baselines: name -> scores (n,) or (N, n); `global_best`, the mean calibration rewards, must be there.
        rng: draws the prompts of the intervals.
        resamples, level: of the bootstrap.

    Returns:
        Row (`router`, `random`, the baselines, `oracle`) -> metric -> {value, low, high}; None: undefined. `random` is
        the exact expectation over choices. Only the router has a calibration error: other scores are no log-odds.
    """
    if BASELINE not in baselines:
        raise ValueError(f"baselines must hold `{BASELINE}`, the mean calibration rewards; got {sorted(baselines)}")
    rewards = np.asarray(rewards, dtype=np.float64)
    rows = {"router": scores, RANDOM: np.zeros(rewards.shape[-1]), **baselines, "oracle": rewards}
    systems = {name: [values] for name, values in rows.items()}
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
    """Make a table of any rows, with the metrics of `router_table`.

    Args:
        systems: row -> scores (N, n) or (n,), one per training; a metric is the mean over trainings, its interval is
            over the prompts alone. A row named `random` counts as the random router.
        rewards: (N, n), NaN where unmeasured.
        baseline: scores (n,) of the choice where `gap_closed` is 0.
        rng: draws the prompts of the intervals.
        log_odds: rows whose scores are log-odds, and so have a calibration error.
        over: label -> row; `gain_over_LABEL` is how much more reward a row gets than that row.
        resamples, level: of the bootstrap.

    Raises:
        ValueError: no reward is measured.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if not np.isfinite(rewards).any():
        raise ValueError("a router table needs measured rewards, got none")
    columns = [(name, _columns(scores, rewards, baseline)) for name, runs in systems.items() for scores in runs]
    flat = np.hstack([block for _, parts in columns for block in parts.values()])
    both = np.vstack([means(flat)[None, :], bootstrap_means(flat, rng, resamples)])  # the value, then the replicates
    summaries: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in systems}
    start = 0
    for name, parts in columns:
        blocks = {}
        for part, block in parts.items():
            blocks[part] = both[:, start : start + block.shape[1]]
            start += block.shape[1]
        summaries[name].append(_summary(blocks, name == RANDOM, name in log_odds))
    mean = {
        name: {metric: np.mean([run[metric] for run in runs], axis=0) for metric in runs[0]}
        for name, runs in summaries.items()
    }
    for name in systems:
        for label, other in (over or {}).items():
            mean[name][f"gain_over_{label}"] = mean[name]["reward"] - mean[other]["reward"]
    return {name: {metric: _cell(values, level) for metric, values in row.items()} for name, row in mean.items()}


def _columns(scores: ArrayLike, rewards: FloatArray, baseline: ArrayLike) -> dict[str, FloatArray]:
    """Return the per-prompt columns, (N, width) each, whose means give every metric."""
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
    """Turn means of the columns, (R, width) each, into metrics, (R,) each."""
    plain = ("hit_at_1", "hit_at_3", "hit_at_5", "reward", "regret", "ndcg_at_3", "kendall_tau", "pair_accuracy")
    summary = {metric: mean[metric][:, 0] for metric in plain}
    if is_random:  # the expectation is 0; tau-b of constant scores is 0/0
        summary["kendall_tau"] = np.zeros_like(summary["kendall_tau"])
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(mean["calibration"]).sum(axis=1) / mean["pairs"][:, 0]
    return {
        **summary,
        "gap_closed": metrics.gap_closed(
            mean["reward"][:, 0], mean["baseline_reward"][:, 0], mean["oracle_reward"][:, 0]
        ),
        "calibration_error": error if is_log_odds else np.full_like(error, np.nan),
        "allocation_js": metrics.jensen_shannon(mean["allocation"], mean["oracle_allocation"]),
        "allocation_tv": metrics.total_variation(mean["allocation"], mean["oracle_allocation"]),
        "effective_teachers": metrics.effective_teachers(mean["allocation"]),
    }


def _cell(values: FloatArray, level: float) -> dict[str, float | None]:
    """Make a cell of the table from a value and its R replicates, (1 + R,); None for what is undefined."""
    low, high = percentile_bounds(values[1:], level)
    cell = {"value": float(values[0]), "low": low, "high": high}
    return {name: value if np.isfinite(value) else None for name, value in cell.items()}
