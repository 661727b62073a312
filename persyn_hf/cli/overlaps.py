"""The command `persyn overlaps`: which prompts hold which test items."""

import argparse
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, open_recipe, open_store, positive
from persyn_hf.console import new_console, say


CHARACTERS = 600  # of a text; --full shows all


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "show which prompts hold an item of the tasks that students are evaluated on, text beside text"
    command = add_command(commands, "overlaps", _overlaps, text, "my.yaml", "my.yaml -n 50 --full")
    add_recipe(command)
    command.add_argument("-n", type=positive(int), default=5, metavar="N", help="pairs of each set (default: 5)")
    command.add_argument(
        "--full", action="store_true", help=f"show texts whole, not their first {CHARACTERS} characters"
    )


def _overlaps(arguments: argparse.Namespace) -> int:
    from itertools import islice

    from persyn_hf.forecast.overlaps import find_overlaps
    from persyn_hf.stage import Silent

    console = new_console()
    found = find_overlaps(open_recipe(arguments), open_store(arguments), Silent())
    for name, texts in found.compared.sets.items():
        overlaps = found.compared.overlaps[name]
        items = f"{found.compared.items_found[name]:,} of the {len(texts):,} items of {name}"
        say(f"{items} in {len(overlaps):,} of {len(found.prompts):,} prompts", console)
        for one in islice(found.of(name), arguments.n):
            say(f"\n  {one.share:.0%} of the words of item {one.item_number} in the prompt {one.prompt_id}", console)
            say(f"  item:   {_cut(one.item, arguments.full)}", console)
            say(f"  prompt: {_cut(one.prompt, arguments.full)}", console)
        if overlaps:
            say("", console)
    for name, why in found.compared.unread.items():
        say(f"note: not compared with {name}: {why}", console)
    return 0


def _cut(text: str, full: bool) -> str:
    return text if full or len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ... ({len(text):,} characters)"
