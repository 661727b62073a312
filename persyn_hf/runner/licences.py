"""Where the content of an artifact comes from: licences and languages, of its inputs and of what is new in it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.plan import Step
from persyn_hf.store.cards.licences import read_source
from persyn_hf.store.local import Stored


def licences(step: Step, recipe: Recipe, inputs: Mapping[str, Stored]) -> dict[str, str | None]:
    """The licence of every source that the artifact goes back to, null where none is known.

    What the recipe says comes first, then the card of the dataset or model. Where two inputs know a source under
    different licences, both are kept.
    """
    found: dict[str, str | None] = {}
    for item in inputs.values():
        for source, licence in item.manifest.licences.items():
            differs = found.get(source, licence) != licence
            found[f"{source} ({item.repo})" if differs else source] = licence
    return found | dict(_own(step, recipe))


def _own(step: Step, recipe: Recipe) -> Iterator[tuple[str, str | None]]:
    """What this very stage brings in."""
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
        for one in (settings | (one if isinstance(one, dict) else {"kind": one}) for one in tried):
            if one["kind"] == "llm":
                source = read_source(one["backbone"], one["backbone_revision"])
                yield f"router backbone {Path(one['backbone']).name}", source.licence


def _of_model(model: Teacher | Student) -> str | None:
    if model.license is not None or model.model is None:
        return model.license
    return read_source(model.model, model.revision).licence


def _of_dataset(dataset: str | None, revision: str | None) -> str | None:
    return read_source(dataset, revision, "dataset").licence if dataset else None


def languages(step: Step, recipe: Recipe, inputs: Mapping[str, Stored]) -> tuple[str, ...]:
    """Of the recipe, else of the card of the dataset that the prompts come from; and of all inputs."""
    found = {language for item in inputs.values() for language in item.manifest.languages}
    settings = step.settings.model_dump()
    if recipe.language is not None:
        found.add(recipe.language)
    elif step.stage == "prompts" and settings["dataset"]:
        found.update(read_source(settings["dataset"], settings["revision"], "dataset").languages)
    return tuple(sorted(found))
