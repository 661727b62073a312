"""What the shell offers for an argument when TAB is pressed."""

import argparse
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
