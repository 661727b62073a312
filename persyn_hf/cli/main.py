"""The command line. Faults that the user can mend are printed as one sentence, exit code 2, without a traceback."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from persyn_hf.cli import artifacts, journal, plan, preview, probe, reference, report, run
from persyn_hf.errors import BudgetReached, PersynError
from persyn_hf.store.hub.apart import is_left
from persyn_hf.text import one_line, readable
from persyn_hf.version import __version__


# Libraries read these when they are imported. Progress has bars of our own, and faults are raised, not logged.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(argv: list[str] | None = None) -> int:
    """Run `persyn` with the arguments `argv`, by default those of the process.

    Returns the exit code: 0 done, 1 no run was started (status) or artifacts differ (diff), 2 there is something to
    mend, 3 a limit is reached, 130 interrupted (Ctrl-C, SIGTERM).
    """
    arguments = _parser().parse_args(argv)
    for switch, value in QUIET.items():
        os.environ.setdefault(switch, value)
    command: Callable[[argparse.Namespace], int] = arguments.command
    signal.signal(signal.SIGTERM, _interrupt)  # what a cluster sends before it takes the node: end as after Ctrl-C
    try:
        return command(arguments)
    except BudgetReached as stop:
        print(f"stopped: {readable(stop)}", file=sys.stderr)
        return 3
    except PersynError as error:
        print(f"error: {readable(error)}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        again = one_line(" ".join(["persyn", *(argv if argv is not None else sys.argv[1:])]))
        ended = f"{one_line(stop)}; " if str(stop) else ""
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
    parser = argparse.ArgumentParser(
        prog="persyn", description="Personalised data synthesis: route every prompt to its best teacher."
    )
    parser.add_argument("--version", action="version", version=f"persyn-hf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (run, plan, preview, probe, report, artifacts, journal, reference):
        group.add(commands)
    return parser
