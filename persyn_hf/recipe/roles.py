"""The teachers and students of a recipe, and what a teacher costs."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from persyn_hf.recipe.strict import Strict


NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # to be matched in full


def check_name(value: str) -> str:
    """Return a name that can be part of an artifact's name; raises a `ValueError` for any other."""
    if not NAME.fullmatch(value):
        raise ValueError("must be letters, digits, `.`, `_` or `-`, at most 64 characters")
    return value


def check_config_name(value: str) -> str:
    """Check the name of a config of a dataset: as `check_name`, but `datasets` keeps one for itself."""
    if value == "default":
        raise ValueError("must not be `default`, by which `datasets` knows the config that is loaded without a name")
    return check_name(value)


class Price(Strict):
    """The price of a teacher, in one currency that all teachers of a recipe share."""

    prompt: float | int = Field(default=0, ge=0, le=10**9)  # per million prompt tokens
    completion: float | int = Field(default=0, ge=0, le=10**9)  # per million generated tokens
    gpu_hour: float | int = Field(default=0, ge=0, le=10**9)  # per GPU and hour


class Teacher(Strict):
    """One teacher of the pool."""

    name: str
    model: str | None = None  # Hub id or local folder; null: its responses are imported
    revision: str | None = None
    family: str = "unknown"
    params_b: float | int | None = Field(default=None, gt=0, le=1_000_000)  # billions of active parameters
    long_cot: bool = False  # it answers with a long chain of thought: few samples, and `reassign` replaces it
    samples: int | None = Field(default=None, ge=1, le=10_000)  # answers per prompt; null: by `generate.samples`
    system_prompt: str | None = None
    engine: Literal["transformers", "server", "vllm"] | None = None  # null: `generate.engine`
    server: dict[str, Any] = Field(default_factory=dict)  # keys that go on top of `generate.server`
    vllm: dict[str, Any] = Field(default_factory=dict)  # keys that go on top of `generate.vllm`
    price: Price | None = None
    license: str | None = None  # licence of its answers, as the Hub writes it; null: as its model's card says

    _name = field_validator("name")(check_config_name)


class Student(Strict):
    """One student to be trained."""

    name: str
    model: str | None = None  # Hub id or local folder; null: neither scored nor trained, so quality alone decides
    revision: str | None = None
    family: str = "unknown"
    # billions of parameters; only `persyn plan` reads it
    params_b: float | int | None = Field(default=None, gt=0, le=1_000_000)
    chat_template: str | None = None  # Jinja file; for a base model that has no chat template
    license: str | None = None  # licence of its weights, as the Hub writes it; null: as its model's card says

    _name = field_validator("name")(check_name)
