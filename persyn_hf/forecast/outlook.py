"""Collect what is known of a recipe before it runs, and assume the rest."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from persyn_hf.core.cost import Cost, generation_flops, money
from persyn_hf.forecast.cells import share_of
from persyn_hf.forecast.judges import Verdicts, count_verdicts
from persyn_hf.forecast.rehearsal import Rehearsal
from persyn_hf.forecast.to_pay import ToPay, count_to_pay
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strategies import Strategy, known_shares
from persyn_hf.report.measured import sound
from persyn_hf.report.strategy_costs import teacher_costs
from persyn_hf.runner.fingerprint import described
from persyn_hf.runner.run import Done, manifests_of
from persyn_hf.stages import generate, prompts
from persyn_hf.stages.generate.settings import num_samples
from persyn_hf.stages.prompts.splits import PAPER_SIZES, SPLITS
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest


# GPU time of answers of which nothing is known: ANSWER_TOKENS tokens each, by an A100 at a tenth of its peak, which is
# less than vLLM reaches at best. docs/paper.md has the grounds.
A100_FLOPS = 312e12  # FLOPs per second at its peak, dense bfloat16
GENERATING = 0.1  # share of the peak that generation reaches
ANSWER_TOKENS = {False: 600, True: 6000}  # tokens of an answer, by the teacher's `long_cot`


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is known of a recipe before it runs, and what is assumed."""

    recipe: Recipe
    steps: Sequence[tuple[str, str, str]]  # key, stage, state: done, partly done or new
    manifests: Mapping[str, Manifest]  # key of a step -> manifest of its stored artifact
    sizes: Mapping[str, int] | None  # prompts per split; None: not known yet
    cells: Mapping[str, Cost]  # teacher -> cost of one (prompt, teacher) cell, all samples; empty: none is asked
    bounded: Set[str] = frozenset()  # teachers whose cells are upper bounds, as no answer of theirs is stored
    assumed: Set[str] = frozenset()  # bounded teachers whose GPU time is assumed, by the numbers above
    settings: Mapping[str, Any] = field(default_factory=dict)  # stage -> settings of its first step
    measured: Mapping[str, int] = field(default_factory=dict)  # artifact -> answers of it that cells are means over
    at_most: bool = False  # samples end with the first correct one, so there may be fewer
    verdicts: Sequence[Verdicts] = ()  # that judges will be paid for
    to_pay: ToPay | None = None  # what the journal lacks; None: no teacher is asked, or the prompts are not known yet


def assumed_gpu_seconds(params_b: float, long_cot: bool, samples: int, max_tokens: int) -> float:
    """Return the assumed GPU-seconds of one cell on an A100; `params_b` in billions.

    Example: a teacher of 7 billion parameters, 4 samples of 600 tokens each: 2 * 7e9 * 2,400 / 31.2e12 = 1.08 s.
    """
    tokens = samples * min(max_tokens, ANSWER_TOKENS[long_cot])
    return generation_flops(params_b, tokens) / (A100_FLOPS * GENERATING)


def num_calibration(outlook: Outlook, sizes: Mapping[str, int], teacher: str) -> float:
    """Return the number of calibration prompts that a teacher answers.

    Where calibration is in part: the cells that are assigned, or before that an even part of the share. `sizes` are
    prompts per split.
    """
    calibration, whole = outlook.recipe.calibration, sizes["calibration"]
    assigned = outlook.manifests.get(names.matrix_assignments())
    if assigned is not None and "labelling" in assigned.metrics:
        return float(assigned.metrics["labelling"]["cells"].get(teacher, 0))
    if calibration.strategy != "full":
        return whole * share_of(calibration, outlook.cells, whole, sizes["dev"])[0]
    return min(whole, calibration.anchors.get(teacher, whole))


def allocation(outlook: Outlook, student: Student, strategy: Strategy) -> Mapping[str, float]:
    """Return the share of the pool per teacher; where it is not known, an even one is assumed."""
    teachers = outlook.recipe.teachers
    even = {teacher.name: 1 / len(teachers) for teacher in teachers}
    return known_allocation(outlook, student, strategy) or even


def known_allocation(outlook: Outlook, student: Student, strategy: Strategy) -> Mapping[str, float]:
    """Return the share of the pool per teacher, as assigned, else as the recipe alone decides; empty: not known."""
    stored = outlook.manifests.get(names.assignments(student, strategy))
    if stored is not None:
        shares = {t.name: stored.metrics["allocation"].get(t.name, 0.0) for t in outlook.recipe.teachers}
        return shares if any(shares.values()) else {}
    return known_shares(strategy, outlook.recipe.strategies, outlook.recipe.teachers)


def look_ahead(recipe: Recipe, done: list[Done], store: Store) -> Outlook:
    """Make the outlook of a recipe from its stored artifacts, its local prompts and the journal; no model is loaded.

    done: the steps, as `runner.run.look_up` returns them.
    """
    with Rehearsal(recipe, done, store) as rehearsal:
        return _look_ahead(recipe, done, store, rehearsal)


def _look_ahead(recipe: Recipe, done: list[Done], store: Store, rehearsal: Rehearsal) -> Outlook:
    states = {item.step.key: "done" if item.stored else "partly done" if item.started else "new" for item in done}
    manifests = manifests_of(recipe, store, done)
    sizes = _sizes(manifests, done, rehearsal)
    facts: dict[str, Any] = {
        "recipe": recipe,
        "steps": [(item.step.key, item.step.stage, states[item.step.key]) for item in done],
        "manifests": manifests,
        "sizes": sizes,
        "settings": {item.step.stage: item.step.settings for item in reversed(done)},
        "verdicts": count_verdicts(done, store, rehearsal, sizes),
    }
    settings = facts["settings"].get("generate")
    if not isinstance(settings, generate.Settings) or settings.engine == "import":
        return Outlook(**facts, cells={})
    stored = [item.manifest for item in sound(store.artifacts()) if item.kind == generate.OUTPUT.kind]
    means = _means(recipe.teachers, settings, manifests.get(names.matrix_responses()), stored)
    measured: Counter[str] = Counter()
    for repo, answers in means.values():
        measured[repo] += round(answers.requests)
    cells = {teacher.name: _cell(teacher, settings, means.get(teacher.name)) for teacher in recipe.teachers}
    bounded = frozenset(cells) - frozenset(means)
    return Outlook(
        **facts,
        cells=cells,
        bounded=bounded,
        assumed=frozenset(name for name in bounded if cells[name].gpu_seconds is not None),
        measured=measured,
        at_most=settings.stop_when_correct,
        to_pay=count_to_pay(recipe, done, store, rehearsal, cells),
    )


def _sizes(manifests: Mapping[str, Manifest], done: Sequence[Done], rehearsal: Rehearsal) -> dict[str, int] | None:
    """Return the prompts per split, as stored, as a local file gives them, or as the recipe asks for; None: not known.

    A data set on the Hub may turn out to hold fewer than the recipe asks for.
    """
    if names.PROMPTS in manifests:
        return {split: manifests[names.PROMPTS].counts.get(f"rows_{split}", 0) for split in SPLITS}
    settings = next((item.step.settings for item in done if item.step.stage == "prompts"), None)
    if not isinstance(settings, prompts.Settings):
        return None
    rows = rehearsal.rows(names.PROMPTS)
    if rows is not None:
        drawn = Counter(rows["split"][:])
        return {split: drawn[split] for split in SPLITS}
    given = {split: getattr(settings, split) for split in SPLITS}
    if settings.columns.split is None:
        given = {split: PAPER_SIZES.get(split) if size is None else size for split, size in given.items()}
    return None if None in given.values() else given


def _means(
    teachers: Sequence[Teacher], settings: generate.Settings, own: Manifest | None, stored: Sequence[Manifest]
) -> dict[str, tuple[str, Cost]]:
    """Return per teacher the artifact that its mean cost is taken from, and the cost of its answers there.

    It is the recipe's own artifact, else the one of the store that holds most of the teacher's answers. Only answers
    of the same model count; with another `max_tokens`, only where that cut none of them. A teacher without any is left
    out.
    """
    sources: dict[str, tuple[str, Cost]] = {}
    for teacher in teachers:
        for manifest in [own] if own is not None else stored:
            cost = _answers_of(teacher, manifest, settings.of(teacher).max_tokens)
            if cost is not None and (teacher.name not in sources or cost.requests > sources[teacher.name][1].requests):
                sources[teacher.name] = (manifest.repo, cost)
    return sources


# What makes the answers of a teacher longer or shorter; as `described`, by which an artifact names its teachers.
ASKED_AS = ("model", "revision", "system_prompt", "temperature", "top_p", "chat_template_kwargs")


def _answers_of(teacher: Teacher, manifest: Manifest, max_tokens: int) -> Cost | None:
    """Return the cost of a teacher's answers in an artifact, under any name; None where none of them count."""
    model = described(teacher)
    for entry in manifest.teachers:
        name = entry["name"]
        same = all(entry.get(key) == model.get(key) for key in ASKED_AS)
        if same and name in manifest.cost.get("teachers", {}):
            uncut = (
                entry.get("max_tokens") or manifest.settings.get("max_tokens")
            ) == max_tokens or not manifest.metrics["teachers"][name]["truncated"]
            cost = teacher_costs([teacher.model_copy(update={"name": name})], manifest).get(name)
            return cost if uncut else None
    return None


def _cell(teacher: Teacher, settings: generate.Settings, answers: tuple[str, Cost] | None) -> Cost:
    """Return the cost of one cell: by the teacher's mean cost of an answer, else the most that its tokens can cost.

    In the second case GPU time is not a bound but assumed, and only where vLLM runs here: that of a server is not
    known.
    """
    samples, limit, size = num_samples(settings, teacher), settings.of(teacher).max_tokens, teacher.params_b
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
