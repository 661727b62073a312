"""The command line. Faults that the user can mend are printed as one sentence, exit code 2, without a traceback."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persyn_hf import __version__
from persyn_hf.cli_artifacts import add_artifact_commands
from persyn_hf.console import new_console
from persyn_hf.errors import BudgetReached, PersynError


# Libraries read these when they are imported: progress has its own bars here, and faults are raised, not logged.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `persyn`.

    Returns the exit code: 0 done, 1 nothing is running (status) or artifacts differ (diff), 2 to be mended, 3 a limit
    is reached, 130 interrupted (Ctrl-C, SIGTERM).
    """
    arguments = _parser().parse_args(argv)
    for switch, value in QUIET.items():
        os.environ.setdefault(switch, value)
    command: Callable[[argparse.Namespace], int] = arguments.command
    signal.signal(signal.SIGTERM, _interrupt)  # what a cluster sends before it takes the node: end as after Ctrl-C
    try:
        return command(arguments)
    except BudgetReached as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return 3
    except PersynError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        again = " ".join(["persyn", *(argv if argv is not None else sys.argv[1:])])
        print(f"interrupted: what was answered and finished is kept; go on with: {again}", file=sys.stderr)
        return 128 + signal.SIGINT  # as shells have it
    except BrokenPipeError:  # `persyn ... | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="persyn", description="Personalised data synthesis: route every prompt to its best teacher."
    )
    parser.add_argument("--version", action="version", version=f"persyn-hf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, parent: Any = None) -> Any:
        sub = (parent or commands).add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("--store", type=Path, help="artifact store (default: $PERSYN_STORE, else ./artifacts)")
        return sub

    def with_recipe(sub: Any, several: bool = False) -> Any:
        if several:
            sub.add_argument("recipes", type=Path, nargs="+", metavar="recipe", help="recipe, a YAML file")
        else:
            sub.add_argument("recipe", type=Path, help="recipe, a YAML file")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. score.alpha=0.3"
        )
        sub.add_argument(
            "--rerun",
            action="append",
            default=[],
            choices=("truncated", "errors"),
            help="ask again: answers cut off by a smaller generate.max_tokens, or errors",
        )
        return sub

    run = with_recipe(add("run", _run, "run a recipe; what is stored already is reused"))
    run.add_argument(
        "--max-generations", type=_positive(int), metavar="N", help="answers that the recipe asks for in all its runs"
    )
    run.add_argument(
        "--max-cost", type=_positive(float), metavar="X", help="money that the recipe spends in all its runs"
    )
    run.add_argument(
        "--push",
        action="store_true",
        help="publish every artifact on the Hugging Face Hub when it is made, students last",
    )
    run.add_argument("--private", action="store_true", default=None, help="with --push: make new repositories private")
    with_recipe(add("plan", _plan, "show steps, generations and cost of a recipe; loads no model"))
    text = "write tables and figures of what is stored of a recipe, or of several together"
    report = with_recipe(add("report", _report, text), several=True)
    report.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: ./report)")
    add("status", _status, "show what a running, finished or killed `persyn run` has done")
    validate = add("validate", _validate, "check recipes without running them")
    validate.add_argument("recipes", type=Path, nargs="+", help="recipes, YAML files")
    space = add("space", _space, "show who teaches what, and why, in the browser")
    space.add_argument(
        "refs", nargs="*", metavar="REF", help="assignments, and what belongs to them (default: all of the store)"
    )
    space.add_argument("--port", type=int, default=7860, help="port of 127.0.0.1 (default: 7860)")
    artifacts = commands.add_parser("artifacts", help="list, show, verify, compare, push and pull artifacts")
    add_artifact_commands(add, artifacts.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _positive(kind: type) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"number above 0 ({kind.__name__})"  # argparse's sentence names it
    return number


def _store(arguments: argparse.Namespace) -> Any:
    from persyn_hf.store.local import Store, default_root

    return Store(arguments.store or default_root())


def _recipe(arguments: argparse.Namespace, path: Path | None = None) -> Any:
    from persyn_hf.recipe_file import load_recipe

    rerun = [f"generate.rerun={json.dumps(sorted(set(arguments.rerun)))}"] if arguments.rerun else []
    return load_recipe(path or arguments.recipe, [*arguments.set, *rerun])


def _run(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.experiment import result_tables
    from persyn_hf.report.trials import Part, outcomes
    from persyn_hf.report.written import part_tables
    from persyn_hf.runner.publishing import Publisher
    from persyn_hf.runner.run import run_recipe, stored_of
    from persyn_hf.stage import Limits

    _check_alone()
    if arguments.private and not arguments.push:
        raise PersynError(
            "--private is about what --push makes, and there is no --push; add it, or leave --private out"
        )
    console, begun = new_console(), time.monotonic()
    recipe, store = _recipe(arguments), _store(arguments)
    limits = Limits(max_generations=arguments.max_generations, max_cost=arguments.max_cost)
    publisher = Publisher(store, recipe.namespace, arguments.private) if arguments.push else None
    done = run_recipe(recipe, store, console, limits, publisher)
    part = Part(recipe, stored_of(recipe, store, done))
    for table in (*part_tables(part, store), *result_tables(outcomes([part], store))):
        console.print(table.rich(console.width))
    last = done[-1].stored
    new = sum(not item.reused for item in done)
    took = f"{time.monotonic() - begun:.0f} s"
    console.print(f"all steps are done: {new} run now, {len(done) - new} reused, in {took}")
    if last is not None:
        option, argument = (f" --store {store.root}", f', store="{store.root}"') if arguments.store else ("", "")
        for line in (
            f"artifacts: {store.root} (persyn artifacts ls{option})",
            f'load one: persyn_hf.load_artifact("{last.ref}"{argument})',
            f"check one: persyn artifacts verify {last.ref}{option}",
        ):
            console.print(line, soft_wrap=True)
    if publisher is not None:
        publisher.check()
    return 0


def _check_alone() -> None:
    """`accelerate launch persyn run ...` would start as many runs on one store."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise PersynError(
            f"`persyn run` was started as one of {processes} processes (WORLD_SIZE={processes}); start it once, "
            "without `accelerate launch`, and name the config in the recipe: `score: {accelerate: FILE}`"
        )


def _plan(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.forecast import forecast
    from persyn_hf.runner.outlook import look_ahead
    from persyn_hf.runner.run import look_up

    console = new_console()
    recipe, store = _recipe(arguments), _store(arguments)
    for table in forecast(look_ahead(recipe, look_up(recipe, store), store)):
        console.print(table.rich(console.width))
    for ref in [ref for ref in recipe.inputs.values() if not store.has(ref)]:
        print(f"{ref} is on the Hub, not in the store: `persyn run` pulls it, or: persyn artifacts pull {ref}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.trials import Part
    from persyn_hf.report.written import write_report
    from persyn_hf.runner.run import look_up, stored_of
    from persyn_hf.store.disk import out_faults

    store = _store(arguments)
    recipes = [_recipe(arguments, path) for path in arguments.recipes]
    parts, absent = [], []
    for path, recipe in zip(arguments.recipes, recipes, strict=True):
        done = look_up(recipe, store)
        parts.append(Part(recipe, stored_of(recipe, store, done)))
        if not parts[-1].stored:
            others = sum(item.repo.startswith(f"{recipe.full_name}-") for item in store.list())
            more = f"; what the store has of it ({others} artifacts) was made by other settings: repeat their --set"
            raise PersynError(f"nothing of {path} is stored yet: persyn run {path}{more if others else ''}")
        absent += [item.step.key for item in done if item.stored is None]
    with out_faults(arguments.out):
        written = write_report(parts, store, arguments.out)
    if absent:
        some = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        print(f"not in the report, for these steps have not run with these settings: {some}")
    print(f"{written.tables} tables and {written.figures} figures: {written.path}")
    return 0


def _space(arguments: argparse.Namespace) -> int:
    from persyn_hf.space.app import launch
    from persyn_hf.space.shelf import open_shelf

    launch(open_shelf(arguments.refs, _store(arguments)), port=arguments.port)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.standing import standing

    store = _store(arguments)
    found = standing(store.state_dir)
    if found is None:
        print(f"no run was started on the store {store.root}")
        return 1
    console = new_console()
    for line in found.lines:
        console.print(line, markup=False, soft_wrap=True)
    for table in found.tables:
        console.print(table.rich(console.width))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from persyn_hf.recipe_file import load_recipe
    from persyn_hf.runner.plan import make_plan

    faults = []
    for path in arguments.recipes:
        try:
            print(f"{path}: valid, {len(make_plan(load_recipe(path)))} steps")
        except PersynError as error:
            faults.append(str(error))
    if faults:
        raise PersynError("\n".join(faults))
    return 0


if __name__ == "__main__":
    sys.exit(main())
