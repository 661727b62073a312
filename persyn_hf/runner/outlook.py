"""What `persyn plan` starts from: sizes, samples per cell, and what answers of the same teachers have cost so far."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from persyn_hf.core.cost import Cost, generation_flops, money
from persyn_hf.recipe import Recipe, Teacher
from persyn_hf.report.outlook import Outlook, assumed_gpu_seconds
from persyn_hf.report.results import teacher_costs
from persyn_hf.runner.fingerprint import described
from persyn_hf.runner.run import Done, manifests_of
from persyn_hf.stages import generate, prompts
from persyn_hf.stages.generate.settings import num_samples
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest


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
    stored = [item.manifest for item in store.list() if item.kind == generate.OUTPUT.kind]
    means = _means(recipe.teachers, settings.max_tokens, manifests.get("responses"), stored)
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
    if "prompts" in manifests:
        return {split: manifests["prompts"].counts.get(f"rows_{split}", 0) for split in prompts.SPLITS}
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
