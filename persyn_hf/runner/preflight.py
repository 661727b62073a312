"""Look at all that can be known cheaply before a run pays for anything, and list what is wrong with it.

Each check is one function over the steps that are left. What it raises is a fault, on which the run would end later,
after money or hours; what it yields is a warning. All checks are made, so one look names all that is to be mended.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from persyn_hf.backends import loading as models
from persyn_hf.backends.engines.local_prompts import context_length
from persyn_hf.backends.engines.reachable import look_at_servers
from persyn_hf.backends.engines.settings import BY_SERVER
from persyn_hf.backends.routers.auto import candidates
from persyn_hf.errors import PersynError, reason
from persyn_hf.formats import file_size
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strategies import known_shares
from persyn_hf.report.results import same_teacher
from persyn_hf.runner.checks import check_imported, check_paid, pays
from persyn_hf.runner.executors import check_processes, is_on_ray, look_at_clusters
from persyn_hf.runner.model_checks import models_of, teachers_of
from persyn_hf.runner.payees import check_judges, check_prices, judges_of, warn_of_families
from persyn_hf.runner.plan_checks import check_references
from persyn_hf.runner.step import Step
from persyn_hf.stage import NO_LIMITS, Limits
from persyn_hf.stages.generate.settings import engine_options
from persyn_hf.store.hub.login import check_reachable
from persyn_hf.store.local import Store


FEW_STEPS = 50  # optimiser steps; a student that was trained for fewer hardly differs from its base
FEW_DEV = 50  # dev prompts; with fewer, intervals of a router's metrics span everything
BYTES = 4  # of a trained weight, at most
# Feature, module and extra of what an engine needs installed.
ENGINES = {
    "transformers": (("running a model", "transformers", "models"), ("running a model", "torch", "models")),
    "vllm": (("the engine `vllm`", "vllm", "vllm"),),
}

Check = Callable[[], Iterable[str] | None]


@dataclass(frozen=True)
class Findings:
    """What a preflight has found: `faults` end a run, `warnings` do not."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self) -> None:
        """Raise `PersynError` with a line per fault, where there is any."""
        if self.faults:
            raise PersynError("\n".join(self.faults))


def preflight(recipe: Recipe, steps: Sequence[Step], store: Store, limits: Limits = NO_LIMITS) -> Findings:
    """Make every check of the steps that are left.

    Args:
        steps: those that will run, in order.
        store: where their artifacts will lie.
    """
    findings = Findings()
    for check in _checks(recipe, steps, store, limits):
        try:
            findings.warnings.extend(check() or ())
        except PersynError as error:
            findings.faults.append(str(error))
    return Findings(list(dict.fromkeys(findings.faults)), list(dict.fromkeys(findings.warnings)))


def _checks(recipe: Recipe, steps: Sequence[Step], store: Store, limits: Limits) -> Iterator[Check]:
    yield partial(check_prices, recipe, steps, limits)
    yield partial(check_references, steps)
    yield partial(check_judges, steps)
    yield partial(check_imported, list(steps))
    asking = next(filter(pays, steps), None)
    if asking is not None and not limits.new_journal:  # once: it reads every manifest of the store
        yield partial(check_paid, asking, recipe, store)
    packages = dict.fromkeys(need for step in steps for need in _packages(step))
    missing = [need for need in packages if _is_missing(need[1])]
    if missing:
        yield partial(_refuse_missing, missing)
        return  # the other checks need them
    unlike = _unlike(steps)
    for step in unlike:
        yield partial(check_processes, step)
    looks: list[tuple[str, Check]] = [(one.model, partial(_quietly, one.look)) for one in models_of(steps)]
    for step in unlike:
        if hasattr(step.module, "check_files"):
            yield partial(step.module.check_files, step.settings)
        if step.student is not None and step.student.model is not None and hasattr(step.module, "check_student"):
            looks.append((step.student.model, partial(step.module.check_student, step.settings, step.student)))
        looks += [(one[0], partial(models.check_config, *one)) for one in _router_models(step)]
    away = _hub_is_away([model for model, _ in looks])
    if away:
        left = sorted({model for model, _ in looks if not Path(model).is_dir()})
        yield lambda: [f"warning: {away}; not looked at: {', '.join(left)}"]
    yield from (look for model, look in looks if not away or Path(model).is_dir())
    if not away:
        yield partial(_positions, steps)
    yield partial(_servers, steps)
    yield partial(look_at_clusters, steps)
    yield partial(_disk, recipe, steps, store.root)
    yield partial(_meaning, recipe, steps)
    yield partial(warn_of_families, recipe, steps)


def _hub_is_away(named: Iterable[str]) -> str:
    """Say that the Hub, which one of the named models is to come from, does not answer; empty where it does."""
    from huggingface_hub import constants

    if constants.is_offline_mode() or all(Path(model).is_dir() for model in named):
        return ""
    import httpx2

    try:
        check_reachable(constants.ENDPOINT)
    except httpx2.HTTPError as error:
        return f"the Hub at {constants.ENDPOINT} does not answer ({reason(error)})"
    return ""


def _unlike(steps: Sequence[Step]) -> list[Step]:
    """Leave one step of those with the same stage, settings and student."""
    unlike: list[Step] = []
    for step in steps:
        if not any((s.stage, s.settings, s.student) == (step.stage, step.settings, step.student) for s in unlike):
            unlike.append(step)
    return unlike


def _quietly(look: Callable[[], str]) -> None:
    look()


def _positions(steps: Sequence[Step]) -> Iterator[str]:
    """Warn of teachers that run here and have no room for answers as long as the recipe allows."""
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate":
            for teacher in teachers_of([step]):
                try:
                    positions = context_length(str(teacher.model), teacher.revision)
                except PersynError:  # the look at the model tells why
                    continue
                limit = settings.of(teacher).max_tokens
                of = "generate" if teacher.max_tokens is None else f"teachers.{teacher.name}"
                if limit >= positions:
                    yield (
                        f"warning: `{of}.max_tokens` is {limit:,}, and {teacher.name} has "
                        f"{positions:,} positions for prompt and answer: its longest answers will be cut off"
                    )
            return


def _packages(step: Step) -> Iterator[tuple[str, str, str]]:
    """Yield feature, module and extra of what a step needs installed."""
    settings: Any = step.settings
    if is_on_ray(step):
        yield "the executor `ray`", "ray", "ray"
    match step.stage:
        case "generate" if settings.engine != "import":
            for teacher in step.teachers:
                yield from ENGINES.get(teacher.engine or settings.engine, ())
        case "score":
            if settings.learnability != "none":
                yield "measuring learnability", "transformers", "models"
                yield "measuring learnability", "torch", "models"
            for _, options in judges_of([step]):
                yield from ENGINES.get(options["kind"], ())
        case "train_router" if [*_router_models(step)]:
            yield "this router", "transformers", "models"
            yield "this router", "torch", "models"
        case "train_router" if settings.objective != "bt":
            yield f"the objective `{settings.objective}`", "torch", "models"
        case "train_student":
            yield "fine-tuning", "trl", "train"
            yield "fine-tuning", "accelerate", "train"
            if settings.method == "lora":
                yield "fine-tuning by LoRA", "peft", "train"
        case "evaluate":
            yield "evaluation", "lm_eval", "eval"
            if settings.engine == "vllm":
                yield from ENGINES["vllm"]


def _is_missing(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is None


def _refuse_missing(missing: Sequence[tuple[str, str, str]]) -> None:
    """Refuse what is not installed, in one sentence; `missing` are feature, module and extra."""
    features: dict[str, list[str]] = {}
    for module, feature in {module: feature for feature, module, _ in reversed(missing)}.items():
        features.setdefault(feature, []).insert(0, f"`{module}`")
    needs = "; ".join(
        f"{feature} needs the package{'s' if modules[1:] else ''} {' and '.join(modules)}"
        for feature, modules in reversed(features.items())
    )
    extras = dict.fromkeys(extra for _, _, extra in missing)
    if extras.keys() & {"train", "eval", "vllm"}:  # each has all that `models` has
        extras.pop("models", None)
    several = len({module for _, module, _ in missing}) > 1
    raise PersynError(
        f"{needs}, which {'are' if several else 'is'} not installed: pip install 'persyn-hf[{','.join(extras)}]'"
    )


def _router_models(step: Step) -> Iterator[tuple[str, str | None, str]]:
    """Yield the models, with their revisions, that a step of `train_router` loads, and the setting that names each."""
    given: Any = step.settings
    if step.stage != "train_router" or given.extend:  # what extends a router loads the models of that one
        return
    for settings in candidates(given).values() if given.kind == "auto" else [given]:
        if settings.kind == "llm":
            yield settings.backbone, settings.backbone_revision, "train_router.backbone"
        elif settings.encoder is not None:
            yield settings.encoder, settings.encoder_revision, "train_router.encoder"


def _servers(steps: Sequence[Step]) -> Iterator[str]:
    """Yield a sentence per server that does not answer now, or does not know the model that it will be asked for."""
    asked: dict[tuple[str, str], Any] = {}
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine != "import":
            for teacher in step.teachers:
                options = engine_options(settings, teacher)
                if options["kind"] in BY_SERVER and teacher.model is not None:
                    asked |= {(teacher.model, url): options["server"] for url in options["server"].urls}
    for judge, options in judges_of(steps):
        if options["kind"] in BY_SERVER:
            asked |= {(judge.model, url): options["server"] for url in options["server"].urls}
    if asked:
        found = look_at_servers([(model, url, settings) for (model, url), settings in asked.items()])
        yield from (f"warning: {sentence}" for sentence in found)


def _disk(recipe: Recipe, steps: Sequence[Step], root: Path) -> Iterator[str]:
    """Warn where the students that will be trained do not fit on the disk of the store."""
    trained = [step.student for step in steps if step.stage == "train_student" and step.student is not None]
    needed = sum((student.params_b or 0) * 1e9 * BYTES for student in trained)
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        yield (
            f"warning: {len(trained)} trained students may take {file_size(needed)}, and the disk of {root} has "
            f"{file_size(free)} left; name another with --store"
        )


def _meaning(recipe: Recipe, steps: Sequence[Step]) -> Iterator[str]:
    """Warn of what will run, and show nothing."""
    by_model: dict[Any, list[str]] = {}
    for teacher in recipe.teachers:
        if teacher.model is not None:
            told = json.dumps(teacher.chat_template_kwargs, sort_keys=True, default=str)
            key = (teacher.model, teacher.revision, teacher.system_prompt, told)
            by_model.setdefault(key, []).append(teacher.name)
    for names in by_model.values():
        if len(names) > 1:
            yield f"warning: {' and '.join(names)} are one model: a router cannot tell them apart"
    source: Any = next((step.settings for step in steps if step.stage == "prompts"), None)
    routed = any(step.stage == "train_router" for step in steps)
    if routed and source is not None and source.dev is not None and 0 < source.dev < FEW_DEV:
        yield (
            f"warning: {source.dev} dev prompts (`prompts.dev`): intervals of a router's metrics will span nearly "
            f"everything; {FEW_DEV} are the least"
        )
    trainings: list[Any] = [step.settings for step in steps if step.stage == "train_student"]
    if source is not None and source.calibration is not None and source.pool is not None and trainings:
        rows, settings = source.calibration + source.pool, trainings[0]
        number = math.ceil(math.ceil(rows / settings.batch_size) * settings.epochs)  # as `backends.sft.Schedule`
        if number < FEW_STEPS:
            yield (
                f"warning: students will be trained for {number} optimiser steps ({rows:,} rows, batches of "
                f"{settings.batch_size}, {settings.epochs:g} epochs): they will hardly differ from their base"
            )
    decided = {s.name: known_shares(s, recipe.strategies, recipe.teachers) for s in recipe.strategies}
    if sentence := same_teacher(decided):
        yield f"warning: {sentence}"
