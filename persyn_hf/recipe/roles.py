"""Who takes part: teachers, students, and what a teacher costs."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from persyn_hf.recipe.strict import Strict


NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # to be matched in full


def check_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("must be letters, digits, `.`, `_` or `-`, at most 64 characters")
    return value


class Price(Strict):
    """What a teacher costs, in any one currency."""

    prompt: float | int = Field(default=0, ge=0)  # per million prompt tokens
    completion: float | int = Field(default=0, ge=0)  # per million generated tokens
    gpu_hour: float | int = Field(default=0, ge=0)  # per GPU and hour


class Teacher(Strict):
    """One teacher of the pool."""

    name: str
    model: str | None = None  # Hub id or local folder; null: its responses are imported
    revision: str | None = None
    family: str = "unknown"
    params_b: float | int | None = Field(default=None, gt=0)  # billions of active parameters
    long_cot: bool = False
    samples: int | None = Field(default=None, ge=1)  # overrides `generate.samples`
    system_prompt: str | None = None
    engine: Literal["transformers", "server", "vllm"] | None = None  # overrides `generate.engine`
    server: dict[str, Any] = Field(default_factory=dict)  # on top of `generate.server`
    vllm: dict[str, Any] = Field(default_factory=dict)  # on top of `generate.vllm`
    price: Price | None = None
    license: str | None = None  # of its answers, as the Hub writes it

    _name = field_validator("name")(check_name)


class Student(Strict):
    """One student to be trained."""

    name: str
    model: str | None = None  # Hub id or local folder; null: neither scored nor trained, so quality alone decides
    revision: str | None = None
    family: str = "unknown"
    params_b: float | int | None = Field(default=None, gt=0)  # billions of parameters, for what `persyn plan` expects
    chat_template: str | None = None  # Jinja file, for a base student that has none
    license: str | None = None  # of its weights, as the Hub writes it

    _name = field_validator("name")(check_name)
