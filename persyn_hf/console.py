"""Consoles: where commands print, and how wide; the text from outside that may be printed."""

import re
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from rich.console import Console


def new_console(piped_width: int = 120) -> "Console":
    """Return a console of rich that prints to standard output.

    Args:
        piped_width: characters of a line where the output is no terminal with a width of its own.
    """
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=piped_width)


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


def harmless(text: str, limit: int = 300) -> str:
    """Return the first line of a text from outside without control characters, well-formed and not long."""
    lines = (_printable(_ESCAPES.sub("", line)) for line in text[: 20 * limit].splitlines())
    return next((line for line in lines if line), "")[:limit]


def _printable(line: str) -> str:
    sound = "".join(
        letter if letter.isprintable() else "\ufffd" if "\ud800" <= letter <= "\udfff" else " " for letter in line
    )
    return sound.strip()
