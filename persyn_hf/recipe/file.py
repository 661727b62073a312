"""Read a recipe: one YAML file per experiment.

Order of precedence: `--set key=value`, then the recipe, then what it `extends`, then the defaults of each stage's
`Settings`. A relative path counts from the file that it is written in; in `--set` it counts from the working
directory. `persyn:tasks/math` is what comes with persyn under that name, as a recipe, in `extends` and as a value.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from persyn_hf.errors import RecipeError
from persyn_hf.recipe import packaged
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.recipe.yaml_text import read_yaml


# The values of these keys are always files. Elsewhere `a/b` may be the id of a Hub model, and only `./a/b` is a path.
PATH_KEYS = ("path", "fewshot_path", "chat_template", "accelerate", "shared")
LONGEST_CHAIN = 20
OWN = frozenset({"name", "teachers", "students"})  # a file with none of these keys is one that recipes extend


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe with all that it extends and the overrides, each `key.subkey=value` with a YAML value.

    `path` may be the name of one that comes with persyn: `persyn:tiny/demo`.

    Raises:
        RecipeError: the file cannot be read, holds no recipe, or a key or value is not valid.
    """
    if packaged.is_named(str(path)):
        path = packaged.find(str(path))
    path = Path(path)
    return _validated(_read(path, seen=()), overrides, str(path), path.name)


def read_recipe(values: Mapping[str, Any], folder: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe of the values that its file would hold; relative paths count from `folder`.

    Raises:
        RecipeError: a file that it extends cannot be read, or a key or value is not valid.
    """
    return _validated(_whole(_copied(values), folder, "the recipe", ()), overrides, "this", "recipe")


def _validated(values: dict[str, Any], overrides: Iterable[str], what: str, where: str) -> Recipe:
    """Make the recipe of values with all that they extend."""
    for override in overrides:
        _override(values, override)
    if not OWN & values.keys():
        raise RecipeError(
            f"{what} is no recipe by itself: it has none of {', '.join(f'`{key}`' for key in sorted(OWN))}; "
            "name a recipe that extends it"
        )
    return read_section(Recipe, values, where)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read one file with all that it extends; `seen` are the files that lead to it."""
    where = f"the recipe {path}"
    if path.resolve() in seen:
        raise RecipeError(f"{path} extends itself")
    if len(seen) > LONGEST_CHAIN:
        raise RecipeError(f"{path} is the end of a chain of more than {LONGEST_CHAIN} files that extend one another")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{where} does not exist") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{where} cannot be read: it is no text in UTF-8; save it as such") from None
    except OSError as error:
        raise RecipeError(f"{where} cannot be read: {error.strerror}") from None
    values = read_yaml(text, where)
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must hold a mapping of keys to values, found {type(values).__name__}")
    return _whole(values, path.parent, where, (*seen, path.resolve()))


def _whole(values: dict[str, Any], folder: Path, where: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Merge values, whose paths count from `folder`, with all that they extend."""
    _resolve_paths(values, folder, where)
    merged: dict[str, Any] = {}
    for parent in _parents(values, where):
        merged = _merge(merged, _read(_extended(parent, folder, where), seen))
    return _merge(merged, values)


def _copied(value: Any) -> Any:
    """Return a copy of values as YAML has them: of mappings, lists and paths as text."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _parents(values: dict[str, Any], where: str) -> list[str]:
    """Take out of a file's values the names of the files that it extends."""
    if "extends" not in values:
        return []
    extends = values.pop("extends")
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise RecipeError(
            f"{where}: `extends` takes the path of a file, a name (`persyn:tasks/math`) or a list of them, "
            f"got {extends!r:.100}"
        )
    return names


def _extended(name: str, folder: Path, where: str) -> Path:
    """Return the file of a name in `extends`."""
    if packaged.is_named(name):
        return packaged.find(name, f"{where}: `extends`")
    return Path(_absolute(name, folder, f"{where}: `extends`")) if name.startswith("~/") else folder / name


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Merge two mappings key by key; any other value (a list, too) of `top` replaces that of `base`."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _resolve_paths(value: Any, folder: Path, where: str) -> None:
    """Make relative paths absolute, so that they survive `extends` and any working directory."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key == "extends":
            continue
        is_path = isinstance(item, str) and (item.startswith(("./", "../", "~/")) or key in PATH_KEYS)
        if isinstance(item, str) and packaged.is_named(item):
            value[key] = str(packaged.find(item, f"{where}: `{key}`"))
        elif is_path:
            value[key] = _absolute(item, folder, f"{where}: `{key}`")
        else:
            _resolve_paths(item, folder, where)


def _absolute(path: str, folder: Path, where: str) -> str:
    try:
        return str((folder / Path(path).expanduser()).resolve())
    except (OSError, RuntimeError) as error:  # too long a name, a loop of links; `~` of a user whom nobody knows
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"{where} is no path that can be found: {path:.100} ({reason})") from None


def _override(values: dict[str, Any], override: str) -> None:
    """Set one `key.subkey=value` in `values`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes key.subkey=value, got `{override:.100}`; write --set score.alpha=0.3")
    *parents, last = key.split(".")
    value = {last: read_yaml(text, f"--set {override:.100}")}
    _resolve_paths(value, Path.cwd(), "--set")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override:.100}: `{parent}` is no mapping; lists are set whole, as YAML")
    values[last] = value[last]
