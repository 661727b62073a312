"""Where commands print."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from rich.console import Console


def new_console() -> "Console":
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=120)  # a file or a pipe has no width
