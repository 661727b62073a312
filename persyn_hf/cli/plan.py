"""The commands `persyn plan` and `persyn validate`: what is known of a recipe before it runs."""

import argparse
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, open_recipe, open_store
from persyn_hf.console import new_console, say
from persyn_hf.errors import PersynError


def add(commands: Any) -> None:
    """Add the commands to the subparsers `commands`."""
    text = "show steps, generations and cost of a recipe; loads no model"
    plan = add_command(commands, "plan", _plan, text)
    add_recipe(plan)
    plan.add_argument("--steps", action="store_true", help="list the steps one by one")
    validate = add_command(commands, "validate", _validate, "check recipes without running them")
    validate.add_argument("recipes", type=Path, nargs="+", help="recipes, YAML files")
    text = "load the tokenizers, and say what every chat template does with answers, thoughts and system turns"
    validate.add_argument("--models", action="store_true", help=text)


def _plan(arguments: argparse.Namespace) -> int:
    from persyn_hf.forecast.generation import forecast
    from persyn_hf.forecast.outlook import look_ahead
    from persyn_hf.runner.run import look_up

    console = new_console()
    recipe, store = open_recipe(arguments), open_store(arguments)
    for table in forecast(look_ahead(recipe, look_up(recipe, store), store), whole=arguments.steps):
        console.print(table.rich(console.width))
    for ref in [ref for ref in recipe.inputs.values() if not store.has(ref)]:
        say(f"{ref} is on the Hub, not in the store: `persyn run` pulls it, or: persyn artifacts pull {ref}")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from persyn_hf.recipe.file import load_recipe
    from persyn_hf.runner.model_checks import look_at_models
    from persyn_hf.runner.plan import make_plan

    faults = []
    for path in arguments.recipes:
        try:
            steps = make_plan(load_recipe(path))
            told = list(look_at_models(steps)) if arguments.models else []
            say(f"{path}: valid, {len(steps)} steps")
            for model, what in told:
                say(f"  {model} {what}")
        except PersynError as error:
            faults.append(str(error))
    if faults:
        raise PersynError("\n".join(faults))
    return 0
