"""The command `persyn preview`: a few prompts to every teacher, answers side by side."""

import argparse
from typing import TYPE_CHECKING, Any

from persyn_hf.cli.options import add_command, add_recipe, check_memory, open_recipe, open_store, positive
from persyn_hf.console import new_console, say


if TYPE_CHECKING:
    from persyn_hf.forecast.preview import Preview

CHARACTERS = 600  # of an answer; --full shows all


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "ask every teacher a few prompts and show the answers side by side; a run finds them in the journal"
    command = add_command(commands, "preview", _preview, text, "my.yaml", "my.yaml -n 2 --full")
    add_recipe(command)
    command.add_argument("-n", type=positive(int), default=5, metavar="N", help="prompts (default: 5)")
    command.add_argument(
        "--full", action="store_true", help=f"show answers whole, not their first {CHARACTERS} characters"
    )


def _preview(arguments: argparse.Namespace) -> int:
    from persyn_hf.forecast.preview import preview
    from persyn_hf.stage import NO_LIMITS, Silent

    check_memory()
    console = new_console()
    recipe, store = open_recipe(arguments), open_store(arguments)
    shown = preview(recipe, store, arguments.n, Silent(), NO_LIMITS)
    for number, one in enumerate(shown, start=1):
        say(f"prompt {number} of {len(shown)}: {_cut(one.prompt, arguments.full)}", console)
        if one.reference is not None:
            say(f"reference: {_cut(one.reference, arguments.full)}", console)
        console.print(_table(one, arguments.full))
    for student, text in shown[0].rendered.items() if shown else ():
        say(f"as `{student}` would be trained on the first answer, ⟦what it learns⟧ in brackets:\n{text}\n", console)
    say("the answers are in the journal: `persyn run` with the same recipe does not pay for them again", console)
    return 0


def _table(one: "Preview", full: bool) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from persyn_hf.formats import UNKNOWN
    from persyn_hf.text import one_line, readable

    table = Table(box=box.SIMPLE_HEAD, show_lines=True)
    priced = any(answer.money is not None for answer in one.answers)
    for name in ("teacher", "verdict", "tokens", *(["money"] if priced else []), "ended", "answer"):
        table.add_column(name, overflow="fold", justify="right" if name in ("tokens", "money") else "left")
    for answer in one.answers:
        tokens = UNKNOWN if answer.tokens is None else f"{answer.tokens:,}"
        money = UNKNOWN if answer.money is None else f"{answer.money:.2g}"
        thought = f"[thoughts: {len(answer.reasoning):,} characters]\n" if answer.reasoning else ""
        cells = (
            one_line(answer.teacher),
            answer.verdict,
            tokens,
            *([money] if priced else []),
            one_line(answer.ended),
        )
        table.add_row(*map(Text, cells), Text(readable(thought + _cut(answer.text, full))))
    return table


def _cut(text: str, full: bool) -> str:
    return text if full or len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ... ({len(text):,} characters)"
