"""Check the free parts of a manifest, its costs, models and settings, to the depth to which the code reads them.

A manifest may come from the Hub, from another version of persyn-hf or from a damaged disk. What is not named here is
kept as it is, and shown as text at most. The measurements (`metrics`) belong to that: other versions measure other
things, and whoever reads a measurement asks for its shape (`router_row`).
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


Number = Annotated[float, Field(ge=-1e300, le=1e300)]


class _Part(BaseModel):
    """The part of a manifest that is read; a key that is not named may hold anything."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Line(_Part):
    """A line of a ledger, the fields of `persyn_hf.core.cost.Cost`; null: not known."""

    requests: Number = 0
    new: Number = 0  # of `requests`
    prompt_tokens: Number | None = None
    completion_tokens: Number | None = None
    seconds: Number | None = None
    gpu_seconds: Number | None = None
    flops: Number | None = None
    money: Number | None = None


class Ways(_Part):
    """The costs of other ways to choose teachers."""

    generate_then_select: Line | None = None
    car: Line | None = None


class Cost(Line):
    """The cost of a step: its ledger, or plain fields of a line."""

    teachers: dict[str, Line] = Field(default_factory=dict)
    total: Line = Field(default_factory=Line)
    counterfactual: Ways = Field(default_factory=Ways)


class Model(_Part):
    """A teacher or a student."""

    name: str
    model: str | None = None
    revision: str | None = None


class Settings(_Part):
    """The settings by which a strategy, a router and rewards are told apart and combined anew."""

    kind: str | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    normalisation: str | None = None
    learnability: str | None = None
    in_part: bool = False
    near_tie: Annotated[float, Field(ge=0, le=1)] = 0


class Interval(_Part):
    """A measurement with its 95 % interval; null: not defined."""

    value: Number | None = None
    low: Number | None = None
    high: Number | None = None


_TABLE = TypeAdapter(dict[str, Interval], config=ConfigDict(strict=True))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where settings cannot be read."""
    _check(Settings, settings)


def check_cost(cost: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where a cost cannot be read."""
    _check(Cost, cost)


def check_model(model: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where a teacher or student has no name, or anything else than text for its model."""
    _check(Model, model)


def router_row(metrics: Mapping[str, Any], row: str) -> dict[str, dict[str, Any]]:
    """Return a row of a router's table, such as `oracle`: metric -> {value, low, high}; {} for any other shape."""
    try:
        cells = _TABLE.validate_python(metrics.get(row))
    except ValidationError:
        return {}
    return {metric: cell.model_dump() for metric, cell in cells.items()}


class _ByCalibration(_Part):
    folds: Annotated[int, Field(ge=2, le=10**6)] | None
    prompts: Annotated[int, Field(ge=0, le=10**15)]


def judged_on(metrics: Mapping[str, Any], dev_prompts: int) -> str:
    """Say on which prompts the metrics of a router were measured: dev or, where there is none, calibration."""
    try:
        own = _ByCalibration.model_validate(metrics.get("by_calibration"))
    except ValidationError:
        return f"{dev_prompts:,} dev prompts that it never saw"
    if own.folds is None:
        return f"{own.prompts:,} calibration prompts that chose its epoch, as there are no dev prompts"
    return f"{own.prompts:,} calibration prompts by cross-fitting in {own.folds} folds, as there are no dev prompts"


def _check(part: type[BaseModel], value: Mapping[str, Any]) -> None:
    """Raise a `ValueError` with the first fault of a part: pydantic's own would not name the key."""
    try:
        part.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_context=False)[0]
        raise ValueError(f"its `{'.'.join(map(str, fault['loc']))}`: {fault['msg']}") from None
