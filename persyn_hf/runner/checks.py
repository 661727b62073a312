"""Refuse a recipe whose local files are not there, before anything else is looked at."""

from typing import Any

from persyn_hf.backends.engines.imported import check_columns
from persyn_hf.backends.journal import read_spent
from persyn_hf.errors import InputError, StoreError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.fingerprint import check_paths
from persyn_hf.runner.step import Step
from persyn_hf.store.local import Store


def check_recipe_paths(recipe: Recipe, steps: list[Step]) -> None:
    """Refuse local files and folders of the recipe that are missing, one line each."""
    models: list[Teacher | Student] = [*recipe.teachers, *recipe.students]
    places: list[tuple[Any, str]] = [(model, model.name) for model in models]
    for step in steps:  # one stage often stands there for every strategy
        if (step.settings, step.stage) not in places:
            places.append((step.settings, step.stage))
    faults = []
    for value, where in places:
        try:
            check_paths(value, where)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))


def check_imported(steps: list[Step]) -> None:
    """Refuse a file of imported answers that lacks a column, as the import would after the first steps have run."""
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine == "import":
            check_columns(settings, step.teachers)
            return


def pays(step: Step) -> bool:
    """Tell whether a step asks teachers or judges."""
    settings: Any = step.settings
    if step.stage == "generate":
        return bool(settings.engine != "import")
    return step.stage == "score" and settings.judge is not None


def check_paid(step: Step, recipe: Recipe, store: Store) -> None:
    """Refuse to ask anybody where artifacts say that the recipe has paid for answers, and the journal has none.

    A journal that was deleted or emptied looks like that of a store in which nothing was asked yet.

    Raises:
        StoreError: names the journal.
    """
    if not pays(step):
        return
    made = {
        item.digest: item.manifest.cost.get("total", {}).get("new") or 0
        for item in store.artifacts()
        if item.kind in ("responses", "rewards")
        and f"{item.repo.split('/')[0]}/{item.manifest.recipe}" == recipe.full_name
    }
    journal = store.journal
    if any(made.values()) and not read_spent(journal, recipe.full_name):
        raise StoreError(
            f"{recipe.full_name} has paid for {sum(made.values()):,.0f} answers or more, as the artifacts in the "
            f"store say, and none of them is in the journal {journal}: they would be paid for again; restore the "
            "journal from a copy, or pay with: persyn run ... --new-journal"
        )
