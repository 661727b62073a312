"""Consoles: where commands print, and how wide."""

import os
from typing import TYPE_CHECKING

from persyn_hf.text import readable


if TYPE_CHECKING:
    from rich.console import Console


def new_console(piped_width: int = 120) -> "Console":
    """Return a console of rich that prints to standard output, and takes no text for markup.

    Args:
        piped_width: characters of a line where the output is no terminal with a width of its own and the environment
            sets none (`COLUMNS`).
    """
    from rich.console import Console

    plain = Console(highlight=False, markup=False, emoji=False)
    if plain.is_terminal or os.environ.get("COLUMNS", "").isdecimal():
        return plain
    return Console(highlight=False, markup=False, emoji=False, width=piped_width)


def say(text: object, console: "Console | None" = None) -> None:
    """Print text from anywhere: filtered, no part of it read as markup, its lines not wrapped.

    Args:
        console: one that shows bars or tables, which the text must not cut through; null: standard output.
    """
    (console or new_console()).print(readable(text), markup=False, highlight=False, emoji=False, soft_wrap=True)
