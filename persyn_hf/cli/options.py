"""The options that commands share, and how a recipe and a store are opened by them."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persyn_hf.cli.candidates import overrides_like, recipes_like, refs_like


LEAST_MEMORY = 2 * 2**30  # bytes of addresses; a run without models was measured to map 2.01e9
RECIPE = "recipe: a YAML file, or a name such as persyn:tiny/demo"
Command = Callable[[argparse.Namespace], int]  # returns the exit code


class Help(argparse.HelpFormatter):
    """Help whose lines stay lines: examples are one command each."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line if line.startswith(" ") else super(Help, self)._fill_text(line, width, indent)
            for line in text.splitlines()
        )


class Parser(argparse.ArgumentParser):
    """A parser, also of every command below it, that takes options by their whole names only.

    `--st a=b`, meant as `--set`, would be taken as `--store` otherwise.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Help, **more)


def add_command(
    commands: Any, name: str, command: Command, text: str, *examples: str, store: bool = True
) -> argparse.ArgumentParser:
    """Add a command with its help text, its examples and the option `--store` to the subparsers `commands`.

    Args:
        examples: what a user types behind the name of the command.
        store: False leaves out the option.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    typed = "\n".join(f"  {parser.prog} {example}".rstrip() for example in examples)
    parser.epilog = f"examples:\n{typed}"
    parser.set_defaults(command=command)
    if store:
        parser.add_argument("--store", type=Path, help="artifact store (default: $PERSYN_STORE, else ./artifacts)")
    return parser


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """Add one argument or more that are recipes, without further options."""
    complete(parser.add_argument("recipes", type=Path, nargs="+", metavar="recipe", help=RECIPE), recipes_like)


def add_recipe(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Add the arguments that `open_recipe` reads: the recipe (one or more with `several`), `--set` and `--rerun`."""
    if several:
        add_recipes(parser)
    else:
        complete(parser.add_argument("recipe", type=Path, help=RECIPE), recipes_like)
    text = "override, e.g. score.alpha=0.3"
    override = parser.add_argument(
        "--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help=text
    )
    complete(override, overrides_like)
    parser.add_argument(
        "--rerun",
        action="append",
        default=[],
        choices=("truncated", "errors"),
        help="ask again: answers cut off by a smaller generate.max_tokens, or errors",
    )


def _override(text: str) -> str:
    """Take KEY=VALUE; where they stand apart, argparse would only complain of the value that is left over."""
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE, got {text:.100}; write --set {text:.100}=VALUE")
    return text


def add_ref(parser: argparse.ArgumentParser, name: str = "ref", help: str = "NAMESPACE/NAME@TAG", **more: Any) -> None:
    """Add an argument that names an artifact of the store."""
    complete(parser.add_argument(name, help=help, **more), refs_like)


def complete(argument: argparse.Action, candidates: Callable[..., list[str]]) -> None:
    """Have the shell complete an argument by what `candidates` lists."""
    argument.completer = candidates  # type: ignore[attr-defined]  # argcomplete reads it


def positive(kind: type) -> Callable[[str], Any]:
    """Make a type for argparse that takes a finite number of `kind` (int or float) above 0."""

    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"number above 0 ({kind.__name__})"  # argparse's sentence names it
    return number


def check_memory() -> None:
    """Refuse to begin under a limit on memory (`ulimit -v`) that the libraries of the smallest run do not fit into.

    Some of them spin for ever where they get none, deaf to signals, others end in an error of their loader.

    Raises:
        PersynError: names the limit and what is needed.
    """
    import resource

    from persyn_hf.errors import PersynError
    from persyn_hf.formats import file_size

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        raise PersynError(
            f"the limit on the memory that a process may allocate is {file_size(limit)}, at least "
            f"{file_size(LEAST_MEMORY)} is needed, and more with models; raise it with `ulimit -v`"
        )


def open_store(arguments: argparse.Namespace) -> Any:
    """Open the store that `--store` names, else the default one."""
    from persyn_hf.store.local import Store

    return Store(arguments.store)


def open_recipe(arguments: argparse.Namespace, path: Path | None = None) -> Any:
    """Read the recipe (or the one at `path`) with the overrides of `--set` and `--rerun`."""
    from persyn_hf.recipe.file import load_recipe

    rerun = [f"generate.rerun={json.dumps(sorted(set(arguments.rerun)))}"] if arguments.rerun else []
    recipe = load_recipe(path or arguments.recipe, [*arguments.set, *rerun])
    if "errors" in arguments.rerun and recipe.score.get("judge"):
        return load_recipe(path or arguments.recipe, [*arguments.set, *rerun, "score.judge.rerun=errors"])
    return recipe
