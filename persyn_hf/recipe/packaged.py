"""Find what comes with persyn by its name: recipes, tasks, configs of accelerate and the tiny world.

A wheel holds them beside the code, a clone one folder further up. `persyn:tiny/demo` is the recipe `tiny/demo.yaml`
there, `persyn:tiny/zoo/qwen-gen` a folder, `persyn:tiny/prompts.jsonl` a file.
"""

import difflib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from persyn_hf.errors import InputError, RecipeError


PREFIX = "persyn:"
NAMED = re.compile(rf"{PREFIX}[\w./-]+")  # to be matched in full: `persyn: be brief` is text
WHOLE = re.compile(r"^name:", re.MULTILINE)  # what has none is a part that recipes extend
SENTENCE = re.compile(r"(?<!Fig)[.:;?] ")


def folder(name: str) -> Path:
    """Return a folder of what comes with persyn, `recipes` or `dataset_cards`.

    Raises:
        InputError: it is not there, for the package was copied without it.
    """
    package = Path(__file__).parents[1]
    for place in (package, package.parent):  # of a wheel, of a clone
        if (place / name).is_dir():
            return place / name
    raise InputError(f"persyn-hf in {package} lacks its folder `{name}`; install it anew, or copy the whole clone")


def is_named(value: str) -> bool:
    """Tell whether a text is a name: `persyn:tasks/math`."""
    return NAMED.fullmatch(value) is not None


def find(name: str, where: str = "") -> Path:
    """Return the file or folder of a name; `.yaml` may be left out.

    Args:
        name: `persyn:tasks/math`.
        where: who names it, for the message: "the recipe my.yaml: `extends`".

    Raises:
        RecipeError: nothing has this name; the nearest one is said.
    """
    inside = name.removeprefix(PREFIX)
    root = folder("recipes").resolve()
    for path in (root / f"{inside}.yaml", root / inside):
        if path.exists() and path.resolve().is_relative_to(root):
            return path.resolve()
    known = [*names(), *(path.relative_to(root).as_posix() for path in sorted(root.rglob("*")))]
    close = difflib.get_close_matches(inside, known, n=1)
    hint = f", did you mean `{PREFIX}{close[0]}`?" if close else ";"
    begin = f"{where}: " if where else ""
    raise RecipeError(
        f"{begin}nothing with the name `{name}` comes with persyn{hint} `persyn recipes` lists what does"
    )


def names() -> list[str]:
    """List the names of the YAML files that come with persyn, without the prefix: `tiny/demo`."""
    root = folder("recipes")
    return [path.relative_to(root).with_suffix("").as_posix() for path in sorted(root.rglob("*.yaml"))]


def summaries() -> Iterator[tuple[str, bool, str]]:
    """Yield the name of every YAML file, whether it is a recipe by itself, and what it says of itself at its top."""
    for name in names():
        text = (folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
        top = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        comment = " ".join(line.lstrip("# ") for line in top if "yaml-language-server" not in line)
        extends = re.search(r"^extends: (.+)$", text, re.MULTILINE)
        told = comment or (f"extends {extends[1]}" if extends else "")
        yield name, WHOLE.search(text) is not None, SENTENCE.split(f"{told} ")[0].strip()
