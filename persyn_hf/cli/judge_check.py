"""The command `persyn judge-check`: does the judge of a recipe agree with verdicts that are known?"""

import argparse
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, check_memory, open_recipe, open_store, positive
from persyn_hf.console import new_console


ROWS = 200


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "compare the judge of a recipe with verdicts that you know: right or wrong, or scores of people"
    examples = ("my.yaml known.jsonl", "my.yaml known.csv --response answer --verdict human_score --rows 500")
    command = add_command(commands, "judge-check", _check, text, *examples)
    add_recipe(command)
    command.add_argument("known", type=Path, help="JSONL, JSON, CSV or parquet with a prompt, an answer and a verdict")
    for key, what in (
        ("prompt", "prompts"),
        ("response", "answers"),
        ("verdict", "known verdicts: true or false, or numbers, higher is better"),
        ("reference", "references, where the rubric shows them"),
    ):
        command.add_argument(f"--{key}", metavar="NAME", help=f"column of the {what}")
    text = f"rows to judge at most; whole prompts are drawn (default: {ROWS})"
    command.add_argument("--rows", type=positive(int), default=ROWS, metavar="N", help=text)
    text = "money that the recipe spends in all its runs, this one included"
    command.add_argument("--max-cost", type=positive(float), metavar="X", help=text)


def _check(arguments: argparse.Namespace) -> int:
    from persyn_hf.forecast.judge_check import COLUMNS, check_judge, check_table
    from persyn_hf.stage import Limits, Silent

    check_memory()
    console = new_console()
    found = check_judge(
        open_recipe(arguments),
        arguments.known,
        open_store(arguments),
        arguments.rows,
        {key: getattr(arguments, key) for key in COLUMNS},
        Silent(),
        Limits(max_cost=arguments.max_cost, are_options=True),
    )
    console.print(check_table(found).rich(console.width))
    return 0
