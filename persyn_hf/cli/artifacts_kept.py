"""The commands `persyn artifacts ls` and `rm`: what the store keeps."""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.cli.candidates import kinds_like
from persyn_hf.cli.options import add_command, add_ref, complete, open_store
from persyn_hf.console import new_console, say
from persyn_hf.errors import PersynError, StoreError
from persyn_hf.text import one_line


if TYPE_CHECKING:
    from persyn_hf.store.stored import Stored


def add(parts: Any) -> None:
    """Add the commands to the subparsers `parts` of `persyn artifacts`."""
    examples = ("", "'lab/study-*'", "--kind router", "--recipe my.yaml")
    listing = add_command(parts, "ls", _ls, "list the artifacts of the store", *examples)
    listing.add_argument("patterns", nargs="*", metavar="PATTERN", help="of names: 'lab/study-*', '*-router-*@v2'")
    complete(listing.add_argument("--kind", help="prompts, responses, rewards, router, student, ..."), kinds_like)
    listing.add_argument("--recipe", type=Path, metavar="FILE", help="those of the steps of a recipe")
    text = "remove artifacts, and what was made from them, after a question"
    removal = add_command(parts, "rm", _rm, text, "lab/study-student-small-mix@v1", "'lab/trial-*' --yes")
    add_ref(removal, "refs", nargs="+", metavar="REF", help="NAMESPACE/NAME@TAG, or a pattern of such names")
    removal.add_argument("--yes", action="store_true", help="ask no question")


def _ls(arguments: argparse.Namespace) -> int:
    from persyn_hf.formats import file_size
    from persyn_hf.store.remove import size

    store = open_store(arguments)
    if store.root.exists() and not store.root.is_dir():
        raise StoreError(f"the store {store.root} is a file, a folder is needed; name another with --store")
    found = _chosen(store.artifacts(), arguments.patterns)
    if arguments.kind is not None:
        found = [item for item in found if item.kind == _known_kind(arguments.kind)]
    if arguments.recipe is not None:
        found = [item for item in found if item.repo in _repos(arguments.recipe)]
    rows = []
    for item in found:
        number = f"{item.manifest.counts['rows']:,}" if "rows" in item.manifest.counts else ""
        made = item.manifest.created_at[:16].replace("T", " ")
        rows.append([item.ref, item.kind, number, file_size(size(item)), made, item.digest[:12]])
    _print(["artifact", "kind", "rows", "size", "made", "digest"], rows)
    if not rows:
        say(f"no artifact{' like these' if store.artifacts() else ''} in the store {store.root}")
    return 0


def _print(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column stays whole; of the others come those that find room beside it."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    console = new_console()
    lines = [list(map(one_line, row)) for row in rows]
    widths = [max(map(cell_len, column)) + 3 for column in zip(header, *lines, strict=True)]  # with padding and a line
    shown = [number for number in range(len(header)) if sum(widths[: number + 1]) < console.width] or [0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for number in shown:
        table.add_column(
            header[number], no_wrap=True, overflow="ignore", justify="right" if 1 < number < 4 else "left"
        )
    for line in lines:
        table.add_row(*(Text(line[number]) for number in shown))
    if lines and shown == [0]:  # not even the names fit
        for line in lines:
            say(line[0], console)
    elif lines:
        console.print(table)


def _rm(arguments: argparse.Namespace) -> int:
    from persyn_hf.formats import file_size
    from persyn_hf.store.remove import dependents, remove, size

    store = open_store(arguments)
    chosen: dict[str, Stored] = {}
    for ref in arguments.refs:
        some = _chosen(store.artifacts(), [ref]) if "*" in ref or "?" in ref else [store.get(ref)]
        if not some:
            raise StoreError(f"no artifact of the store {store.root} is like `{ref}`; see `persyn artifacts ls`")
        chosen |= {item.ref: item for item in some}
    above = dependents(store, list(chosen.values()))
    for item in chosen.values():
        say(f"{item.ref} ({item.kind}, {file_size(size(item))})")
    for item in above:
        say(f"{item.ref} ({item.kind}, {file_size(size(item))}), made from these")
    everything = [*above, *chosen.values()]
    if not arguments.yes and not _agrees(f"remove {len(everything)} artifacts?"):
        say("nothing was removed")
        return 1
    freed = remove(store, everything)
    say(
        f"removed {len(everything)} artifacts, {file_size(freed)} freed; answers stay in the journal and are not paid "
        "for again"
    )
    return 0


def _agrees(question: str) -> bool:
    """Ask on the terminal. Raises `PersynError` where there is none to ask."""
    if not sys.stdin.isatty():
        raise PersynError(f"{question} There is no terminal to answer at; add --yes to remove them all")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _chosen(artifacts: "Sequence[Stored]", patterns: Sequence[str]) -> "list[Stored]":
    """Return the artifacts whose reference or repository is like one of the patterns; without any, all."""
    wide = [pattern if "/" in pattern else f"*/{pattern}" for pattern in patterns]
    return [
        item
        for item in artifacts
        if not wide or any(fnmatch.fnmatchcase(name, pattern) for pattern in wide for name in (item.ref, item.repo))
    ]


def _known_kind(kind: str) -> str:
    from persyn_hf.recipe.strict import nearest
    from persyn_hf.schemas import SCHEMAS

    if kind not in SCHEMAS:
        raise PersynError(f"there are no artifacts of the kind `{kind}`{nearest(kind, SCHEMAS)}")
    return kind


def _repos(path: Path) -> set[str]:
    """Return the names of the artifacts that a recipe makes."""
    from persyn_hf.recipe.file import load_recipe
    from persyn_hf.runner.plan import make_plan

    recipe = load_recipe(path)
    return {f"{recipe.full_name}-{step.key}" for step in make_plan(recipe)}
