"""The commands `persyn run` and `persyn status`."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, check_memory, open_recipe, open_store, positive
from persyn_hf.console import new_console, say
from persyn_hf.errors import PersynError


def add(commands: Any) -> None:
    """Add the commands to the subparsers `commands`."""
    examples = ("my.yaml", "my.yaml --max-cost 50", "my.yaml --set score.alpha=0.3", "my.yaml --rerun truncated")
    run = add_command(commands, "run", _run, "run a recipe; what is stored already is reused", *examples)
    add_recipe(run)
    run.add_argument(
        "--max-generations", type=positive(int), metavar="N", help="answers that the recipe asks for in all its runs"
    )
    run.add_argument(
        "--max-cost", type=positive(float), metavar="X", help="money that the recipe spends in all its runs"
    )
    text = "go on where the journal has lost what the recipe has paid for, and pay for it again"
    run.add_argument("--new-journal", action="store_true", help=text)
    text = "keep the journal on this disk of the machine during the run, and a copy in the store, whose disk is shared"
    run.add_argument("--journal", type=Path, metavar="FOLDER", help=text)
    text = "end instead of waiting where only batches of batch APIs are waited for; the same command collects them"
    run.add_argument("--detach", action="store_true", help=text)
    text = "publish every artifact on the Hugging Face Hub when it is made, students last"
    run.add_argument("--push", action="store_true", help=text)
    run.add_argument("--private", action="store_true", default=None, help="with --push: make new repositories private")
    text = "show what a running, finished or killed `persyn run` has done"
    add_command(commands, "status", _status, text, "", "--store /data/store")


def _run(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.files import part_tables
    from persyn_hf.report.outcomes import Part, outcomes
    from persyn_hf.report.result_tables import result_tables
    from persyn_hf.runner.local_journal import keep_here
    from persyn_hf.runner.publishing import Publisher
    from persyn_hf.runner.run import run_recipe, stored_of
    from persyn_hf.stage import Limits

    _check_alone()
    check_memory()
    if arguments.private and not arguments.push:
        raise PersynError(
            "--private is about what --push makes, and there is no --push; add it, or leave --private out"
        )
    console, begun = new_console(), time.monotonic()
    recipe, store = open_recipe(arguments), open_store(arguments)
    limits = Limits(
        max_generations=arguments.max_generations,
        max_cost=arguments.max_cost,
        wait_for_batches=not arguments.detach,
        new_journal=arguments.new_journal,
        are_options=True,
    )
    publisher = Publisher(store, recipe.namespace, arguments.private) if arguments.push else None
    with keep_here(store, arguments.journal):
        done = run_recipe(recipe, store, console, limits, publisher)
    part = Part(recipe, stored_of(recipe, store, done))
    for table in (*part_tables(part, store), *result_tables(outcomes([part], store))):
        console.print(table.rich(console.width))
    last = done[-1].stored
    new = sum(not item.reused for item in done)
    took = f"{time.monotonic() - begun:.0f} s"
    say(f"all steps are done: {new} run now, {len(done) - new} reused, in {took}", console)
    if last is not None:
        option, argument = (f" --store {store.root}", f', store="{store.root}"') if arguments.store else ("", "")
        for line in (
            f"artifacts: {store.root} (persyn artifacts ls{option})",
            f'load one: persyn_hf.load_artifact("{last.ref}"{argument})',
            f"check one: persyn artifacts verify {last.ref}{option}",
        ):
            say(line, console)
    if publisher is not None:
        publisher.check()
    return 0


def _check_alone() -> None:
    """Refuse to run as one of several processes: `accelerate launch persyn run ...` starts as many runs on a store."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise PersynError(
            f"`persyn run` was started as one of {processes} processes (WORLD_SIZE={processes}); start it once, "
            "without `accelerate launch`, and name the config in the recipe: `score: {accelerate: FILE}`"
        )


def _status(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.status import standing

    store = open_store(arguments)
    status = standing(store.state_dir)
    if status is None:
        say(f"no run was started on the store {store.root}")
        return 1
    console = new_console()
    for line in status.lines:
        say(line, console)
    for table in status.tables:
        console.print(table.rich(console.width))
    return 0
