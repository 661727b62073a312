"""Questions that a command asks on the terminal: a line of text, one of several, a column of a table.

The end of the input (Ctrl-D) leaves as `EOFError`, and Ctrl-C as `KeyboardInterrupt`.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from persyn_hf.console import say
from persyn_hf.errors import PersynError
from persyn_hf.recipe.strict import nearest
from persyn_hf.text import one_line, readable


NAME = 30  # characters of a column's name that are shown


def is_asked() -> bool:
    """Tell whether somebody sits there who can answer."""
    return sys.stdin.isatty()


def ask(what: str, option: str) -> str:
    """Ask for a text. Raises `PersynError`, which names the option to give, where there is no terminal."""
    if not is_asked():
        raise PersynError(f"there is no terminal to ask at for {what}; give {option}, see: persyn init --help")
    while not (said := _line(what)):
        pass
    return said


def choose(what: str, choices: Mapping[str, str], likely: str) -> Any:
    """Ask for one of several, each with its meaning; without a terminal it is the likely one."""
    if not is_asked():
        return likely
    for name, meaning in choices.items():
        say(f"  {name:<14}{meaning}")
    while (said := _line(f"{what} [{likely}]")) not in ("", *choices):
        say(f"`{said}` is not known{nearest(said, choices)}")
    return said or likely


def choose_column(
    what: str, samples: Mapping[str, str], taken: Collection[str], holds: Callable[[str], bool]
) -> str | None:
    """Ask which column holds something, by its name or its number in the file; None: none of them does.

    Args:
        what: that it is to hold: "the prompts".
        samples: all columns, each with a part of what is in it.
        taken: those that hold something else.
        holds: tells whether a column can hold it.
    """
    numbers = {str(number): name for number, name in enumerate(samples, start=1) if name not in taken}
    width = min(max(map(len, numbers.values()), default=0), NAME)
    for number, name in numbers.items():
        say(f"  {number:>2}  {one_line(name)[:NAME]:<{width}}  {samples[name]}")
    while said := _line(f"which column holds {what} (name or number; Enter: none of them)"):
        name = next((name for name in numbers.values() if said == name.strip()), numbers.get(said, ""))
        if not name:
            say(f"there is no column `{said}`{nearest(said, numbers.values())}")
        elif not holds(name):
            say(f"`{name}` holds nothing that can be read as {what}: it needs text or messages")
        else:
            return name
    return None


def _line(question: str) -> str:
    """Read a line, without the blanks around it; one that is no text in the terminal's encoding is asked for again."""
    while True:
        try:
            said = input(f"{readable(question)}: ").strip()
            said.encode()
        except UnicodeError:
            say("that is no text in the encoding of this terminal")
        else:
            return said
