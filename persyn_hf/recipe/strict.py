"""Read values strictly: a fault becomes one sentence that names the key, what was found and what is needed."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from persyn_hf.errors import RecipeError


MANY = 25  # names that one sentence lists at most
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
FAR = 1000
NAME = re.compile(r"[\w.-]{1,64}")
OUT_OF_BOUNDS = {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}
# What pydantic calls the types of a field that takes several, and what they are called here.
UNIONS = {
    "float": "a number",
    "int": "a number",
    "str": "text",
    "bool": "true or false",
    "list[str]": "a list of texts",
}
LISTS = {"tuple_type": "must be a list", "too_short": "must name at least one"}


class Strict(BaseModel):
    """The base of all that is read from a recipe: frozen; unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def nearest(key: str, known: Iterable[str]) -> str:
    """Say which known key was probably meant: ", did you mean `alpha`? (known: alpha, beta)"."""
    keys = list(known)
    return choices(difflib.get_close_matches(key, keys, n=1), keys)


def choices(meant: Sequence[str], keys: Sequence[str]) -> str:
    """Say what was probably meant, one or nothing, and what there is: ", did you mean `a`? (known: a, b)"."""
    hint = f", did you mean `{meant[0]}`?" if meant else ""
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
        sentences = dict.fromkeys(_sentence(model, fault, where, values, faults) for fault in faults)
        raise RecipeError("; ".join([*sentences][:5])) from None


def _sentence(model: type[BaseModel], fault: Any, where: str, values: Any, faults: list[Any]) -> str:
    """Put one of pydantic's faults into a sentence; those of a field that takes several types give the same one."""
    union = next(
        (end for end, part in enumerate(fault["loc"]) if part in UNIONS and not _has(values, fault["loc"], end)), None
    )
    if union is not None and fault["type"] not in OUT_OF_BOUNDS:
        field = fault["loc"][:union]
        kinds = [
            other["loc"][union] for other in faults if other["loc"][:union] == field and len(other["loc"]) > union
        ]
        needed = dict.fromkeys(UNIONS[kind] for kind in kinds if kind in UNIONS)
        found = _at(values, field)
        return f"{'.'.join([where, *_named(values, field)])}: must be {' or '.join(needed)}, got {found!r}"
    path = _named(values, fault["loc"])
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
    close = difflib.get_close_matches(str(fault["input"]).lower(), words, 1)
    return f"{said}, did you mean `{close[0]}`?" if close else said


def _at(values: Any, path: Sequence[Any]) -> Any:
    """Return the value that a path of keys and places leads to; None where it leads nowhere."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _has(values: Any, path: Sequence[Any], end: int) -> bool:
    """Tell whether the part at `end` of a path is a key of the values, and not a type of pydantic's."""
    within = _at(values, path[:end])
    return isinstance(within, Mapping) and path[end] in within


def _named(values: Any, path: Sequence[Any]) -> list[str]:
    """Return the parts of a path; an entry of a list is called by its `name`, where it has one of its own."""
    parts = []
    for end, part in enumerate(path):
        name = None
        if isinstance(part, int):
            entries = _at(values, path[:end])
            named = [entry.get("name") if isinstance(entry, Mapping) else None for entry in entries or ()]
            name = named[part] if part < len(named) and named.count(named[part]) == 1 else None
        parts.append(name if isinstance(name, str) and NAME.fullmatch(name) else str(part))
    return parts


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
