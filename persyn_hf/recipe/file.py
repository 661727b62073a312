"""Read a recipe: one YAML file per experiment.

Order of precedence: `--set key=value`, then the recipe, then what it `extends`, then the defaults of each stage's
`Settings`. A relative path counts from the file that it is written in; in `--set` it counts from the working
directory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import read_section


# The values of these keys are always files. Elsewhere `a/b` may be the id of a Hub model, and only `./a/b` is a path.
PATH_KEYS = ("path", "fewshot_path", "chat_template", "accelerate")
OWN = frozenset({"name", "teachers", "students"})  # a file with none of these keys is one that recipes extend


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe with all that it extends and the overrides, each `key.subkey=value` with a YAML value.

    Raises:
        RecipeError: the file cannot be read, holds no recipe, or a key or value is not valid.
    """
    path = Path(path)
    values = _read(path, seen=())
    for override in overrides:
        _override(values, override)
    if not OWN & values.keys():
        raise RecipeError(
            f"{path} is no recipe by itself: it has none of {', '.join(f'`{key}`' for key in sorted(OWN))}; "
            "name a recipe that extends it"
        )
    return read_section(Recipe, values, path.name)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file merged over the files that it extends; `seen` are the files on the way to it."""
    if path.resolve() in seen:
        raise RecipeError(f"{path} extends itself")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"the recipe {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise RecipeError(f"the recipe {path} cannot be read: {reason}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must hold a mapping of keys to values, found {type(values).__name__}")
    _resolve_paths(values, path.parent)
    parents = values.pop("extends", [])
    merged: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = _merge(merged, _read(path.parent / parent, (*seen, path.resolve())))
    return _merge(merged, values)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Merge two mappings key by key; any other value (a list, too) of `top` replaces that of `base`."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _resolve_paths(value: Any, folder: Path) -> None:
    """Make relative paths absolute, so that they survive `extends` and any working directory."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        is_path = isinstance(item, str) and (item.startswith(("./", "../", "~/")) or key in PATH_KEYS)
        if is_path and key != "extends":
            value[key] = str((folder / Path(item).expanduser()).resolve())
        else:
            _resolve_paths(item, folder)


def _override(values: dict[str, Any], override: str) -> None:
    """Set one `key.subkey=value` in `values`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes key.subkey=value, got `{override}`")
    try:
        *parents, last = key.split(".")
        value = {last: yaml.safe_load(text)}
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is no YAML; quote it") from None
    _resolve_paths(value, Path.cwd())
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override}: `{parent}` is no mapping; lists are set whole, as YAML")
    values[last] = value[last]
