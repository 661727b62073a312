"""Consoles: where commands print, and how wide."""

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
