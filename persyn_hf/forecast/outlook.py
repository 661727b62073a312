"""What is known of a recipe before it runs, and what is assumed of the rest."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from persyn_hf.core.cost import Cost, generation_flops, money
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strategies import Strategy, known_shares
from persyn_hf.report.strategy_costs import teacher_costs
from persyn_hf.runner.fingerprint import described
from persyn_hf.runner.run import Done, manifests_of
from persyn_hf.stages import generate, prompts
from persyn_hf.stages.generate.settings import num_samples
from persyn_hf.store.local import Store
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
    assigned = outlook.manifests.get(names.matrix_assignments())
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
    """Share of the pool per teacher: as assigned, else as the recipe alone decides; empty where neither tells."""
    stored = outlook.manifests.get(names.assignments(student, strategy))
    if stored is not None:
        return dict(stored.metrics["allocation"])
    return known_shares(strategy, outlook.recipe.strategies, outlook.recipe.teachers)


def look_ahead(recipe: Recipe, done: list[Done], store: Store) -> Outlook:
    """Read the stored manifests, nothing else; no model is loaded."""
    states = {item.step.key: "done" if item.stored else "partly done" if item.started else "new" for item in done}
    manifests = manifests_of(recipe, store, done)
    known: dict[str, Any] = {
        "recipe": recipe,
        "steps": [(item.step.key, item.step.stage, states[item.step.key]) for item in done],
        "manifests": manifests,
        "sizes": _sizes(manifests, done),
        "settings": {item.step.stage: item.step.settings for item in reversed(done)},
    }
    settings = known["settings"].get("generate")
    if not isinstance(settings, generate.Settings) or settings.engine == "import":
        return Outlook(**known, cells={})
    stored = [item.manifest for item in store.artifacts() if item.kind == generate.OUTPUT.kind]
    means = _means(recipe.teachers, settings.max_tokens, manifests.get(names.matrix_responses()), stored)
    measured: Counter[str] = Counter()
    for repo, answers in means.values():
        measured[repo] += round(answers.requests)
    cells = {teacher.name: _cell(teacher, settings, means.get(teacher.name)) for teacher in recipe.teachers}
    bounded = frozenset(cells) - frozenset(means)
    return Outlook(
        **known,
        cells=cells,
        bounded=bounded,
        assumed=frozenset(name for name in bounded if cells[name].gpu_seconds is not None),
        measured=measured,
        at_most=settings.stop_when_correct,
    )


def _sizes(manifests: Mapping[str, Manifest], done: Sequence[Done]) -> dict[str, int] | None:
    """Prompts per split: as stored, else as the recipe asks for; the source may hold fewer."""
    if names.PROMPTS in manifests:
        return {split: manifests[names.PROMPTS].counts.get(f"rows_{split}", 0) for split in prompts.SPLITS}
    settings = next((item.step.settings for item in done if item.step.stage == "prompts"), None)
    if not isinstance(settings, prompts.Settings):
        return None
    given = {split: getattr(settings, split) for split in prompts.SPLITS}
    if settings.columns.split is None:
        given = {split: prompts.PAPER_SIZES.get(split) if size is None else size for split, size in given.items()}
    return None if None in given.values() else given


def _means(
    teachers: Sequence[Teacher], max_tokens: int, own: Manifest | None, stored: Sequence[Manifest]
) -> dict[str, tuple[str, Cost]]:
    """Per teacher, its answers in one artifact: the recipe's own, else that of the store which holds most of them.

    Only answers of the same model count, and where `max_tokens` was another only if it cut none of them.
    """
    found: dict[str, tuple[str, Cost]] = {}
    for teacher in teachers:
        for manifest in [own] if own is not None else stored:
            cost = _answers_of(teacher, manifest, max_tokens)
            if cost is not None and (teacher.name not in found or cost.requests > found[teacher.name][1].requests):
                found[teacher.name] = (manifest.repo, cost)
    return found


def _answers_of(teacher: Teacher, manifest: Manifest, max_tokens: int) -> Cost | None:
    model = described(teacher)
    for entry in manifest.teachers:
        name = entry["name"]
        same = all(entry.get(key) == model[key] for key in ("model", "revision"))
        if same and name in manifest.cost.get("teachers", {}):
            uncut = (
                manifest.settings.get("max_tokens") == max_tokens
                or not manifest.metrics["teachers"][name]["truncated"]
            )
            cost = teacher_costs([teacher.model_copy(update={"name": name})], manifest).get(name)
            return cost if uncut else None
    return None


def _cell(teacher: Teacher, settings: generate.Settings, answers: tuple[str, Cost] | None) -> Cost:
    """One cell at the teacher's mean cost of an answer, else the most that its generated tokens can cost.

    The GPU time of the latter is no bound but assumed, and only where vLLM runs here: of a server nobody knows.
    """
    samples, limit, size = num_samples(settings, teacher), settings.max_tokens, teacher.params_b
    if answers is not None:
        return answers[1] * (samples / answers[1].requests)
    tokens, here = samples * limit, (teacher.engine or settings.engine) == "vllm"
    return Cost(
        requests=samples,
        prompt_tokens=None,
        completion_tokens=tokens,
        seconds=None,
        gpu_seconds=assumed_gpu_seconds(size, teacher.long_cot, samples, limit) if size and here else None,
        flops=None if size is None else generation_flops(size, tokens),
        money=money(teacher.price, 0, tokens, None),
    )
