"""Write docs/cli.md, the page of all commands, from the parser of the command line: `make reference`."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from persyn_hf.cli.main import _parser


PAGE = Path(__file__).resolve().parents[1] / "cli.md"
HEAD = """\
<!-- `make reference` writes this page from the code. Change the help texts there. -->

# Commands

`persyn COMMAND --help` says the same. `persyn help score.alpha` explains a setting; [settings.md](settings.md) has all
of them. With the extra `completion`, `eval "$(persyn completion bash)"` (or `zsh`) completes commands, settings,
recipes and names of artifacts.

| exit code | means |
|---|---|
| 0 | done |
| 1 | nothing is running (`status`), artifacts differ (`diff`), or the questions were left by Ctrl-D (`init`) |
| 2 | there is something to mend; one sentence says what |
| 3 | a limit is reached (`--max-cost`, `--max-generations`) |
| 130 | interrupted, by Ctrl-C or SIGTERM; the same command goes on |

Commands that read or write artifacts take `--store FOLDER`: the store, else `$PERSYN_STORE`, else `./artifacts`.
"""


def commands_page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *_sections(_parser(), level=2)])


def _sections(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield f"{'#' * level} {command.prog}\n"
                yield f"{_sentence(told[name])}\n"
                if any(isinstance(inner, argparse._SubParsersAction) for inner in command._actions):
                    yield from _sections(command, level + 1)
                else:
                    yield from _command(command)


def _command(command: argparse.ArgumentParser) -> Iterator[str]:
    rows = [_row(action) for action in command._actions if action.dest not in ("help", "store")]
    if rows:
        yield "\n".join(["| argument | |", "|---|---|", *rows, ""])
    first, _, examples = (command.epilog or "").partition("\n")
    typed = [line.strip() for line in examples.splitlines() if line.startswith("  ")]
    if typed:
        lead = "" if first == "examples:" else f"{_sentence(first.rstrip(':'))}\n\n"
        yield lead + "\n".join(["<!-- not run: examples of the help -->", "```bash", *typed, "```", ""])


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    values = "" if action.nargs == 0 else _values(action)
    shown = f"{names} {values}".strip()
    helped = re.sub(r"([|*<])", r"\\\1", action.help or "")
    return f"| {shown} | {helped} |"


def _values(action: argparse.Action) -> str:
    """Return what is typed behind an option, or in the place of an argument."""
    if action.choices is not None:
        return " or ".join(f"`{choice}`" for choice in action.choices)
    default = action.dest.upper() if action.option_strings else action.dest
    name = f"`{action.metavar or default}`"
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(str(action.nargs), name)


def _sentence(text: str | None) -> str:
    text = (text or "").strip()
    return f"{text[:1].upper()}{text[1:]}." if text else ""


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
