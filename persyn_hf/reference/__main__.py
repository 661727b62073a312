"""Write the reference of a clone anew, where the code has changed: `make reference`."""

import json
from pathlib import Path

from persyn_hf.recipe.schema_file import CLONE, FILE, MODELINE, schema_line
from persyn_hf.reference.page import settings_page
from persyn_hf.reference.schema import recipe_schema
from persyn_hf.reference.settings import list_settings


NO_RECIPES = ("accelerate", "judges", "zoo")  # folders of recipes/ with YAML of other kinds


def reference(clone: Path) -> dict[Path, str]:
    """Return what the files of a clone must hold that are made from the code: schema, page, first lines of recipes."""
    schema = recipe_schema()
    files = {FILE: json.dumps(schema, indent=1, ensure_ascii=False) + "\n"}
    files[clone / "docs" / "settings.md"] = settings_page(list(list_settings(schema).values()))
    for recipe in sorted((clone / "recipes").rglob("*.yaml")):
        if not set(NO_RECIPES) & set(recipe.parts):
            lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if not line.startswith(MODELINE)]
            files[recipe] = "".join([f"{schema_line(recipe)}\n", *kept])
    return files


if __name__ == "__main__":
    for path, text in reference(CLONE).items():
        path.write_text(text, encoding="utf-8")
