"""The prompts that a new recipe begins from: which file, what kind, which column is what.

On a terminal it is asked for what cannot be told from the file, and again for what is wrong. Elsewhere what is wrong
is raised.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persyn_hf.cli.look import NoColumn, Seen, can_hold, cells_of, look_at, sample
from persyn_hf.cli.new_recipe import KINDS, Kind
from persyn_hf.cli.questions import ask, choose, choose_column, is_asked
from persyn_hf.console import say
from persyn_hf.errors import InputError, PersynError
from persyn_hf.recipe.strict import nearest


NEEDS = {"math": ("prompt", "reference"), "instruct": ("prompt",), "answers": ("prompt", "teacher", "response")}
MEANING = {
    "prompt": "the prompts",
    "reference": "the answers to check by",
    "teacher": "the names of the teachers",
    "response": "the answers of the teachers",
    "quality": "the quality of the answers",
    "topic": "the topics",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the prompts are, and which column is what: all that are known (`found`), and those that a recipe reads."""

    name: str
    kind: Kind
    found: dict[str, str]
    columns: dict[str, str]
    seen: Seen | None  # None: a dataset of the Hub, which is not looked at


def find_source(arguments: argparse.Namespace) -> Source:
    """Take what the options say, look at the file, and ask for the rest.

    Raises:
        PersynError: there is no terminal, and something is wrong or cannot be told.
    """
    source, kind, given = arguments.prompts, arguments.kind, _columns(arguments.columns)
    missing: str | None = None
    while True:
        try:
            if missing is not None:
                named = _ask_column(missing, source, given)
                if named is not None:
                    given[missing] = named
                elif missing == "prompt":
                    source = None
                elif given.pop(missing, None) is None:  # the file is not of this kind
                    kind = None
                missing = None
            if source is None:
                kind, given = arguments.kind, _columns(arguments.columns)
                source = ask("the file of your prompts (JSONL, JSON, CSV, parquet; or ORG/NAME)", "--prompts")
                source = source if os.path.exists(source) else source.strip("'\"")  # as some terminals paste a file
            seen = None if _is_dataset(source) else look_at(path_of(source), given)
            found = given if seen is None else seen.columns
            kind = kind or choose("what is in it", KINDS, _likely(found))
            lacking = next((what for what in NEEDS[kind] if what not in found), None)
            if lacking is not None:
                raise NoColumn(f"no column of {source} is known to hold the {lacking}", lacking)
        except InputError as error:
            if not is_asked():
                raise
            if isinstance(error, NoColumn):
                say(error.found)
                missing = error.what
            else:
                say(error)
                source = missing = None
        else:
            reads = found if kind == "answers" else (*NEEDS[kind], *given)
            columns = {what: name for what, name in found.items() if what in reads}
            return Source(name=source, kind=kind, found=found, columns=columns, seen=seen)


def _ask_column(what: str, source: str, given: dict[str, str]) -> str | None:
    """Ask which column holds something; None where none does. Of a dataset of the Hub the columns are not known."""
    meaning = MEANING[what]
    if _is_dataset(source):
        return ask(f"the column of {source} that holds {meaning}", "--columns")
    cells = cells_of(path_of(source))
    taken = [name for key, name in given.items() if key != what]
    samples = {name: sample(held) for name, held in cells.items()}
    return choose_column(meaning, samples, taken, lambda name: can_hold(what, cells[name]))


def _columns(given: Sequence[str]) -> dict[str, str]:
    """Read `prompt=question`."""
    columns = {}
    for each in given:
        what, equals, name = each.partition("=")
        if not equals or not name:
            raise PersynError(f"--columns takes WHAT=NAME, got `{each}`; write --columns prompt=question")
        if what not in MEANING:
            raise PersynError(f"--columns: `{what}` is not known{nearest(what, MEANING)}")
        columns[what] = name
    return columns


def _likely(columns: dict[str, str]) -> str:
    if {"teacher", "response"} <= columns.keys():
        return "answers"
    return "math" if "reference" in columns else "instruct"


def why(columns: dict[str, str]) -> str:
    """Say why `_likely` has taken a kind."""
    kind = _likely(columns)
    if kind == "answers":
        return f"because of the columns `{columns['teacher']}` and `{columns['response']}`"
    if kind == "math":
        return f"because the column `{columns['reference']}` is taken for the answers to check by"
    return "because no column is known to hold a reference"


def path_of(source: str) -> Path:
    """Return the path of a file that a user has named."""
    return Path(os.path.expanduser(source))


def _is_dataset(source: str) -> bool:
    """Tell an id of the Hub from a file: no ending, one slash, and nothing of that name lies here."""
    return not os.path.exists(path_of(source)) and not Path(source).suffix and source.count("/") == 1
