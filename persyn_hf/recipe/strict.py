"""Read values strictly: a fault becomes one sentence that names the key, what was found and what is needed."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from persyn_hf.errors import RecipeError


MANY = 25  # names that one sentence lists at most
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
FAR = 1000
OUT_OF_BOUNDS = {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}
LISTS = {"tuple_type": "must be a list", "too_short": "must name at least one"}


class Strict(BaseModel):
    """The base of all that is read from a recipe: frozen; unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def nearest(key: str, known: Iterable[str]) -> str:
    """Say which known key was probably meant: ", did you mean `alpha`? (known: alpha, beta)"."""
    keys = list(known)
    close = difflib.get_close_matches(key, keys, n=1)
    hint = f", did you mean `{close[0]}`?" if close else ""
    others = f" and {len(keys) - MANY} more" if len(keys) > MANY else ""
    return f"{hint} (known: {', '.join(keys[:MANY])}{others})"


def read_section(model: type[BaseModel], values: Mapping[str, Any], where: str) -> Any:
    """Validate `values` as `model`, and return it.

    `where` is the place of the values in the recipe, such as `generate`, and begins every sentence.

    Raises:
        RecipeError: up to five faults, each a sentence that names the key, the value and what is needed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        # pydantic reports a list whose items have faults as too short, too.
        faults = [fault for fault in error.errors() if fault["type"] != "too_short" or not fault["input"]]
        raise RecipeError("; ".join(_sentence(model, fault, where) for fault in faults[:5])) from None


def _sentence(model: type[BaseModel], fault: Any, where: str) -> str:
    """Put one of pydantic's faults into a sentence."""
    path = [str(part) for part in fault["loc"]]
    dotted = ".".join([where, *path])
    if fault["type"] == "extra_forbidden":
        owner = _owner(model, fault["loc"][:-1])
        keys = [info.alias or key for key, info in owner.model_fields.items()] if owner else []
        return f"{'.'.join([where, *path[:-1]])}: unknown key `{path[-1]}`{nearest(path[-1], keys)}"
    if fault["type"] == "missing":
        return f"{'.'.join([where, *path[:-1]])}: the key `{path[-1]}` is missing"
    if fault["type"] in OUT_OF_BOUNDS:
        return f"{dotted}: must be {_bounds(model, fault)}, got {fault['input']!r}"
    if fault["type"] in LISTS:
        return f"{dotted}: {LISTS[fault['type']]}, got {fault['input']!r}"
    message = re.sub(r" or instance of \w+", "", fault["msg"].removeprefix("Value error, "))
    if fault["type"] == "value_error":
        return f"{dotted}: {message}"
    said = f"{dotted}: {message[0].lower()}{message[1:]}, got {fault['input']!r}"
    words = re.findall(r"'([^']+)'", message) if fault["type"] == "literal_error" else []
    close = difflib.get_close_matches(str(fault["input"]), words, 1)
    return f"{said}, did you mean `{close[0]}`?" if close else said


def _bounds(model: type[BaseModel], fault: Any) -> str:
    """Say the bounds of a field: "at least 0 and at most 1".

    The fault itself knows only the bound that it broke. A bound from `FAR` on only keeps numbers in hand, so it is
    said where it was broken.
    """
    info = _field(model, fault["loc"])
    limits = dict(fault["ctx"])
    for constraint in info.metadata if info else ():
        limits |= {key: getattr(constraint, key) for key in BOUNDS if getattr(constraint, key, FAR) < FAR}
    return " and ".join(f"{word} {limits[key]:,}" for key, word in BOUNDS.items() if key in limits)


def _owner(model: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    """Return the model class that a path of keys leads to: `Recipe` and (`teachers`, 0) give `Teacher`."""
    info = _field(model, path)
    return model if not path else _model_of(info) if info else None


def _field(model: type[BaseModel], path: tuple[Any, ...]) -> FieldInfo | None:
    """Return the last field on a path of keys: `Recipe` and (`teachers`, 0, `samples`) give `Teacher.samples`."""
    info = None
    inside: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        field = {info.alias or key: info for key, info in inside.model_fields.items()}.get(part) if inside else None
        if field is None:
            break
        info, inside = field, _model_of(field)
    return info


def _model_of(info: FieldInfo) -> type[BaseModel] | None:
    """Return the model class in a field's type, `Teacher` of `tuple[Teacher, ...]`; None where there is none."""
    return next((kind for kind in _classes(info.annotation) if issubclass(kind, BaseModel)), None)


def _classes(annotation: Any) -> list[type]:
    """List the classes that a type is made of."""
    if isinstance(annotation, type):
        return [annotation]
    return [kind for argument in getattr(annotation, "__args__", ()) for kind in _classes(argument)]
