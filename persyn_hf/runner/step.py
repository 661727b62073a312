"""One step of a recipe: a stage with its settings, its inputs and the name of what it emits."""

import importlib
from dataclasses import dataclass, field
from types import ModuleType

from persyn_hf.contract import ModelSchema, Schema
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strict import Strict


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of a stage: `key` names it within the recipe and, after the recipe's name, its artifact."""

    key: str
    phase: str
    stage: str
    settings: Strict
    inputs: dict[str, str] = field(default_factory=dict)  # keyword of `run` -> key of another step, or a pinned ref
    teachers: tuple[Teacher, ...] = ()
    student: Student | None = None
    strategy: str | None = None
    seed: int = 0

    @property
    def module(self) -> ModuleType:
        """Return the module of the stage; see `persyn_hf.stage`."""
        return importlib.import_module(f"persyn_hf.stages.{self.stage}")

    @property
    def output(self) -> Schema | ModelSchema:
        """Return the contract of what the step emits."""
        schema: Schema | ModelSchema = self.module.OUTPUT
        return schema
