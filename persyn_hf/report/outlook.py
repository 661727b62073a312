"""What is known of a recipe before it runs, and what is assumed of the rest."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from persyn_hf.core.cost import Cost, generation_flops
from persyn_hf.recipe import Recipe, Strategy, Student
from persyn_hf.store.manifest import Manifest


# GPU time of answers that nothing is known of: so many tokens, by an A100 at a tenth of its peak, which is less than
# vLLM makes of one at best. docs/paper.md has the grounds.
A100_FLOPS = 312e12  # a second, dense bfloat16
GENERATING = 0.1  # share of them
ANSWER_TOKENS = {False: 600, True: 6000}  # by `long_cot`


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is known of a recipe before it runs."""

    recipe: Recipe
    steps: Sequence[tuple[str, str, str]]  # key, stage, state: done, partly done or new
    manifests: Mapping[str, Manifest]  # what is stored, by the key of its step
    sizes: Mapping[str, int] | None  # prompts per split; None: not known yet
    cells: Mapping[str, Cost]  # per teacher, one (prompt, teacher) cell with all its samples; empty: none is asked
    bounded: Set[str] = frozenset()  # teachers whose cells are bounds, for want of stored answers
    assumed: Set[str] = frozenset()  # those of them whose GPU time is the one above
    settings: Mapping[str, Any] = field(default_factory=dict)  # of each stage that runs
    measured: Mapping[str, int] = field(default_factory=dict)  # artifact -> its answers that the others are means over
    at_most: bool = False  # fewer samples may do


def assumed_gpu_seconds(params_b: float, long_cot: bool, samples: int, max_tokens: int) -> float:
    """Of one cell, on an A100."""
    tokens = samples * min(max_tokens, ANSWER_TOKENS[long_cot])
    return generation_flops(params_b, tokens) / (A100_FLOPS * GENERATING)


def num_calibration(outlook: Outlook, sizes: Mapping[str, int], teacher: str) -> float:
    """Calibration prompts that a teacher answers; in part, as assigned, else its even part of the share."""
    calibration, whole = outlook.recipe.calibration, sizes["calibration"]
    assigned = outlook.manifests.get("assignments-all")
    if assigned is not None and "labelling" in assigned.metrics:
        return float(assigned.metrics["labelling"]["cells"].get(teacher, 0))
    if calibration.strategy != "full":
        return whole * calibration.share
    return min(whole, calibration.anchors.get(teacher, whole))


def allocation(outlook: Outlook, student: Student, strategy: Strategy) -> Mapping[str, float]:
    """Share of the pool per teacher; where it is not known, an even one is assumed."""
    teachers = outlook.recipe.teachers
    even = {teacher.name: 1 / len(teachers) for teacher in teachers}
    return known_allocation(outlook, student, strategy) or even


def known_allocation(outlook: Outlook, student: Student, strategy: Strategy) -> Mapping[str, float]:
    """As assigned, else as the strategy names it; empty where it is not known yet. An oracle asks all teachers."""
    pool = [teacher.name for teacher in outlook.recipe.teachers]
    stored = outlook.manifests.get(f"assignments-{student.name}-{strategy.name}")
    if stored is not None:
        return dict(stored.metrics["allocation"])
    if strategy.kind == "oracle":
        return dict.fromkeys(pool, 1.0)
    if strategy.kind in ("strong", "family_strong") and strategy.teacher is not None:
        return {strategy.teacher: 1.0}
    if strategy.kind == "strong":
        sizes = {teacher.name: teacher.params_b or 0 for teacher in outlook.recipe.teachers}
        largest = [name for name, size in sizes.items() if size == max(sizes.values())]
        return {largest[0]: 1.0} if len(largest) == 1 else {}
    if strategy.kind == "mix":
        weights = strategy.weights or dict.fromkeys(pool, 1.0)
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}
    return {}
