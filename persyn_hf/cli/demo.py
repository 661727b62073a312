"""The command `persyn demo`: the whole chain on models that come with persyn, and what to do next."""

import argparse
from importlib.util import find_spec
from typing import Any

from persyn_hf.cli.options import add_command, check_memory, open_store
from persyn_hf.console import new_console, say
from persyn_hf.errors import PersynError


QUICK, WHOLE = "persyn:tiny/quick", "persyn:tiny/demo"
NEEDED = ("torch", "transformers", "accelerate", "trl", "lm_eval")
WITHOUT_MODELS = "persyn:real/model-results"  # answers that exist already: no model runs


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "run the whole chain on tiny models that come with persyn: no GPU, network or key is needed"
    demo = add_command(commands, "demo", _demo, text, "", "--whole")
    text = "all strategies and questions, eight minutes on two cores; without it two minutes"
    demo.add_argument("--whole", action="store_true", help=text)


def _demo(arguments: argparse.Namespace) -> int:
    from persyn_hf.recipe import names
    from persyn_hf.recipe.file import load_recipe
    from persyn_hf.report.outcomes import Part, outcomes
    from persyn_hf.report.result_tables import result_tables
    from persyn_hf.report.run_tables import allocation
    from persyn_hf.runner.run import run_recipe, stored_of

    check_memory()
    _check_packages()
    name = WHOLE if arguments.whole else QUICK
    console, store, recipe = new_console(), open_store(arguments), load_recipe(name)
    done = run_recipe(recipe, store, console)
    part = Part(recipe, stored_of(recipe, store, done))
    manifests = {key: item.manifest for key, item in part.stored.items()}
    student, routed = recipe.students[0], recipe.strategies[0]
    for table in (allocation(recipe, manifests, student), *result_tables(outcomes([part], store))):
        console.print(table.rich(console.width))
    at = f" --store {store.root}" if arguments.store else ""
    sft, router = (part.stored[key].ref for key in (names.sft(student, routed), names.router(student, routed)))
    for line in (
        "Seven tiny teachers answered; a router learnt who teaches this student best. The student was trained on the",
        "answers of the teachers that the router chose (persyn), of random teachers (mix), of the largest (strong).",
        "",
        "next:",
        f"  persyn report {name} --out report{at}    all tables and figures; or in the browser: persyn space{at}",
        f"  persyn artifacts export {sft} --out data{at}    its training data",
        f"  persyn route {router} FILE.jsonl{at}    its router on questions of yours",
        "  persyn init    a recipe for your own prompts, teachers and student",
    ):
        say(line, console)
    return 0


def _check_packages() -> None:
    """Refuse to begin without the packages that run and train models, and name what runs without them."""
    missing = [f"`{module}`" for module in NEEDED if find_spec(module) is None]
    if missing:
        raise PersynError(
            f"`persyn demo` runs and trains models, and needs {', '.join(missing)}, not installed here: "
            f"pip install 'persyn-hf[train,eval]'; without them, a router on answers that exist: "
            f"persyn run {WITHOUT_MODELS}"
        )
