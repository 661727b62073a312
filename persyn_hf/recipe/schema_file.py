"""The file with the JSON Schema of a recipe, and the line by which editors find it.

`persyn_hf.reference` writes the file. It is data of this package, so that it is there without a clone.
"""

import json
import os
from pathlib import Path
from typing import Any


FILE = Path(__file__).with_name("recipe.schema.json")
CLONE = FILE.parents[2]
MODELINE = "# yaml-language-server: $schema="


def read_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe. All is written out in place, there are no references."""
    schema: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return schema


def schema_line(recipe: Path) -> str:
    """Return the comment by which editors check and complete the recipe at a path; it stands first in the file.

    In a clone of persyn-hf the path of the schema is relative, elsewhere it is that of the installed package.
    """
    recipe = recipe.absolute()
    if (CLONE / "setup.cfg").is_file() and recipe.is_relative_to(CLONE):
        return f"{MODELINE}{Path(os.path.relpath(FILE, recipe.parent)).as_posix()}"
    return f"{MODELINE}{FILE.as_uri()}"
