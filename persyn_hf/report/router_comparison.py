"""Tables of a comparison of routers (`train_router: {kind: auto}`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from persyn_hf.core.pair_calibration import BINS
from persyn_hf.formats import METRIC_TITLES, UNKNOWN
from persyn_hf.report.tables import Shown, Table, shown, shown_metric
from persyn_hf.store.manifest import Manifest


# Calibration errors and the gap closed have columns of their own.
COLUMNS = {name: title for name, title in METRIC_TITLES.items() if name not in ("calibration_error", "gap_closed")}
MEANING = (
    "Hit@k: a best teacher is among the first k; regret: reward lost to the oracle; NDCG@3: rewards of the first 3, "
    "the first counting most, against those of the best 3; tau, pairs: order of the teachers; JS: allocation against "
    "the oracle's"
)
INTERVALS = {"gap_closed": "{:.2f}", "gain_over_global_best": "{:+.4f}", "gain_over_best": "{:+.4f}"}
BARS = ("global_best", "random", "oracle")  # what every router is measured against


def comparison_tables(name: str, manifest: Manifest) -> Iterator[Table]:
    """Of a router that was chosen among several; nothing where it was not. `name`: the end of the tables' names."""
    found = manifest.metrics.get("comparison")
    if not found:
        return
    learned = sorted((one for one in found["means"] if one not in BARS), key=lambda one: found["means"][one]["regret"])
    yield _metrics(name, found, manifest, [*learned, *BARS])
    yield _differences(name, found, [*learned, *BARS[:2]])
    if "learning_curve" in found:
        yield _learning_curve(name, found["learning_curve"], [*learned, *BARS])
    yield _reliability(name, found["reliability"])


def _metrics(name: str, found: Mapping[str, Any], manifest: Manifest, order: list[str]) -> Table:
    rows, times = [], manifest.cost["candidates"]
    for one in order:
        mean, calibration, took = found["means"][one], found["calibration"].get(one, {}), times.get(one, {})
        errors = (calibration.get("error"), calibration.get("error_at_temperature"))
        seconds, speed = took.get("training_s"), took.get("prompts_per_s")
        rows.append(
            [
                one.replace("_", " "),
                *(shown("{:.3f}", mean[metric]) for metric in COLUMNS),
                *(shown("{:.3f}", error) for error in errors),
                shown("{:,.2f}", seconds),
                shown("{:,.0f}", speed),
            ]
        )
    return Table(
        name=f"router-bench-{name}",
        title=f"Router bench for {name}: {manifest.counts['dev_prompts']} dev prompts, mean of {found['trainings']} "
        "trainings each",
        header=["router", *COLUMNS.values(), "ECE", "at T", "train s", "prompts/s"],
        rows=rows,
        note=f"{MEANING}; ECE: calibration error of the scores, at T: at a temperature fitted on the validation "
        "prompts; seconds and rate: from the text on, on this machine",
    )


def _differences(name: str, found: Mapping[str, Any], order: list[str]) -> Table:
    """What decides: paired differences with their intervals."""
    rows = [
        [
            one.replace("_", " "),
            *(shown_metric(form, found[word][one]) for word, form in INTERVALS.items()),
        ]
        for one in order
    ]
    return Table(
        name=f"router-differences-{name}",
        title=f"Which router is better for {name}? Paired over the dev prompts, 95 % bootstrap intervals",
        header=["router", "gap closed", "reward over global best", "reward over the best"],
        rows=rows,
        note="an interval that holds 0 shows no difference; gap closed: from global best (0) to oracle (1); "
        f"the best: {found['best']}, of least regret on these prompts but for global best, which flatters it",
    )


def _learning_curve(name: str, curve: Mapping[str, Any], order: list[str]) -> Table:
    known = [one for one in order if one in curve["mean"]]
    sizes = sorted({int(size) for one in known for size in curve["mean"][one]})
    words = ("mean", "lowest", "highest")
    rows = [
        [one.replace("_", " "), *(_range(*(curve[word][one][str(size)] for word in words)) for size in sizes)]
        for one in known
    ]
    steps = curve.get("steps", {})
    rows += [
        [f"steps of {one}", *(shown("{:,.0f}", steps[one][str(size)]) for size in sizes)]
        for one in known
        if one in steps
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
    if mean is None or low is None or high is None:
        return Shown(UNKNOWN, None)
    return Shown(f"{100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f})", mean, low, high)


def _reliability(name: str, found: Mapping[str, Any]) -> Table:
    """A row per bin of predictions; bins of equal width, so the two predictions of a row lie in the same one."""
    bins: dict[int, dict[str, Any]] = {}
    for word in ("before", "after"):
        for row in found[word]:
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
    at = "no T" if found["temperature"] is None else f"T = {found['temperature']:.3g}"
    return Table(
        name=f"reliability-{name}",
        title=f"Reliability of {found['router']} for {name}: predicted preference, share that was preferred, pairs",
        header=["bin", "predicted", "share", "pairs", f"predicted, {at}", f"share, {at}", f"pairs, {at}"],
        rows=rows,
        note="both orientations of every pair; without a temperature only where differences of scores are log-odds",
    )
