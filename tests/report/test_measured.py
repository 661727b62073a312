"""Measurements that are damaged or made up: plan, report, show and diff say so in one sentence."""

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from smoke_run import command

from persyn_hf.cli.main import main
from persyn_hf.errors import DamagedArtifact
from persyn_hf.formats import METRIC_TITLES
from persyn_hf.report import figures, files
from persyn_hf.report.measured import check_measured
from persyn_hf.report.router_comparison import BARS, COLUMNS, INTERVALS
from persyn_hf.store.manifest import MANIFEST, Manifest
from persyn_hf.store.stored import Stored


ANSWERS = {"truncated": 0.0, "errors": 0.1}
ZERO = {"value": 0.0, "low": None, "high": None}
ROW = dict.fromkeys(METRIC_TITLES, ZERO)
ROUTERS = ("knn", *BARS)
CURVE = {word: {"knn": {"10": 0.5, "20": None}} for word in ("mean", "lowest", "highest")}
COMPARED: dict[str, Any] = {
    "best": "knn",
    "trainings": 2,
    "means": {router: dict.fromkeys(COLUMNS, 0.5) for router in ROUTERS},
    "calibration": {"knn": {"error": None}},
    "reliability": {
        "router": "knn",
        "temperature": None,
        "before": [{"predicted": 0.5, "share": 1, "pairs": 3}],
        "after": [],
    },
    "learning_curve": CURVE,
    **{word: dict.fromkeys(ROUTERS, ZERO) for word in INTERVALS},
}
POINT = {"cost": 1.0, "reward": 0.5, "price": None}
GOOD: dict[str, dict[str, Any]] = {
    "prompts": {
        "metrics": {
            "decontamination": {
                "against": ["t"],
                "sets": {"t": {"items": 3, "items_found": 1, "prompts": 2, "all_words": 0}},
                "not_read": {"u": "it is not there"},
            },
            "near_duplicates": {"dev_in_calibration": 1},
        },
    },
    "assignments": {
        "metrics": {
            "allocation": {"a": 1, "b": 0.0},
            "labelling": {
                "cells": {"a": 3},
                "prompts": 3,
                "share": 0.5,
                "prior": {"prompts": 3, "slope": 0.9, "count": {"a": 20.0}},
            },
            "frontier": {"1": POINT},
            "budget": {"cost": 2.0, "prompts": 2, "predicted_reward": 0.5, "price": 0.0},
        },
        "settings": {"budget": {"cost": "flops"}},
    },
    "responses": {
        "metrics": {"teachers": {"a": ANSWERS}},
        "settings": {"engine": "server", "max_tokens": 10},
        "cost": {"teachers": {"a": {"requests": 3, "new": 3}}},
    },
    "rewards": {
        "metrics": {
            "alpha": {
                "prompts": 2,
                "measures": {"0": {"quality_raw": 1.0, "mean_logprob": -1.0, "effective_teachers": 1.0}},
                "allocation": {"0": {"a": 1.0}},
            }
        }
    },
    "router": {
        "metrics": {
            **dict.fromkeys(("router", "random", "global_best", "oracle"), ROW),
            "training": {"chosen": "knn"},
            "by_calibration": {"folds": 5, "prompts": 3, "cells": 6, "gain": ZERO},
            "comparison": COMPARED,
        },
        "settings": {"kind": "auto", "alpha": None},
        "counts": {"dev_prompts": 3},
        "cost": {"candidates": {"knn": {"training_s": 1.0, "prompts_per_s": None}}},
    },
    "student": {"metrics": {"trained_tokens": 5}, "counts": {"trained": 3}},
    "evaluation": {"metrics": {"t": {"num_items": 3, "too_long": 1}}, "settings": {"max_tokens": 5}},
    "pairs": {"metrics": {"any": ["thing"]}},
}


def stored(kind: str, parts: dict[str, Any]) -> Stored:
    manifest = Manifest(stage="s", kind=kind, schema_version=1, repo="me/x", **parts)
    path = Path("/store/datasets--me--x/snapshots/c")
    return Stored(repo="me/x", kind=kind, tag="v1", digest="d", path=path, manifest=manifest)


def changed(parts: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """The parts with another value at a dotted place; `...` leaves it out."""
    made = deepcopy(parts)
    *path, last = where.split("/")
    at = made
    for key in path:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return made


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_read_is_there(kind: str) -> None:
    assert check_measured(stored(kind, GOOD[kind])).kind == kind


@pytest.mark.parametrize(
    ("kind", "where", "value"),
    [
        ("assignments", "metrics/allocation", ["a"]),
        ("assignments", "metrics/allocation", ...),
        ("assignments", "metrics/allocation/a", 2),
        ("assignments", "metrics/allocation/a", None),
        ("assignments", "metrics/labelling", None),
        ("assignments", "metrics/labelling/cells/a", "3"),
        ("assignments", "metrics/labelling/prior/slope", None),
        ("assignments", "metrics/frontier/1/reward", None),
        ("assignments", "metrics/budget", ...),
        ("assignments", "metrics/budget/cost", ...),
        ("assignments", "settings/budget", None),
        ("assignments", "settings/budget/cost", "euros"),
        ("assignments", "metrics/chosen", 3),
        ("responses", "metrics/teachers", 5),
        ("responses", "metrics/teachers/a", 5),
        ("responses", "metrics/teachers/a", ...),  # it was paid
        ("responses", "metrics/teachers/a/errors", ...),
        ("responses", "metrics/teachers/a/mean_tokens", "x"),
        ("responses", "settings/max_tokens", "x"),
        ("responses", "settings/engine", None),
        ("rewards", "metrics/alpha/prompts", 2.5),
        ("rewards", "metrics/alpha/allocation/0/a", "x"),
        ("rewards", "metrics/alpha/allocation", {}),
        ("rewards", "metrics/alpha/measures/0/mean_logprob", ...),
        ("rewards", "metrics/alpha/measures/0/quality_raw", None),
        ("rewards", "metrics/alpha/measures/x", {}),
        ("router", "metrics/router/regret", ...),
        ("router", "metrics/oracle/regret/low", ...),
        ("router", "metrics/by_calibration/gain/high", ...),
        ("router", "metrics/by_calibration", None),
        ("router", "metrics/training/chosen", ...),
        ("router", "metrics/comparison", None),
        ("router", "metrics/comparison/means/oracle", ...),
        ("router", "metrics/comparison/means/knn/regret", None),
        ("router", "metrics/comparison/gap_closed/oracle", ...),
        ("router", "metrics/comparison/reliability/before", [3]),
        ("router", "metrics/comparison/learning_curve/lowest/knn/20", ...),
        ("router", "metrics/comparison/learning_curve/mean/knn/x", 0.5),
        ("router", "metrics/comparison/learning_curve/steps", {"knn": {"10": 4.0}}),
        ("router", "settings/alpha", ...),
        ("router", "counts/dev_prompts", ...),
        ("router", "cost/candidates", ...),
        ("student", "metrics/trained_tokens", "5"),
        ("student", "counts/trained", ...),
        ("prompts", "metrics/decontamination", 3),
        ("prompts", "metrics/decontamination/against", ...),
        ("prompts", "metrics/decontamination/sets/t/items", "3"),
        ("prompts", "metrics/decontamination/not_read/u", None),
        ("prompts", "metrics/near_duplicates/dev_in_calibration", -1),
        ("evaluation", "metrics/t", 5),
        ("evaluation", "metrics/t/num_items", ...),
        ("evaluation", "settings/max_tokens", "x"),
    ],
)
def test_what_is_read_and_not_there_is_one_sentence(kind: str, where: str, value: Any) -> None:
    with pytest.raises(DamagedArtifact) as caught:
        check_measured(stored(kind, changed(GOOD[kind], where, value)))
    said = str(caught.value)
    assert said.startswith(f"me/x@v1: its persyn.json does not hold what is read of a `{kind}` (")
    assert "\n" not in said and "persyn artifacts pull me/x@v1" in said


def test_rewards_of_which_no_prompt_counts_have_no_sweep() -> None:
    for metrics in ({}, {"alpha": {}}):
        check_measured(stored("rewards", {"metrics": metrics}))


ODD = [None, True, 0, -1, 5, 10**18, 1e308, "", "x", [], ["a"], {}, {"a": 1}, {"value": 1}]
PARTS = ("metrics", "metrics", "metrics", "cost", "counts", "settings", "teachers", "student", "rows")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested values."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@pytest.fixture(scope="module")
def damaged(finished: tuple[Path, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished store, to be damaged."""
    return shutil.copytree(finished[0], tmp_path_factory.mktemp("damaged") / "store", symlinks=True)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_manifest_ends_a_command_in_a_traceback(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    """Any value of any manifest of a real store is another one, or gone; figures are drawn and not written."""
    for module in (figures, files):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: [])
    path = data.draw(st.sampled_from(sorted(damaged.glob(f"*/snapshots/*/{MANIFEST}"))))
    whole = path.read_bytes()
    manifest = json.loads(whole)
    ref = f"{manifest['repo']}@v1"
    part = data.draw(st.sampled_from(PARTS))
    *above, last = (part, *data.draw(st.sampled_from(list(places(manifest[part])))))
    at = manifest
    for key in above:
        at = at[key]
    if above and data.draw(st.booleans()):
        del at[last]
    else:
        at[last] = data.draw(st.sampled_from(ODD))
    _, recipe, _, store, *sets = command(damaged)
    try:
        path.resolve().write_text(json.dumps(manifest))
        for words in (
            ["plan", recipe, *sets],
            ["report", recipe, *sets, "--out", str(damaged.parent / "report")],
            ["artifacts", "show", ref],
            ["artifacts", "diff", ref, "tiny/smoke-prompts@v1"],
        ):
            code, said = main([*words, "--store", store]), capsys.readouterr()
            assert code in (0, 1, 2)
            assert said.err.count("\n") == (code == 2), said.err
    finally:
        path.resolve().write_bytes(whole)
