"""The view of what other weights would have chosen."""

import math
from typing import Any

import numpy as np

from persyn_hf.core.rewards import How
from persyn_hf.formats import amount, flops
from persyn_hf.report.results import LEARNABILITY
from persyn_hf.space import flow, pages, whatif
from persyn_hf.space.explorer import previews
from persyn_hf.space.scene import Scene
from persyn_hf.space.whatif_data import PAPERS, Measured


FIRST = 10  # of the prompts that move are shown
MANY = 30  # pairs of teachers that are shown
PAPERS_HOW: How = "minmax"
PREFIXES = ("", "K", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")  # of FLOPs
CHART = {"left": 52, "right": 330, "top": 34, "bottom": 176}  # of a picture of 340 x 220


def show(scene: Scene) -> str:
    """Return the choices under the weights of the state as HTML."""
    if len(scene.pool) < 2:
        return pages.message("Nothing would change", "One teacher answers every prompt under any weights.")
    rewards, state = scene.load(), scene.state
    weights = {name: state[name] for name in ("alpha", "how", "lambda")}
    setting = (float(state["alpha"]), state["how"], float(state["lambda"]))
    counts = whatif.moved(rewards, *setting)
    now, own = whatif.what_if(rewards, *setting), whatif.what_if(rewards, rewards.alpha, rewards.how)
    paper = whatif.what_if(rewards, PAPERS, PAPERS_HOW)
    return scene.render(
        "whatif",
        rewards=rewards,
        weights=weights,
        outcomes=[("now", now), ("the recipe's", own), ("the paper's", paper)],
        moved=int(counts.sum() - np.trace(counts)),
        moved_to=lambda was="", becomes="": state.prompts(weights, moved="moved", was=was, becomes=becomes),
        flow=flow.flow(counts),
        sizes=flow,
        pairs=_pairs(rewards, counts),
        many=MANY,
        first=_first(scene, rewards, setting),
        stacks=_stacks(scene, rewards, setting, weights),
        charts=_charts(rewards, setting),
        box=CHART,
        marks=_marks(rewards, setting[0]),
        measure=LEARNABILITY[rewards.measure],
        cost=lambda outcome: "–" if outcome.cost is None else _cost(rewards, outcome.cost),
        paper=(PAPERS, PAPERS_HOW),
    )


def _cost(rewards: Measured, number: float) -> str:
    return flops(number) if rewards.unit == "FLOPs" else f"{amount(number)} {rewards.unit}"


def _pairs(rewards: Measured, counts: Any) -> list[tuple[str, str, int]]:
    """Return teacher before, teacher after and how many prompts move between them, the most first."""
    pairs = [
        (rewards.pool[was], rewards.pool[becomes], int(counts[was, becomes]))
        for was, becomes in zip(*np.nonzero(counts), strict=True)
        if was != becomes
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _first(scene: Scene, rewards: Measured, setting: tuple[float, How, float]) -> list[dict[str, str]]:
    """Return the first prompts that move: their text, and the teachers before and after."""
    before, after = whatif.by_recipe(rewards).teacher, whatif.choices(rewards, *setting).teacher
    rows = np.flatnonzero(before != after)[:FIRST].tolist()
    ids = [rewards.ids[row] for row in rows]
    places = [rewards.places[prompt_id] for prompt_id in ids if prompt_id in rewards.places]
    words = previews(scene.database, scene.assignment, ids, places)
    return [
        {
            "id": prompt_id,
            "text": words.get(prompt_id) or prompt_id,
            "was": rewards.pool[before[row]],
            "becomes": rewards.pool[after[row]],
        }
        for row, prompt_id in zip(rows, ids, strict=True)
    ]


def _stacks(
    scene: Scene, rewards: Measured, setting: tuple[float, How, float], weights: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return shares on the same prompts: of the assignment, and of the best choices by both weights.

    `ties` is the part of each share in which another teacher is exactly as good, `addresses` where they are listed.
    """
    recipe, now, n, state = (
        whatif.by_recipe(rewards),
        whatif.choices(rewards, *setting),
        len(rewards.pool),
        scene.state,
    )
    chosen = whatif.Choice(teacher=rewards.chosen, tied=recipe.tied & (rewards.chosen == recipe.teacher))
    lines = [
        (scene.names[scene.assignment.ref].label, chosen, lambda name: state.prompts(teacher=name)),
        ("best by the recipe's weights", recipe, lambda name: state.prompts(was=name)),
        ("best by these weights", now, lambda name: state.prompts(weights, becomes=name)),
    ]
    return [
        {
            "label": label,
            "shares": dict(zip(rewards.pool, choice.shares(n).tolist(), strict=True)),
            "ties": dict(zip(rewards.pool, choice.shares(n, choice.tied).tolist(), strict=True)),
            "addresses": {name: address(name) for name in scene.looks},
        }
        for label, choice, address in lines
    ]


def _marks(rewards: Measured, alpha: float) -> list[dict[str, Any]]:
    """Return the alphas that stand out in a chart: their words, and the line on which these stand."""
    words: dict[float, str] = {PAPERS: "paper"}
    words[rewards.alpha] = "paper and recipe" if rewards.alpha == PAPERS else "recipe"
    marks = [{"alpha": place, "words": text, "line": 0, "now": False} for place, text in words.items()]
    return [*marks, {"alpha": alpha, "words": "now", "line": 1, "now": True}]


def _charts(rewards: Measured, setting: tuple[float, How, float]) -> list[dict[str, Any]]:
    """Return a line over alpha per mean, in the units of the picture, with its ticks and the value now."""
    now = whatif.what_if(rewards, *setting)
    sweep = dict(sorted((whatif.curve(rewards, *setting[1:]) | {setting[0]: now}).items()))
    unit = "nats" if rewards.measure == "mean_logprob" else ""
    fields = [("mean quality", "quality", ""), (f"mean {LEARNABILITY[rewards.measure]}", "learnability", unit)]
    fields += [("cost per prompt", "cost", rewards.unit)] if rewards.cost is not None else []
    return [
        _chart(title, unit, {alpha: getattr(one, field) for alpha, one in sweep.items()}, setting[0])
        for title, field, unit in fields
    ]


def _chart(title: str, unit: str, line: dict[float, float], now: float) -> dict[str, Any]:
    """Return one line: alpha -> value, in `unit`; large numbers get a prefix."""
    power = 0 if max(map(abs, line.values())) < 1e4 else int(math.log10(max(map(abs, line.values()))) // 3)
    power = min(power, len(PREFIXES) - 1)
    values = {alpha: value / 1000**power for alpha, value in line.items()}
    steps = flow.ticks(list(values.values()))
    ends = min(values), max(values)
    return {
        "title": title,
        "unit": f"{PREFIXES[power]}{unit}" if unit == "FLOPs" or not power else f"{unit} in {1000**power:,}s",
        "ticks": [(_y(step, steps), f"{step:.6g}") for step in steps],
        "points": [(_x(alpha), _y(value, steps)) for alpha, value in values.items()],
        "now": (_x(now), _y(values[now], steps)),
        "value": f"{values[now]:.4g}",
        "range": " to ".join(f"{values[alpha]:.4g} at alpha {alpha:g}" for alpha in ends),
    }


def _x(alpha: float) -> float:
    """Return where an alpha stands in a chart."""
    return CHART["left"] + alpha * (CHART["right"] - CHART["left"])


def _y(value: float, steps: list[float]) -> float:
    """Return where a value stands in a chart whose axis runs over these ticks."""
    share = (value - steps[0]) / (steps[-1] - steps[0])
    return CHART["bottom"] - share * (CHART["bottom"] - CHART["top"])
