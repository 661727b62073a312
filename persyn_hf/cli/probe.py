"""The command `persyn probe`: is routing worth it on this pool?"""

import argparse
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, check_memory, open_recipe, open_store, positive
from persyn_hf.console import new_console, say


WORTH = 0.05  # of reward; most rewards go from 0 to 1


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "ask a few hundred answers and say whether routing is worth it; a later run has them for nothing"
    probe = add_command(commands, "probe", _probe, text, "my.yaml", "my.yaml --cells 600")
    add_recipe(probe)
    text = "(prompt, teacher) cells to ask (default: 300, and for more than 15 teachers 20 each)"
    probe.add_argument("--cells", type=positive(int), metavar="N", help=text)
    text = f"gain in reward from which routing is worth it (default: {WORTH})"
    probe.add_argument("--worth", type=positive(float), default=WORTH, metavar="X", help=text)


def _probe(arguments: argparse.Namespace) -> int:
    from persyn_hf.forecast.probe import probe
    from persyn_hf.forecast.probe_tables import probe_tables, recommendation

    check_memory()
    console = new_console()
    recipe, store = open_recipe(arguments), open_store(arguments)
    findings = probe(recipe, store, console, arguments.cells, arguments.worth)
    for table in probe_tables(findings, arguments.worth):
        console.print(table.rich(console.width))
    say(recommendation(findings, arguments.worth), console)
    return 0
