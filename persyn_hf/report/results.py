"""Plain numbers from the stored manifests of a recipe."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.store.manifest import Manifest


# Measures of learnability, as tables and figures name them: higher is more learnable.
LEARNABILITY = {"mean_logprob": "log-prob per token", "rank_surprisal": "negative rank-surprisal"}


def allocations(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> dict[str, dict[str, float]]:
    """Return the share of the pool's prompts that each teacher gets: strategy -> teacher -> share."""
    keys = {strategy.name: names.assignments(student, strategy) for strategy in recipe.strategies}
    return {name: manifests[key].metrics["allocation"] for name, key in keys.items() if key in manifests}


def same_teacher(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Return which strategies of one student give every prompt to the same teacher, in words; empty where none do."""
    by_teacher: dict[str, list[str]] = {}
    for strategy, allocation in shares.items():
        chosen = [teacher for teacher, share in allocation.items() if share]
        if len(chosen) == 1:
            by_teacher.setdefault(chosen[0], []).append(strategy)
    return "; ".join(
        f"{', '.join(strategies[:-1])} and {strategies[-1]} come to the same teacher, {teacher}: one experiment"
        for teacher, strategies in by_teacher.items()
        if len(strategies) > 1
    )


def alpha_sweep(manifests: Mapping[str, Manifest], student: Student) -> dict[str, Any]:
    """Return what each alpha would have chosen on the measured prompts; empty where it is not known."""
    manifest = manifests.get(names.matrix_rewards(student))
    return dict(manifest.metrics.get("alpha", {})) if manifest else {}


def measure_of(sweep: Mapping[str, Any]) -> str:
    """Return the measure of learnability that a sweep was made with."""
    return next(name for name in LEARNABILITY if name in sweep["measures"]["0"])


def router_metrics(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> dict[str, dict[str, Any]]:
    """Return the metrics of every stored router on the dev prompts, by the key of its step."""
    keys = dict.fromkeys(names.router(student, s) for s in recipe.strategies if KINDS[s.kind].needs == "router")
    return {key: manifests[key].metrics for key in keys if key in manifests}
