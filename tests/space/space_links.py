"""The links of a page that bear a number, and how many prompts the lists behind them hold."""

import functools
import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from persyn_hf.space.collection import open_folder
from persyn_hf.space.events import Desk
from persyn_hf.space.explorer import find
from persyn_hf.space.views.prompts import filter_of


LINK = re.compile(r'<a[^>]*? href="(\?[^"]*view=prompts[^"]*)"[^>]*>(.*?)</a>', re.DOTALL)
EXAMPLE = Path(__file__).parents[2] / "spaces" / "allocations" / "example"
NUMBER = re.compile(r"([\d,]+)(?![\d,.%])")


@functools.cache
def example() -> Desk:
    """The bundled example."""
    return Desk(open_folder(EXAMPLE))


def view(desk: Desk, query: str) -> str:
    """The HTML of the view that an address asks for, with its marks read."""
    state, wrong = desk.read(parse_qs(query))
    assert wrong == []
    return "".join(desk.show(state.values).values())


def total(desk: Desk, address: str) -> int:
    """How many prompts the list of an address holds."""
    state, wrong = desk.read(parse_qs(html.unescape(address).removeprefix("?")))
    assert wrong == []
    scene = desk.scene(state)
    return find(scene.database, scene.assignment, filter_of(scene)).total


def counted(desk: Desk, shown: str) -> dict[str, tuple[int, int]]:
    """What the links to lists in some HTML say, as address -> (the number on it, the length of the list).

    The number is that of the link's words, or that its label begins with. Links without one, and those to single
    prompts, are left out.
    """
    found: dict[str, tuple[int, int]] = {}
    for match in LINK.finditer(shown):
        label = re.search(r'aria-label="([^"]*)"', match[0].split(">")[0])
        number = NUMBER.match(re.sub(r"<[^>]*>", "", match[2]).strip()) or (NUMBER.match(label[1]) if label else None)
        if number and "prompt=" not in match[1]:
            found[match[1]] = int(number[1].replace(",", "")), total(desk, match[1])
    return found


def row(shown: str, first: str) -> list[str]:
    """The texts of the cells of a table's row by the words that its first cell begins with."""
    for line in re.findall(r"<tr[^>]*>(.*?)</tr>", shown, re.DOTALL):
        cells: list[Any] = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL)
        texts = [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in cells]
        if texts and texts[0].startswith(first):
            return texts
    raise AssertionError(f"no row {first}")
