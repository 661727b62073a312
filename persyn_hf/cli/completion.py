"""The command `persyn completion`, and the answer to a shell that asks what may stand next."""

import argparse
import os
from typing import Any

from persyn_hf.errors import require


WHY = "completion in the shell"


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "print what makes the shell complete `persyn` when TAB is pressed"
    epilog = (
        'to have it in every shell, put this line into ~/.bashrc or ~/.zshrc:\n  eval "$(persyn completion bash)"\n  '
        'eval "$(persyn completion zsh)"'
    )
    parser = commands.add_parser("completion", help=text, description=text, epilog=epilog)
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.set_defaults(command=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    argcomplete = require("argcomplete", extra="completion", feature=WHY)
    print(argcomplete.shellcode(["persyn"], shell=arguments.shell))
    return 0


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """Where the shell asks for completions, print them and end the process."""
    if "_ARGCOMPLETE" in os.environ:
        require("argcomplete", extra="completion", feature=WHY).autocomplete(parser)
