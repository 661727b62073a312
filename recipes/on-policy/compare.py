"""Say what a further training did to students: the questions of a recipe before and after it, paired.

    python recipes/on-policy/compare.py --recipe my.yaml --before s0 s1 s2 --after distilled-0 distilled-1 distilled-2

Each folder holds a student with its tokenizer; the first of `--after` was made of the first of `--before`, and so on.
All answer the questions of the recipe's `evaluate` section, as in `persyn run`. The 95 % intervals are those of
`persyn report`: bootstrapped over questions and over pairs of students, the same draws on both sides.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.core.comparison import TaskScores, compare
from persyn_hf.core.item_weights import group_weights
from persyn_hf.core.statistics import means
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context
from persyn_hf.stages import evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate every student, and print a table of each task."""
    args = _parse(arguments)
    if len(args.before) != len(args.after):
        sys.exit(f"error: {len(args.before)} students before and {len(args.after)} after, needed are pairs")
    recipe = load_recipe(args.recipe, args.set)
    settings = read_section(evaluate.Settings, recipe.evaluate, "evaluate")
    found = [[_by_task(settings, recipe.seed, folder) for folder in side] for side in (args.before, args.after)]
    for task, rows in found[0][0].items():
        tables = [[one[task] for one in side] for side in found]
        scores = np.array([[[row["score"] for row in table] for table in side] for side in tables], dtype=np.float64)
        parts = [[[len(row["parts"] or "1") for row in table] for table in side] for side in tables]
        weights = np.max(parts, axis=(0, 1)) * group_weights([row["item"] for row in rows])
        sys.stdout.write(f"{task}, {len(rows):,} questions\n{_shown(TaskScores(scores, weights))}")
    return 0


def _by_task(settings: evaluate.Settings, seed: int, student: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a student's evaluation by task, in the order of the questions."""
    with tempfile.TemporaryDirectory() as folder:
        data = evaluate.run(settings, Context(seed=seed, work_dir=Path(folder)), student=student).data
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in data:
        by_task.setdefault(row["task"], []).append(row)
    return by_task


def _shown(task: TaskScores) -> str:
    """Return the lines of a task: each pair, then the mean of all, in percent."""
    pairs = np.array([means(column.T, task.weights) for column in task.scores])
    lines = [
        f"  pair {n + 1}: {100 * before:.1f} before, {100 * after:.1f} after\n"
        for n, (before, after) in enumerate(pairs.T)
    ]
    compared = compare([task], np.random.default_rng(0))
    for name, (value, low, high), sign in (
        ("before", compared.interval(0, 0), ""),
        ("after", compared.interval(1, 0), ""),
        ("after - before", compared.difference(1, 0, 0), "+"),
    ):
        lines.append(f"  {name}: {100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]\n")
    return "".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--recipe", required=True, metavar="FILE", help="whose section `evaluate` has the questions")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `persyn run`")
    parser.add_argument("--before", nargs="+", type=Path, required=True, metavar="FOLDER", help="students")
    parser.add_argument("--after", nargs="+", type=Path, required=True, metavar="FOLDER", help="what became of each")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
