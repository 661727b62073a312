"""The command `persyn journal import`: share paid answers between stores."""

import argparse
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, open_store
from persyn_hf.console import say


def add(commands: Any) -> None:
    """Add `journal` with its command to the subparsers `commands`."""
    text = "share the answers that were paid for between stores"
    parts = commands.add_parser("journal", help=text).add_subparsers(required=True, metavar="COMMAND")
    text = "copy the answers of another store that this one lacks; no recipe here is charged for them"
    command = add_command(parts, "import", _import, text, "../other/artifacts")
    command.add_argument("source", type=Path, help="the other store, or its .persyn/journal.sqlite")


def _import(arguments: argparse.Namespace) -> int:
    from persyn_hf.backends.journal import Journal
    from persyn_hf.backends.journal_import import import_journal

    source, store = arguments.source.expanduser(), open_store(arguments)
    if source.is_dir():
        source = source / ".persyn" / "journal.sqlite"
    with store.lock(), Journal(store.journal) as journal:
        found = import_journal(journal, source)
    say(
        f"{found.answers:,} answers are new here, {found.known:,} were known; and {found.derived:,} verdicts or "
        "measurements"
    )
    return 0
