"""What is looked at before anything runs."""

from collections.abc import Callable
from typing import Any

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.fingerprint import check_paths
from persyn_hf.runner.step import Step


def check_recipe_paths(recipe: Recipe, steps: list[Step]) -> None:
    """Name the first local file or folder of the recipe that is missing, or that a stage cannot read."""
    models: list[Teacher | Student] = [*recipe.teachers, *recipe.students]
    for model in models:
        check_paths(model, model.name)
    checked: list[Any] = []  # settings: one stage often stands there for every strategy
    for step in steps:
        if step.settings not in checked:
            checked.append(step.settings)
            check_paths(step.settings, step.stage)
            if hasattr(step.module, "check_files"):
                step.module.check_files(step.settings)


def check_students(steps: list[Step], note: Callable[[str], None]) -> None:
    """Refuse what a stage finds its student to have no room for; `note` is told of what is left out."""
    checked: list[Any] = []
    for step in steps:
        if (step.settings, step.student) not in checked and step.student and hasattr(step.module, "check_student"):
            checked.append((step.settings, step.student))
            for sentence in step.module.check_student(step.settings, step.student):
                note(sentence)
