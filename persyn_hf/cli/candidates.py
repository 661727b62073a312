"""What the shell offers for an argument when TAB is pressed."""

import argparse
import json
import os
from pathlib import Path
from typing import Any


def recipes_like(prefix: str, **_: Any) -> list[str]:
    """List recipes: YAML files and folders below the working directory, and what comes with persyn."""
    from persyn_hf.recipe.packaged import PREFIX, summaries

    folder = os.path.dirname(prefix)
    here = Path(folder or ".")
    found = sorted(here.iterdir()) if here.is_dir() else []
    listed = [os.path.join(folder, path.name) + ("/" if path.is_dir() else "") for path in found]
    files = [name for name in listed if name.endswith((".yaml", ".yml", "/"))]
    return [*files, *(f"{PREFIX}{name}" for name, whole, _ in summaries() if whole)]


def refs_like(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """List the artifacts of the store, NAMESPACE/NAME@TAG."""
    from persyn_hf.store.local import Store

    return [item.ref for item in Store(getattr(parsed_args, "store", None)).artifacts()]


def kinds_like(prefix: str, **_: Any) -> list[str]:
    """List the kinds of artifacts."""
    from persyn_hf.schemas import SCHEMAS

    return [*SCHEMAS]


def overrides_like(prefix: str, **_: Any) -> list[str]:
    """List what `--set` takes: keys with `=`, and behind it the values of one that has a choice."""
    from persyn_hf.recipe.schema_file import read_schema
    from persyn_hf.reference.settings import list_settings

    settings = list_settings(read_schema())
    key, equals, _rest = prefix.partition("=")
    if equals:
        return [f"{key}={value}" for value in (_values(settings[key].node) if key in settings else [])]
    lists = tuple(f"{path}." for path, setting in settings.items() if "items" in setting.node)  # set whole
    return [f"{path}=" for path, setting in settings.items() if not path.startswith(lists)]


def _values(node: dict[str, Any]) -> list[str]:
    """Return the values of a setting, where they are words."""
    if "anyOf" in node:
        return list(dict.fromkeys(value for form in node["anyOf"] for value in _values(form)))
    words = node.get("enum", [node["const"]] if "const" in node else [])
    types = node.get("type", [])
    if "boolean" in ([types] if isinstance(types, str) else types):
        words = [True, False]
    null = [None] if "null" in types and None not in words and words else []
    return [word if isinstance(word, str) else json.dumps(word) for word in [*words, *null]]
