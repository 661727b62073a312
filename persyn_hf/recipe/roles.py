"""The teachers and students of a recipe, and what a teacher costs."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from persyn_hf.recipe.strict import Strict


NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # to be matched in full
REF = re.compile(r"\w[^/@]*/\w[^/@]*(@\w[^/@]*)?")  # an artifact: NAMESPACE/NAME@TAG; without a tag, the newest


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

    prompt: float | int = Field(default=0, ge=0, le=10**9, description="The price of a million prompt tokens.")
    completion: float | int = Field(
        default=0, ge=0, le=10**9, description="The price of a million generated tokens. Thoughts count."
    )
    gpu_hour: float | int = Field(default=0, ge=0, le=10**9, description="The price of one GPU for one hour.")


class Teacher(Strict):
    """One teacher of the pool."""

    name: str = Field(description="The name of the teacher in the recipe and in all artifacts.")
    model: str | None = Field(
        default=None,
        description="The Hub id, the local folder or the server's name of the model. Null: its answers are imported.",
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the model on the Hub. Null takes the newest."
    )
    family: str = Field(
        default="unknown", description="The family of the model, in a word of your own. `family_strong` compares it."
    )
    params_b: float | int | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="The active parameters, in billions. The size decides who is strong, and who is sampled less.",
    )
    long_cot: bool = Field(
        default=False,
        description="The teacher answers with a long chain of thought. It gets few samples; `reassign` replaces it.",
    )
    samples: int | None = Field(
        default=None, ge=1, le=10_000, description="The answers per prompt. Null goes by `generate.samples`."
    )
    temperature: float | int | None = Field(
        default=None, ge=0, le=100, description="The temperature of sampling. Null goes by `generate.temperature`."
    )
    top_p: float | int | None = Field(
        default=None, gt=0, le=1, description="The probability to sample from. Null goes by `generate.top_p`."
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="The tokens of an answer at most. Null goes by `generate.max_tokens`.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="What its chat template is told, such as enable_thinking: false of Qwen3. "
        "A server is sent it under this name.",
    )
    system_prompt: str | None = Field(
        default=None,
        description="The system turn in front of every prompt that has none of its own. Null puts none there.",
    )
    engine: Literal["transformers", "server", "batch", "vllm"] | None = Field(
        default=None, description="The engine that asks this teacher. Null takes `generate.engine`."
    )
    server: dict[str, Any] = Field(
        default_factory=dict, description="The keys that go on top of `generate.server` for this teacher."
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="The keys that go on top of `generate.vllm` for this teacher."
    )
    price: Price | None = Field(
        default=None,
        description="The price, in one currency for all teachers. `plan`, cards and `--max-cost` read it.",
    )
    license: str | None = Field(
        default=None,
        description="The licence of its answers, as the Hub writes it. Null takes what the card of its model says.",
    )

    _name = field_validator("name")(check_config_name)


class Student(Strict):
    """One student to be trained."""

    name: str = Field(description="The name of the student in the recipe and in all artifacts.")
    model: str | None = Field(
        default=None,
        description="The Hub id or local folder. Null: it is neither scored nor trained, and quality alone decides.",
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the model on the Hub. Null takes the newest."
    )
    family: str = Field(
        default="unknown", description="The family of the model, in a word of your own. `family_strong` compares it."
    )
    params_b: float | int | None = Field(
        default=None, gt=0, le=1_000_000, description="The parameters, in billions. Only `persyn plan` reads them."
    )
    chat_template: str | None = Field(
        default=None, description="A Jinja file with a chat template. A base model that has no template needs one."
    )
    license: str | None = Field(
        default=None,
        description="The licence of its weights, as the Hub writes it. Null takes what the card of its model says.",
    )

    _name = field_validator("name")(check_name)
