"""Collect the licences and languages of an artifact, from its inputs and from the sources that its stage adds."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.step import Step
from persyn_hf.store.cards.licences import read_source
from persyn_hf.store.local import Stored


def licences(step: Step, recipe: Recipe, inputs: Mapping[str, Stored]) -> dict[str, str | None]:
    """Return source -> licence for every source that the artifact goes back to; None where none is known.

    A licence in the recipe goes before that on the card of a dataset or model. Where two inputs know a source under
    different licences, both are kept, the second under `SOURCE (REPO)`.
    """
    by_source: dict[str, str | None] = {}
    for item in inputs.values():
        for source, licence in item.manifest.licences.items():
            differs = by_source.get(source, licence) != licence
            by_source[f"{source} ({item.repo})" if differs else source] = licence
    return by_source | dict(_own(step, recipe))


def _own(step: Step, recipe: Recipe) -> Iterator[tuple[str, str | None]]:
    """List the sources that this stage itself adds, with their licences."""
    settings = step.settings.model_dump()
    dataset, path = settings.get("dataset"), settings.get("path")
    if step.stage == "prompts":
        name = Path(path).name if path else dataset
        yield f"prompts of {name}", recipe.license or _of_dataset(dataset, settings.get("revision"))
    elif step.stage == "generate":
        if dataset:
            yield f"responses of {dataset}", _of_dataset(dataset, settings.get("revision"))
        yield from ((f"teacher {teacher.name}", _of_model(teacher)) for teacher in step.teachers)
    elif step.stage == "train_student" and step.student is not None:
        yield f"student {step.student.name}", _of_model(step.student)
    elif step.stage == "train_router":
        tried = settings["candidates"] if settings["kind"] == "auto" else [settings["kind"]]
        for router in (settings | (router if isinstance(router, dict) else {"kind": router}) for router in tried):
            if router["kind"] == "llm":
                source = read_source(router["backbone"], router["backbone_revision"])
                yield f"router backbone {Path(router['backbone']).name}", source.licence


def _of_model(model: Teacher | Student) -> str | None:
    """Return the licence of a model, as the recipe says, else as its card says."""
    if model.license is not None or model.model is None:
        return model.license
    return read_source(model.model, model.revision).licence


def _of_dataset(dataset: str | None, revision: str | None) -> str | None:
    """Return the licence on a dataset's card; None without a dataset."""
    return read_source(dataset, revision, "dataset").licence if dataset else None


def languages(step: Step, recipe: Recipe, inputs: Mapping[str, Stored]) -> tuple[str, ...]:
    """Return the languages of an artifact, sorted: those of its inputs, and the recipe's.

    Where the recipe names none, the prompts have those on the card of their dataset.
    """
    spoken = {language for item in inputs.values() for language in item.manifest.languages}
    settings = step.settings.model_dump()
    if recipe.language is not None:
        spoken.add(recipe.language)
    elif step.stage == "prompts" and settings["dataset"]:
        spoken.update(read_source(settings["dataset"], settings["revision"], "dataset").languages)
    return tuple(sorted(spoken))
