"""Find the steps that run anew when a setting is changed, by what the plan and the fingerprints know of settings.

The answer is that of an example recipe with every kind of strategy and all stages. A step runs anew if its own
fingerprint covers the setting, if it is another step by the plan, or if one of its inputs is made anew.
"""

import copy
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.recipe import STAGES, Recipe
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.runner.fingerprint import fingerprint, not_covered
from persyn_hf.runner.plan import PHASES, make_plan, takes
from persyn_hf.runner.step import Step


OPTIONS: dict[str, dict[str, Any]] = {
    "persyn": {"per_prompt": 2},
    "no_quality": {"budget": {"cost": "money", "lambda": 0.1}},
    "strong": {"teacher": "a"},
    "family_strong": {"teacher": "a"},
    "reassign": {"base": "mix", "from_teachers": ["a"], "to_teacher": "c"},
}
EXAMPLE: dict[str, Any] = {
    "name": "example",
    "teachers": [{"name": name, "model": f"lab/{name}", "price": {"completion": 1}} for name in ("d", "a", "b", "c")],
    "students": [{"name": "s", "model": "lab/s"}],
    "strategies": [{"kind": kind, "name": kind, **OPTIONS.get(kind, {})} for kind in KINDS],
    "prompts": {"path": "prompts.jsonl"},
    "evaluate": {"tasks": [{"name": "test", "path": "test.jsonl"}]},
}

# Some settings of `calibration` have a meaning only beside others. The first one is that of all other settings.
CALIBRATIONS: tuple[dict[str, Any], ...] = (
    {"strategy": "full"},
    {"strategy": "successive_halving"},
    {"strategy": "successive_halving", "stop": "gain"},
)

# Values of many types. A setting takes the first one that the recipe allows and that changes a step.
TEXTS = ("b", "d", "car", "knn", "uncertainty", "vllm", "gain", "lab/rewards@v1")
MAPPINGS = ({"b": 2}, {"max": {"b": 0.5}}, {"cost": "tokens", "total": 2}, {"prompts": "lab/prompts@v1"})
OTHERS: tuple[Any, ...] = (True, 0.5, 2, *TEXTS, ["b"], [1, 2], *MAPPINGS)


def runs_anew(path: str) -> tuple[str, ...]:
    """Return the phases (`persyn_hf.runner.plan.PHASES`) of all steps that run anew, in the order in which they run.

    path: dotted, as in `score.alpha` or `teachers.params_b`; entries of lists are not numbered. It is that of a
    setting, not of a section.
    """
    section, *inside = path.split(".")
    if section in STAGES:
        own = [step for step in _steps() if step.stage == section and takes(step, inside[0])]
        return _phases(_with_later(_steps(), [step for step in own if not _left_out(inside, not_covered(step))]))
    if section in ("name", "namespace"):
        return _phases(_steps())  # artifacts of another name are others
    return _phases(step for place in _places(section, *inside) for step in _first_difference(place))


def follow(phase: str) -> tuple[str, ...]:
    """Return the phases of all steps that are made from what a phase makes, directly or not."""
    steps = _steps()
    found = _phases(_with_later(steps, [step for step in steps if step.phase == phase]))
    return tuple(other for other in found if other != phase)


@functools.cache
def _steps(calibration: int = 0) -> tuple[Step, ...]:
    return tuple(_plan(EXAMPLE | {"calibration": CALIBRATIONS[calibration]}))


def _plan(recipe: dict[str, Any]) -> list[Step]:
    return make_plan(Recipe.model_validate(recipe))


def _phases(steps: Iterable[Step]) -> tuple[str, ...]:
    found = {step.phase for step in steps}
    return tuple(phase for phase in PHASES if phase in found)


def _left_out(path: Sequence[str], names: frozenset[str]) -> bool:
    """Say whether fingerprints leave out a setting, or a section that it is in."""
    return any(".".join(path[: place + 1]) in names for place in range(len(path)))


def _with_later(steps: Sequence[Step], own: Iterable[Step]) -> list[Step]:
    """Return the steps that are `own`, or made from what these make, directly or not."""
    keys = {step.key for step in own}
    for step in steps:  # in order, so that inputs come first
        if keys & set(step.inputs.values()):
            keys.add(step.key)
    return [step for step in steps if step.key in keys]


def _places(section: str, *inside: str) -> list[list[Any]]:
    """Return the places in the example, as keys and indices, of a setting that is in no stage's section."""
    if section == "strategies":  # a budget is changed whole
        known = (kind.takes | {"kind", "name"} for kind in KINDS.values())
        return [[section, place, inside[0]] for place, takes in enumerate(known) if inside[0] in takes]
    if section == "calibration":  # likewise
        return [[section, inside[0]]]
    return [[section, 0, *inside]] if section in ("teachers", "students") else [[section, *inside]]


def _first_difference(place: Sequence[Any]) -> list[Step]:
    """Return the steps that another value of a setting makes other ones; none where no value does."""
    for number in range(len(CALIBRATIONS) if place[0] == "calibration" else 1):
        known = {_identity(step) for step in _steps(number)}
        for value in OTHERS:
            recipe = copy.deepcopy(EXAMPLE | {"calibration": CALIBRATIONS[number]})
            part: Any = recipe
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = value
            try:
                steps = _plan(recipe)
            except (ValidationError, RecipeError):
                continue
            if found := [step for step in steps if _identity(step) not in known]:
                return _with_later(steps, found)
    return []


def _identity(step: Step) -> tuple[str, str]:
    """Return the name of a step, and its fingerprint with the names of its inputs in place of their digests."""
    return step.key, fingerprint(step, step.seed, step.inputs)
