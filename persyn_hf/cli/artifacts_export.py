"""The command `persyn artifacts export`: what was made here, for other trainers."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_ref, open_store, positive
from persyn_hf.console import say


# The forms by the kind of artifact that each is made of.
FORMS = {
    "sft": ("jsonl", "messages", "llama-factory", "ms-swift", "axolotl"),
    "rewards": (
        *("dpo", "kto", "reward-model", "grpo"),
        *("llama-factory-dpo", "llama-factory-kto", "ms-swift-dpo", "ms-swift-kto"),
    ),
    "assignments": ("mopd",),
}


def add(parts: Any) -> None:
    """Add `export` to the subparsers of `artifacts`."""
    examples = (
        "lab/study-sft-small-persyn@v1 --to llama-factory --out data",
        "lab/study-rewards-small@v1 --to dpo --pairs 3 --out data",
        "lab/study-assignments-small-persyn@v1 --to mopd --out data",
    )
    export = add_command(parts, "export", _export, "write training data for another trainer", *examples)
    add_ref(export, help="an artifact of a kind that the form is made of, NAMESPACE/NAME@TAG")
    listed = "; ".join(f"of {kind}: {', '.join(forms)}" for kind, forms in FORMS.items())
    forms = [form for several in FORMS.values() for form in several]
    export.add_argument("--to", choices=forms, default="jsonl", metavar="FORM", help=f"{listed} (default: jsonl)")
    export.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="folder to write to (default: .)")
    text = "of pairs (dpo, reward-model): those per prompt at most (default: 1)"
    export.add_argument("--pairs", type=positive(int), default=1, metavar="N", help=text)
    text = "reward by which an answer must be ahead of another where no verdicts tell them apart (default: 0)"
    export.add_argument("--margin", type=float, default=0.0, metavar="X", help=text)
    text = "of pairs: pair answers of one teacher, too"
    export.add_argument("--same-teacher", action="store_true", help=text)


def _export(arguments: argparse.Namespace) -> int:
    from persyn_hf.store.export import Wishes, export

    wishes = Wishes(pairs=arguments.pairs, margin=arguments.margin, same_teacher=arguments.same_teacher)
    counts: Counter[str] = Counter()
    for path in export(open_store(arguments), arguments.ref, arguments.to, arguments.out, wishes, counts):
        say(path)
    say(", ".join(f"{what} {number:,}" for what, number in counts.items() if number))
    return 0
