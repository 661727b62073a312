"""What the stored manifests of a recipe say, as plain numbers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from persyn_hf.recipe import Recipe, Student
from persyn_hf.store.manifest import Manifest


class Spent(NamedTuple):
    """Responses sampled, and the same for generate-then-select: every teacher on every prompt."""

    calibration: int
    pool: int
    generate_then_select: int


def allocations(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> dict[str, dict[str, float]]:
    """Strategy -> teacher -> share of the pool's prompts."""
    keys = {strategy.name: f"assignments-{student.name}-{strategy.name}" for strategy in recipe.strategies}
    return {name: manifests[key].metrics["allocation"] for name, key in keys.items() if key in manifests}


def accuracies(
    recipe: Recipe, manifests: Mapping[str, Manifest], student: Student
) -> dict[str, tuple[float, float, float]]:
    """Strategy (`base`: the student before SFT) -> accuracy and its 95 % interval, mean over the tasks."""
    keys = {name: f"evaluation-{student.name}-{name}" for name in ("base", *(s.name for s in recipe.strategies))}
    results = {}
    for name, key in keys.items():
        if key in manifests:
            tasks = [task for task in manifests[key].metrics.values() if task["accuracy"] is not None]
            mean, low, high = (sum(task[k] for task in tasks) / len(tasks) for k in ("accuracy", "low", "high"))
            results[name] = (mean, low, high)
    return results


def spent(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student, strategy: str) -> Spent | None:
    """Responses that the strategy needs when it is run alone; None while its responses are not stored."""
    own = manifests.get(f"responses-{student.name}-{strategy}")
    matrix = manifests.get("responses")
    if own is None or matrix is None:
        return None
    kind = next(s.kind for s in recipe.strategies if s.name == strategy)
    per_split = {split: own.counts.get(f"rows_{split}", 0) for split in ("calibration", "pool")}
    per_split["dev"] = 0
    everything = generate_then_select(recipe, manifests)
    if kind == "oracle":
        return Spent(matrix.counts["rows_calibration"], everything - matrix.counts["rows_calibration"], everything)
    measured = kind not in ("strong", "family_strong", "mix")  # these choose without looking at any answer
    calibration = matrix.counts["rows_calibration"] if measured else per_split["calibration"]
    return Spent(calibration, per_split["pool"], everything)


def generate_then_select(recipe: Recipe, manifests: Mapping[str, Manifest]) -> int:
    """Responses sampled when every teacher answers every calibration and pool prompt."""
    matrix, prompts = manifests["responses"], manifests["prompts"]
    per_prompt = matrix.counts["rows_calibration"] / max(1, prompts.counts["rows_calibration"])
    return round(per_prompt * (prompts.counts["rows_calibration"] + prompts.counts["rows_pool"]))


def router_metrics(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> dict[str, dict[str, Any]]:
    """Router key -> its metrics on the dev prompts beside random, global best and oracle."""
    prefix = f"router-{student.name}"
    return {key: m.metrics for key, m in manifests.items() if key == prefix or key.startswith(f"{prefix}-")}
