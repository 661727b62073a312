"""Tell the stage `prompts` on which items the recipe evaluates, as stages do not see one another's settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner.step import Step
from persyn_hf.stages.evaluate.settings import Task
from persyn_hf.stages.prompts.settings import TASKS, ItemSet, Settings
from persyn_hf.store.stored import Stored


KEY = "decontaminate_against"


def with_tasks(recipe: Recipe) -> dict[str, Any]:
    """Return the prompts' `decontaminate_against` with the recipe's evaluation tasks in the place of `tasks`.

    Raises:
        RecipeError: a task is not valid.
    """
    given, tasks = recipe.prompts.get(KEY, [TASKS]), recipe.evaluate.get("tasks")
    if not isinstance(given, list) or TASKS not in given or not isinstance(tasks, list):
        return {}  # nothing to replace; what is not valid is refused where the section is read
    own = [
        _item_set(read_section(Task, task, f"evaluate.tasks.{place}"))
        for place, task in enumerate(tasks)
        if isinstance(task, Mapping)
    ]
    sets = [other for one in given for other in (own if one == TASKS else [one])]
    return {KEY: sets}


def sets_of(recipe: Recipe) -> list[ItemSet]:
    """Return the sets of test items that a recipe names, also where it does not read the prompts itself.

    Raises:
        RecipeError: a set is not valid.
    """
    given = with_tasks(recipe).get(KEY) or recipe.prompts.get(KEY, [])
    return [
        one if isinstance(one, ItemSet) else read_section(ItemSet, one, f"prompts.{KEY}.{place}")
        for place, one in enumerate(given)
        if one != TASKS
    ]


def _item_set(task: Task) -> ItemSet:
    return ItemSet(
        name=task.name,
        harness=(task.harness or task.name) if task.is_stock else None,
        path=task.path,
        dataset=task.dataset,
        config=task.config,
        revision=task.revision,
        split=task.split,
        question=task.columns.question,
    )


def not_compared(step: Step, artifact: Stored) -> Iterator[str]:
    """Say with which test items stored prompts were not compared, as these came into the recipe later."""
    if not isinstance(step.settings, Settings):
        return
    done = artifact.manifest.metrics.get("decontamination", {}).get("against", [])
    if new := [one.title for one in step.settings.item_sets if one.title not in done]:
        yield (
            f"note: the prompts were stored before they could be compared with the items of {', '.join(new)}; compare "
            "them now: persyn overlaps RECIPE"
        )
