"""Tables of a comparison of several routers (`train_router: {kind: auto}`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from persyn_hf.core.pair_calibration import BINS
from persyn_hf.formats import HIT_MEANING, METRIC_TITLES, UNKNOWN
from persyn_hf.report.tables import Shown, Table, shown, shown_metric
from persyn_hf.store.manifest import Manifest


# Calibration errors and the gap closed have columns of their own.
COLUMNS = {name: title for name, title in METRIC_TITLES.items() if name not in ("calibration_error", "gap_closed")}
MEANING = (
    f"Hit@k: {HIT_MEANING}; regret: reward lost to the oracle; NDCG@3: rewards of the first 3, the first counting "
    "most, against those of the best 3; tau, pairs: order of the teachers; JS: allocation against the oracle's"
)
INTERVALS = {"gap_closed": "{:.2f}", "gain_over_global_best": "{:+.4f}", "gain_over_best": "{:+.4f}"}
BARS = ("global_best", "random", "oracle")  # what every router is measured against


def comparison_tables(name: str, manifest: Manifest) -> Iterator[Table]:
    """Yield the tables of a router that was chosen among several; none where it was not.

    Args:
        name: the end of the tables' names.
        manifest: the manifest of the router.
    """
    compared = manifest.metrics.get("comparison")
    if not compared:
        return
    means = compared["means"]
    learned = sorted((router for router in means if router not in BARS), key=lambda router: means[router]["regret"])
    yield _metrics(name, compared, manifest, [*learned, *BARS])
    yield _differences(name, compared, [*learned, *BARS[:2]])
    if "learning_curve" in compared:
        yield _learning_curve(name, compared["learning_curve"], [*learned, *BARS])
    yield _reliability(name, compared["reliability"])


def _metrics(name: str, compared: Mapping[str, Any], manifest: Manifest, order: list[str]) -> Table:
    """Return the table of each router's mean metrics, calibration errors and speed; yardsticks come last."""
    rows, times = [], manifest.cost["candidates"]
    for router in order:
        mean, took = compared["means"][router], times.get(router, {})
        calibration = compared["calibration"].get(router, {})
        errors = (calibration.get("error"), calibration.get("error_at_temperature"))
        seconds, speed = took.get("training_s"), took.get("prompts_per_s")
        rows.append(
            [
                router.replace("_", " "),
                *(shown("{:.3f}", mean[metric]) for metric in COLUMNS),
                *(shown("{:.3f}", error) for error in errors),
                shown("{:,.2f}", seconds),
                shown("{:,.0f}", speed),
            ]
        )
    return Table(
        name=f"router-bench-{name}",
        title=f"Router bench for {name}: {manifest.counts['dev_prompts']} dev prompts, mean of "
        f"{compared['trainings']} trainings each",
        header=["router", *COLUMNS.values(), "ECE", "at T", "train s", "prompts/s"],
        rows=rows,
        note=f"{MEANING}; ECE: calibration error of the scores, at T: at a temperature fitted on the validation "
        "prompts; seconds and rate: from the text on, on this machine",
    )


def _differences(name: str, compared: Mapping[str, Any], order: list[str]) -> Table:
    """Return the table that decides: paired differences of the routers with their intervals."""
    rows = [
        [
            router.replace("_", " "),
            *(shown_metric(form, compared[word][router]) for word, form in INTERVALS.items()),
        ]
        for router in order
    ]
    return Table(
        name=f"router-differences-{name}",
        title=f"Which router is better for {name}? Paired over the dev prompts, 95 % bootstrap intervals",
        header=["router", "gap closed", "reward over global best", "reward over the best"],
        rows=rows,
        note="an interval that holds 0 shows no difference; gap closed: from global best (0) to oracle (1); "
        f"the best: {compared['best']}, of least regret on these prompts but for global best, which flatters it",
    )


def _learning_curve(name: str, curve: Mapping[str, Any], order: list[str]) -> Table:
    """Return the table of the gap closed by the number of calibration prompts."""
    routers = [router for router in order if router in curve["mean"]]
    sizes = sorted({int(size) for router in routers for size in curve["mean"][router]})
    words = ("mean", "lowest", "highest")
    rows = [
        [router.replace("_", " "), *(_range(*(curve[word][router][str(size)] for word in words)) for size in sizes)]
        for router in routers
    ]
    steps = curve.get("steps", {})
    rows += [
        [f"steps of {router}", *(shown("{:,.0f}", steps[router][str(size)]) for size in sizes)]
        for router in routers
        if router in steps
    ]
    return Table(
        name=f"learning-curve-{name}",
        title=f"Gap closed for {name}, in per cent, by number of calibration prompts: mean, range over the trainings",
        header=["router", *(f"{size:,}" for size in sizes)],
        rows=rows,
        note="each training draws prompts of its own, and the larger number holds the smaller"
        + ("; steps: optimiser steps, mean over the trainings" if steps else ""),
    )


def _range(mean: float | None, low: float | None, high: float | None) -> Shown:
    """Return a mean with its range over the trainings, in per cent."""
    if mean is None or low is None or high is None:
        return Shown(UNKNOWN, None)
    return Shown(f"{100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f})", mean, low, high)


def _reliability(name: str, reliability: Mapping[str, Any]) -> Table:
    """Return the table of predicted against true preferences, a row per bin of predictions.

    Bins have equal width, so the prediction before and the one at the temperature stand in a row where both lie in its
    bin.
    """
    bins: dict[int, dict[str, Any]] = {}
    for word in ("before", "after"):
        for row in reliability[word]:
            bins.setdefault(min(int(row["predicted"] * BINS), BINS - 1), {})[word] = row
    rows = []
    for number, both in sorted(bins.items()):
        cells = [f"{number / BINS:.2f} to {(number + 1) / BINS:.2f}"]
        for word in ("before", "after"):
            row = both.get(word, {})
            cells += [
                *(shown("{:.3f}", row.get(key)) for key in ("predicted", "share")),
                shown("{:,}", row.get("pairs", 0)),
            ]
        rows.append(cells)
    at = "no T" if reliability["temperature"] is None else f"T = {reliability['temperature']:.3g}"
    return Table(
        name=f"reliability-{name}",
        title=f"Reliability of {reliability['router']} for {name}: predicted preference, share that was preferred, "
        "pairs",
        header=["bin", "predicted", "share", "pairs", f"predicted, {at}", f"share, {at}", f"pairs, {at}"],
        rows=rows,
        note="both orientations of every pair; without a temperature only where differences of scores are log-odds",
    )
