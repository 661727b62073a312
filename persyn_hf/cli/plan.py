"""The commands `persyn plan` and `persyn validate`: what is known of a recipe before it runs."""

import argparse
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, add_recipes, open_recipe, open_store
from persyn_hf.console import new_console, say
from persyn_hf.errors import PersynError


def add(commands: Any) -> None:
    """Add the commands to the subparsers `commands`."""
    text = "show what a recipe will ask and cost, and what has to be mended before it runs; loads no weights"
    examples = ("my.yaml", "my.yaml --steps", "my.yaml --set score.alpha=0.3", "persyn:one-gpu/gsm8k --no-checks")
    plan = add_command(commands, "plan", _plan, text, *examples)
    add_recipe(plan)
    text = "only count: look at no model, task or server (no network is needed then)"
    plan.add_argument("--no-checks", action="store_true", help=text)
    plan.add_argument("--steps", action="store_true", help="list the steps one by one")
    text = "check recipes without running them"
    validate = add_command(commands, "validate", _validate, text, "my.yaml", "my.yaml --deep", "my.yaml --models")
    add_recipes(validate)
    text = "load the tokenizers, and say what every chat template does with answers, thoughts and system turns"
    validate.add_argument("--models", action="store_true", help=text)
    text = "make every check that a run begins with: files, packages, models, tasks, servers, room on the disk"
    validate.add_argument("--deep", action="store_true", help=text)


def _plan(arguments: argparse.Namespace) -> int:
    from persyn_hf.forecast.generation import forecast
    from persyn_hf.forecast.outlook import look_ahead
    from persyn_hf.runner.preflight import preflight
    from persyn_hf.runner.run import look_up

    console = new_console()
    recipe, store = open_recipe(arguments), open_store(arguments)
    done = look_up(recipe, store)
    for table in forecast(look_ahead(recipe, done, store), whole=arguments.steps):
        console.print(table.rich(console.width))
    for ref in [ref for ref in recipe.inputs.values() if not store.has(ref)]:
        say(f"{ref} is on the Hub, not in the store: `persyn run` pulls it, or: persyn artifacts pull {ref}")
    if arguments.no_checks:
        return 0
    found = preflight(recipe, [item.step for item in done if item.stored is None], store)
    for warning in found.warnings:
        say(warning)
    found.refuse()
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    faults = []
    for path in arguments.recipes:
        try:
            _look_at(path, arguments)
        except PersynError as error:
            faults += [f"{path}: {line}" if len(arguments.recipes) > 1 else line for line in str(error).split("\n")]
    if faults:
        raise PersynError("\n".join(faults))
    return 0


def _look_at(path: Path, arguments: argparse.Namespace) -> None:
    """Say of a recipe what is asked for; raises `PersynError` with a line per fault."""
    from persyn_hf.forecast.rehearsal import Rehearsal
    from persyn_hf.recipe import names
    from persyn_hf.recipe.file import load_recipe
    from persyn_hf.runner.model_checks import models_of
    from persyn_hf.runner.plan import make_plan
    from persyn_hf.runner.preflight import preflight
    from persyn_hf.runner.run import look_up

    recipe = load_recipe(path)
    steps = make_plan(recipe)
    told = [(one.name, one.look()) for one in models_of(steps)] if arguments.models else []
    warnings = []
    if arguments.deep:
        store = open_store(arguments)
        done = look_up(recipe, store)  # refuses missing files and pinned inputs
        found = preflight(recipe, steps, store)
        with Rehearsal(recipe, done, store) as rehearsal:
            try:
                rehearsal.rows(names.PROMPTS)
            except PersynError as error:
                found.faults.append(str(error))
        found.refuse()
        warnings = found.warnings
    say(f"{path}: valid, {len(steps)} steps")
    for line in [*(f"{model} {what}" for model, what in told), *warnings]:
        say(f"  {line}")
