"""The command line. Faults that the user can mend are printed as one sentence, exit code 2, without a traceback."""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from persyn_hf.cli import (
    artifacts,
    completion,
    demo,
    init,
    journal,
    judge_check,
    overlaps,
    plan,
    preview,
    probe,
    recipes,
    reference,
    report,
    route,
    run,
    slurm,
)
from persyn_hf.cli.options import Parser
from persyn_hf.errors import BudgetReached, PersynError, UnderWay
from persyn_hf.store.hub.apart import is_left
from persyn_hf.text import one_line, readable
from persyn_hf.version import __version__


# Libraries read these when they are imported. Progress has bars of our own, and faults are raised, not logged.
# Threads of OpenMP that wait for one another sleep after a moment: where anything else runs on the CPU (graders, a
# server, a neighbour), the default spins through the time that the awaited thread needs (docs/performance.md).
ENVIRONMENT = {
    "GOMP_SPINCOUNT": "1000",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


# In the order of `persyn --help`.
GROUPS = (
    demo,
    init,
    recipes,
    reference,
    plan,
    preview,
    probe,
    overlaps,
    judge_check,
    run,
    slurm,
    report,
    route,
    artifacts,
    journal,
    completion,
)

FIRST = """\
what to type first:
  persyn demo            see it work here: tiny teachers, a router, a trained student, in two minutes
  persyn init            write a recipe for your own prompts, teachers and student
  persyn plan my.yaml    what the recipe asks and costs, and what is to be mended first
  persyn run my.yaml     run it; stop it and run it again as you like
  persyn --help          all commands"""


def main(argv: list[str] | None = None) -> int:
    """Run `persyn` with the arguments `argv`, by default those of the process.

    Returns the exit code: 0 done (or ended by `--detach`), 1 no run was started (status), artifacts differ (diff) or
    questions were left (init), 2 there is something to mend, 3 a limit is reached, 130 interrupted (Ctrl-C, SIGTERM).
    """
    parser = _parser()
    completion.answer_shell(parser)
    arguments = parser.parse_args(argv)
    if "command" not in arguments:
        print(FIRST)
        return 0
    for switch, value in ENVIRONMENT.items():
        os.environ.setdefault(switch, value)
    if not sys.warnoptions:  # what libraries will change one day is for us to know
        warnings.simplefilter("ignore", FutureWarning)
    command: Callable[[argparse.Namespace], int] = arguments.command
    signal.signal(signal.SIGTERM, _interrupt)  # what a cluster sends before it takes the node: end as after Ctrl-C
    try:
        return command(arguments)
    except BudgetReached as stop:
        print(f"stopped: {readable(stop)}", file=sys.stderr)
        return 3
    except UnderWay as batches:
        again = one_line(" ".join(["persyn", *(argv if argv is not None else sys.argv[1:])]))
        print(f"under way: {readable(batches)}; collect their answers with: {again}")
        return 0
    except PersynError as error:
        print(f"error: {readable(error)}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        again = one_line(" ".join(["persyn", *(argv if argv is not None else sys.argv[1:])]))
        ended = f"{one_line(stop)}; " if str(stop) else ""
        if not getattr(arguments, "serves", False):  # a server is ended so, and leaves nothing to go on with
            print(f"interrupted: {ended}what was answered and finished is kept; go on with: {again}", file=sys.stderr)
        return 128 + signal.SIGINT  # as shells have it
    except BrokenPipeError:  # `persyn ... | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def script() -> NoReturn:
    """Run `persyn` as a process, and end that with the exit code, also while a transfer that was left goes on."""
    code = main()
    if is_left():  # the interpreter would wait for it, up to minutes
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    text = "Personalised data synthesis: route every prompt to its best teacher."
    more = "\nmore on one of them: persyn COMMAND --help"
    parser = Parser(prog="persyn", description=text, epilog=FIRST + more)
    parser.add_argument("--version", action="version", version=f"persyn-hf {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return parser
