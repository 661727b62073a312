"""The commands `persyn report` and `persyn space`: what a store holds, as tables and figures and in the browser."""

import argparse
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, check_memory, open_recipe, open_store
from persyn_hf.console import say
from persyn_hf.errors import PersynError


def add(commands: Any) -> None:
    """Add the commands to the subparsers `commands`."""
    text = "write tables and figures of what is stored of a recipe, or of several together"
    report = add_command(commands, "report", _report, text, "my.yaml", "my.yaml other.yaml --out report")
    add_recipe(report, several=True)
    report.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: ./report)")
    examples = ("", "lab/study-assignments-small-persyn@v1")
    space = add_command(commands, "space", _space, "show who teaches what, and why, in the browser", *examples)
    space.set_defaults(serves=True)
    space.add_argument(
        "refs", nargs="*", metavar="REF", help="assignments, and what belongs to them (default: all of the store)"
    )
    space.add_argument("--port", type=int, default=7860, help="port of 127.0.0.1 (default: 7860)")


def _report(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.files import write_report
    from persyn_hf.report.outcomes import Part
    from persyn_hf.runner.run import look_up, stored_of
    from persyn_hf.store.disk import out_faults

    check_memory()
    store = open_store(arguments)
    recipes = [open_recipe(arguments, path) for path in arguments.recipes]
    parts, absent = [], []
    for path, recipe in zip(arguments.recipes, recipes, strict=True):
        done = look_up(recipe, store)
        parts.append(Part(recipe, stored_of(recipe, store, done)))
        if not parts[-1].stored:
            others = sum(item.repo.startswith(f"{recipe.full_name}-") for item in store.artifacts())
            hint = f"; what the store has of it ({others} artifacts) was made by other settings: repeat their --set"
            raise PersynError(f"nothing of {path} is stored yet: persyn run {path}{hint if others else ''}")
        absent += [item.step.key for item in done if item.stored is None]
    with out_faults(arguments.out):
        written = write_report(parts, store, arguments.out)
    if absent:
        some = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        say(f"not in the report, for these steps have not run with these settings: {some}")
    say(f"{written.tables} tables and {written.figures} figures: {written.path}")
    return 0


def _space(arguments: argparse.Namespace) -> int:
    from persyn_hf.space.app import launch
    from persyn_hf.space.collection import open_shelf

    launch(open_shelf(arguments.refs, open_store(arguments)), port=arguments.port)
    return 0
