"""The command `persyn recipes`: what comes with persyn, by name."""

import argparse
from typing import Any

from persyn_hf.cli.options import add_command
from persyn_hf.console import new_console


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "list the recipes that come with persyn, and the parts for `extends`; or print one, or the path of a file"
    examples = ("", "persyn:tasks/math", "persyn:slurm/one-node.sbatch")
    command = add_command(commands, "recipes", _recipes, text, *examples, store=False)
    command.add_argument("name", nargs="?", metavar="NAME", help="print this one; of a file that is no YAML, its path")


def _recipes(arguments: argparse.Namespace) -> int:
    from persyn_hf.recipe.packaged import PREFIX, find, summaries

    console = new_console()
    if arguments.name is not None:
        path = find(arguments.name if arguments.name.startswith(PREFIX) else PREFIX + arguments.name)
        is_recipe = path.suffix == ".yaml"
        console.print(path.read_text(encoding="utf-8").rstrip() if is_recipe else path, soft_wrap=True)
        return 0
    for whole, title in ((True, "recipes"), (False, "parts, for `extends` and for `accelerate`")):
        console.print(f"\n{title}")
        for name, is_whole, told in summaries():
            if is_whole == whole:
                console.print(f"  {PREFIX}{name:<34} {told}", no_wrap=True, overflow="ellipsis")
    console.print("\nread one: persyn recipes NAME    run one: persyn run NAME    your own: persyn init")
    return 0
