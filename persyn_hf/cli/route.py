"""The command `persyn route`: which teacher is to answer which prompt of a file, by a router that was trained."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from persyn_hf.cli.options import add_command, add_ref, check_memory, open_store
from persyn_hf.errors import InputError
from persyn_hf.text import readable


if TYPE_CHECKING:
    from persyn_hf.api.router import Router

COLUMNS = ("prompt", "messages", "question", "problem", "instruction")  # the first that is there, without --column
TOGETHER = 10_000  # prompts that are routed together


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "write the teacher, the score of every teacher and the confidence for each prompt of a file"
    examples = (
        "lab/study-router-small@v1 prompts.jsonl > routed.jsonl",
        "lab/study-router-small@v1 prompts.csv --column question --out routed.jsonl",
        "./my-router prompts.parquet",
    )
    command = add_command(commands, "route", _route, text, *examples)
    add_ref(command, help="a router: NAMESPACE/NAME@TAG of the store or the Hub, or its folder")
    command.add_argument("prompts", type=Path, help="JSONL, JSON, CSV or parquet; a prompt is text or a conversation")
    text = f"column of the prompts (default: the first of {', '.join(COLUMNS)} that is there)"
    command.add_argument("--column", metavar="NAME", help=text)
    command.add_argument("--out", type=Path, metavar="FILE", help="JSONL file to write (default: standard output)")
    command.add_argument("--device", default="auto", help="of an llm router: auto, cpu, cuda, cuda:1, mps")


def _route(arguments: argparse.Namespace) -> int:
    from persyn_hf.api.router import load_router

    check_memory()
    prompts = _prompts(arguments.prompts, arguments.column)
    router = load_router(arguments.ref, store=open_store(arguments), device=arguments.device)
    shares: Counter[str | None] = Counter()
    sure = False
    with _opened(arguments.out) as file:
        while rows := list(islice(prompts, TOGETHER)):
            for line in _lines(router, rows):
                shares[line["teacher"]] += 1
                sure = sure or line["confidence"] is not None
                file.write(json.dumps(line, ensure_ascii=arguments.out is None) + "\n")
    _tell(shares, sure)
    return 0


def _prompts(path: Path, column: str | None) -> Iterator[tuple[Any, Any]]:
    """Yield each row's cell and the conversation in it, or the word for why there is none."""
    from persyn_hf.backends.source_cells import read_prompt
    from persyn_hf.backends.source_rows import rows_of_file
    from persyn_hf.recipe.strict import nearest

    chosen: list[str] = []

    def choose(present: Any) -> list[str]:
        found = [name for name in (COLUMNS if column is None else (column,)) if name in present]
        if not found:
            needs = f"column `{column}`{nearest(column, present)}" if column else f"column {' or '.join(COLUMNS)}"
            hint = "" if column else f"; name the one of the prompts by --column (there are: {', '.join(present)})"
            raise InputError(f"{path} has no {needs}{hint}")
        chosen[:] = found[:1]
        return chosen

    for row in rows_of_file(path, "prompts", choose):
        yield row.get(chosen[0]), read_prompt(row, chosen[0])


def _lines(router: "Router", rows: list[tuple[Any, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the line of every row, in order; one without a usable prompt has no teacher."""
    asked = [messages for _, messages in rows if not isinstance(messages, str)]
    routed = iter(router.predict(asked, progress=sys.stderr.isatty())) if asked else iter(())
    for cell, messages in rows:
        if isinstance(messages, str):
            nothing = dict.fromkeys(("prompt_id", "teacher", "scores", "margin", "confidence"))
            yield {"prompt": cell, **nothing, "error": "no prompt: empty" if messages == "empty" else "no prompt"}
        else:
            found = next(routed)
            scores = dict(zip(router.teachers, found["scores"], strict=True))
            yield {"prompt": cell, **found, "scores": scores}


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Open a file that is whole or absent, or the standard output."""
    if path is None:
        yield sys.stdout
        return
    from persyn_hf.store.disk import out_faults

    part = path.with_name(f"{path.name}.part")
    with out_faults(path.parent):
        with open(part, "w", encoding="utf-8") as file:
            yield file
        part.replace(path)


def _tell(shares: Counter[str | None], sure: bool) -> None:
    """Say how many prompts each teacher got; on the error output, as rows may go to the other one."""
    without = shares.pop(None, 0)
    total = sum(shares.values())
    parts = [f"{teacher} {number / total:.0%}" for teacher, number in shares.most_common()]
    print(readable(f"{total:,} prompts: {', '.join(parts) or 'none'}"), file=sys.stderr)
    if without:
        rows = "row holds no prompt and has" if without == 1 else "rows hold no prompt and have"
        print(f"{without:,} {rows} no teacher; `error` says why", file=sys.stderr)
    if total and not sure:
        text = "confidence is null: it follows from 20 or more measured dev prompts of the router, which are not there"
        print(text, file=sys.stderr)
