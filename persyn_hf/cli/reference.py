"""The commands `persyn help` and `persyn schema`: what a recipe may say."""

import argparse
import difflib
import re
from typing import Any

from persyn_hf.cli.options import add_command, complete
from persyn_hf.console import say
from persyn_hf.errors import RecipeError


ENTRY = re.compile(r"^(teachers|students|strategies|evaluate\.tasks)\.[^.]+(?=\.)")


def add(commands: Any) -> None:
    """Add the commands to the subparsers `commands`."""
    text = "explain a setting of a recipe, a section or a command"
    examples = ("", "score.alpha", "teachers", "run")
    explain = add_command(
        commands, "help", lambda arguments: _help(arguments.what, commands.choices), text, *examples, store=False
    )
    text = "dotted key as score.alpha, section as score, or command; without it: all sections"
    complete(explain.add_argument("what", nargs="?", default="", help=text), _known)
    text = "print the JSON Schema of a recipe, by which editors complete and check one"
    add_command(commands, "schema", _schema, text, "> recipe.schema.json", store=False)


def _known(**_: Any) -> list[str]:
    from persyn_hf.recipe.schema_file import read_schema
    from persyn_hf.reference.settings import list_settings

    return [*list_settings(read_schema())]


def _schema(_: argparse.Namespace) -> int:
    from persyn_hf.recipe.schema_file import FILE

    print(FILE.read_text(encoding="utf-8"), end="")
    return 0


def _help(what: str, commands: dict[str, argparse.ArgumentParser]) -> int:
    from persyn_hf.recipe.schema_file import read_schema
    from persyn_hf.reference.settings import SAME_KEYS, list_settings

    if what in commands:
        commands[what].print_help()
        return 0
    settings = list_settings(read_schema())
    path = ".".join(part for part in what.split(".") if not part.isdigit())  # `teachers.0.name`, as errors have it
    if path == what and path not in settings:  # `teachers.qwen-7b.name`, as errors have it too
        path = ENTRY.sub(r"\1", path, count=1)
    for own, shared in SAME_KEYS.items():
        path = shared + path.removeprefix(own) if path.startswith(f"{own}.") else path
    if path and path not in settings:
        raise RecipeError(_unknown(what, path, [*settings], [*commands]))
    if path and not settings[path].is_section:
        _explain(settings[path])
        return 0
    say(f"{path}: {settings[path].meaning}" if path else "The keys and sections of a recipe; more: persyn help KEY")
    for setting in settings.values():
        if setting.section == path:
            say(f"  {setting.path}{_default(setting)}: {setting.meaning}")
    return 0


def _default(setting: Any) -> str:
    if setting.is_section:
        return ""
    return f" (default: {setting.default})" if setting.default else " (needed)"


def _explain(setting: Any) -> None:
    """Print all that is known of one setting."""
    from persyn_hf.reference.settings import SAME_KEYS

    say(f"{setting.path}: {setting.kind}")
    say(f"  {setting.meaning}")
    if setting.path in SAME_KEYS:
        say(f"  Its keys are those of `{SAME_KEYS[setting.path]}`.")
    say(f"  default: {setting.default or 'none, it is needed'}")
    say(f"  runs anew when it is changed: {setting.anew_in_full}")


def _unknown(what: str, path: str, settings: list[str], commands: list[str]) -> str:
    """Say that there is no such setting, and which one may be meant: one with this last key, else the nearest."""
    last = path.rpartition(".")[2]
    same = [known for known in settings if known.rpartition(".")[2] == last]
    close = same or difflib.get_close_matches(path, [*settings, *commands], n=1)
    meant = f", did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else ""
    return f"there is no setting, section or command `{what:.100}`{meant}; see `persyn help`"
