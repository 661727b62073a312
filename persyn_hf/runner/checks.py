"""Refuse a recipe whose local files are not there, before anything else is looked at."""

from typing import Any

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.fingerprint import check_paths
from persyn_hf.runner.step import Step


def check_recipe_paths(recipe: Recipe, steps: list[Step]) -> None:
    """Name the first local file or folder of the recipe that is missing, that a step needs."""
    models: list[Teacher | Student] = [*recipe.teachers, *recipe.students]
    for model in models:
        check_paths(model, model.name)
    checked: list[Any] = []  # settings: one stage often stands there for every strategy
    for step in steps:
        if step.settings not in checked:
            checked.append(step.settings)
            check_paths(step.settings, step.stage)
