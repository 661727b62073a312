"""The view of how good the router is."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from persyn_hf.core.pair_calibration import BINS
from persyn_hf.errors import InputError
from persyn_hf.formats import HIT_MEANING
from persyn_hf.recipe.strategies import ROUTED_KINDS
from persyn_hf.space import flow
from persyn_hf.space.explorer import Filter, find
from persyn_hf.space.router_quality import Quality, best_single, leads, router_quality
from persyn_hf.space.scene import Scene
from persyn_hf.space.views.map import elsewhere, sentence
from persyn_hf.store.manifest_parts import judged_on, router_row


METRICS = {  # metric of a router's table -> its title, and what it means
    "gap_closed": ("gap closed", "How much the router gets of the reward between one teacher for all (0) and the best "
                   "teacher for each prompt (1)."),
    "hit_at_1": ("Hit@1, as good as the best", HIT_MEANING.replace("k-th best", "best").capitalize() + "."),
    "hit_at_3": ("Hit@3", HIT_MEANING.replace("k-th", "third").capitalize() + "."),
    "hit_at_5": ("Hit@5", HIT_MEANING.replace("k-th", "fifth").capitalize() + "."),
    "regret": ("regret", "Reward lost to the best teacher of the prompt, the mean over prompts. Less is better."),
    "ndcg_at_3": ("NDCG@3", "How well the first three teachers by score are ordered: their rewards, the later ones "
                  "discounted, against the best order (1)."),
    "kendall_tau": ("Kendall's tau", "Agreement of the order by score with the order by reward, over all pairs of "
                    "teachers of a prompt: 1 the same, 0 no relation, -1 the reverse."),
    "pair_accuracy": ("pairs in the right order", "Of two teachers whose rewards differ, how often the one with the "
                      "higher score has the higher reward. A coin gets a half."),
}  # fmt: skip
FACTS = ("gap_closed", "hit_at_1", "regret", "pair_accuracy")
PERCENT = ("gap_closed", "hit_at_1", "hit_at_3", "hit_at_5", "pair_accuracy")
PLOT = {"left": 124, "right": 312, "row": 24, "width": 340}  # of a picture of intervals
MANY = 8  # teachers whose names fit above the columns of a table


def show(scene: Scene) -> str:
    """Return how good the router is on the prompts that it decided, and on dev prompts, as HTML."""
    assignment = scene.assignment
    kind = assignment.manifest.settings.get("kind")
    if kind not in ROUTED_KINDS:
        words = f"{scene.names[assignment.ref].label} was made by the strategy `{kind}`, which has no router."
        return elsewhere(scene, "No router chose here", words, ("router",))
    if len(scene.pool) < 2:
        return elsewhere(scene, "Nothing was to be chosen", "One teacher answers every prompt.", ())
    router = scene.shelf.input(assignment, "router")
    dev = {} if router is None else {row: router_row(router.manifest.metrics, row) for row in _rows("")}
    found, missing = None, ""
    try:
        found = router_quality(scene.database, assignment, scene.split)
    except InputError as error:
        missing = sentence(error)
    panels = []
    if found is not None:
        words = f"{found.sampled:,} {_of(scene)} that the router decided and whose rewards were measured"
        panels.append(_panel("here", words, found.always, found.table))
    if router is not None and dev.get("router"):
        number = router.manifest.counts.get("dev_prompts", 0)
        words = judged_on(router.manifest.metrics, number)
        split = "calibration" if "by_calibration" in router.manifest.metrics else "dev"
        panels.append(_panel(split, words, best_single(scene.database, assignment), dev))
    if not panels:
        return elsewhere(scene, "The router was not measured here", missing, ("router",))
    return scene.render(
        "router",
        panels=panels,
        missing=missing,
        found=found,
        plot=PLOT,
        clip=flow.clip,
        many=MANY,
        dots=[] if found is None else _dots(scene, found),
        topics=[] if found is None else _topics(scene, found),
        confusion=[] if found is None else _confusion(scene, found),
    )


def _of(scene: Scene) -> str:
    return f"{scene.split} prompts" if scene.split else "prompts"


def _rows(always: str) -> dict[str, str]:
    """Return the rows of a router's table and what they are called."""
    single = f"always {always}" if always else "one for all"
    return {"router": "router", "global_best": single, "random": "random", "oracle": "perfect"}


def _panel(key: str, prompts: str, always: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one set of prompts: what its metrics say in a sentence, in four facts, in pictures and in a table."""
    rows = {row: words for row, words in _rows(always).items() if table.get(row)}
    metrics = {}
    for metric, (title, meaning) in METRICS.items():
        cells = {words: table[row].get(metric) for row, words in rows.items()}
        known = {words: cell for words, cell in cells.items() if cell is not None and cell["value"] is not None}
        if "router" in known:
            metrics[metric] = {
                "title": title,
                "meaning": meaning,
                "text": _text(metric, known["router"]),
                "cells": known,
                "picture": _picture(metric, known),
            }
    return {
        "key": key,
        "prompts": prompts,
        "verdict": _verdict(table["router"].get("gap_closed") or {}, always),
        "metrics": metrics,
        "facts": [metric for metric in FACTS if metric in metrics],
        "rows": list(rows.values()),
    }


def _verdict(gap: Mapping[str, Any], always: str) -> str:
    """Return in a sentence how much the router gains."""
    value, single = gap.get("value"), f"always {always}" if always else "a teacher at random"
    if value is None:
        return f"There is nothing to gain over {single}: no choice is better"
    low, high = gap.get("low"), gap.get("high")
    between = "" if low is None or high is None else f" ({_whole(low)} to {_whole(high)})"
    if round(100 * value) < 0:
        return f"The router does worse than {single}: {_whole(value)} %{between} of the gap to a perfect choice"
    return f"The router closes {_whole(value)} %{between} of the gap between {single} and a perfect choice"


def _whole(share: float) -> str:
    """Return a share in whole percent, without the sign."""
    return f"{round(100 * share):d}".replace("-", "−")


def _text(metric: str, cell: Mapping[str, Any]) -> tuple[str, str]:
    """Return the value of a cell and its interval as text."""
    low, high = cell.get("low"), cell.get("high")
    percent = metric in PERCENT
    value = f"{_whole(cell['value'])} %" if percent else f"{cell['value']:.3f}"
    if low is None or high is None or low == high:
        return value, ""
    return value, f"{_whole(low)} to {_whole(high)}" if percent else f"{low:.3f} to {high:.3f}"


def _picture(metric: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return dots with whiskers, one row per way to choose, and the ticks of their common axis."""
    ends = {words: [cell[side] for side in ("low", "value", "high") if cell.get(side) is not None]
            for words, cell in cells.items()}  # fmt: skip
    steps = flow.ticks([0.0, *(end for row in ends.values() for end in row)])

    def x(value: float) -> float:
        return PLOT["left"] + (value - steps[0]) / (steps[-1] - steps[0]) * (PLOT["right"] - PLOT["left"])

    percent = metric in PERCENT
    return {
        "ticks": [(x(step), f"{100 * step:.6g} %" if percent else f"{step:.6g}") for step in steps],
        "rows": [
            {"words": words, "at": x(cells[words]["value"]), "from": x(min(row)), "to": x(max(row)),
             "text": " ".join(part for part in _text(metric, cells[words]) if part)}
            for words, row in ends.items()
        ],
    }  # fmt: skip


def _dots(scene: Scene, found: Quality) -> list[dict[str, Any]]:
    """Return the bins of the reliability, and the prompts whose first two teachers are as far apart."""
    most = max((row["pairs"] for row in found.reliability), default=1)
    dots = []
    for row in found.reliability:
        lead, margin = leads(min(int(row["predicted"] * BINS), BINS - 1), found.temperature)
        wanted = Filter(split=scene.split, source="router", lead=lead, margin=margin)
        dots.append(
            row
            | {
                "radius": 3 + 6 * (row["pairs"] / most) ** 0.5,
                "lead": (lead, margin),
                "prompts": find(scene.database, scene.assignment, wanted, size=1).total,
                "address": scene.state.prompts(source="router", lead=lead, margin=margin),
            }
        )
    return dots


def _topics(scene: Scene, found: Quality) -> list[dict[str, Any]]:
    """Return the regret by topic, with the prompts that are and are not as good as the best."""
    listed = scene.state.prompts
    return [
        {
            "name": topic,
            "prompts": number,
            "regret": regret,
            "lost": lost,
            "lost_at": listed(topic=topic, source="router", agreement="other"),
            "good_at": listed(topic=topic, source="router", agreement="same"),
        }
        for topic, number, regret, lost in found.topics
    ]


def _confusion(scene: Scene, found: Quality) -> list[dict[str, Any]]:
    """Return the rows of chosen against best; hits and misses are each shaded by the most of their own."""
    counts, same = found.confusion, np.eye(len(found.pool), dtype=bool)
    most = [max(int(counts[among].max(initial=0)), 1) for among in (~same, same)]
    rows = []
    for place, teacher in enumerate(found.pool):
        cells = [
            {
                "best": best,
                "count": int(counts[place, column]),
                "same": place == column,
                "heat": int(counts[place, column]) / most[place == column],
                # a best teacher that is another one may be so where the chosen one was not measured
                "address": scene.state.prompts(
                    teacher=teacher, best=best, source="router", agreement="" if place == column else "other"
                ),
            }
            for column, best in enumerate(found.pool)
        ]
        rows.append({"teacher": teacher, "cells": cells})
    return rows
