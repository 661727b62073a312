"""Say what `study.py` found: a table per budget, with paired intervals over the draws.

    python recipes/tiny/study-cost/analyse.py

Arms are compared within a draw and an SFT seed: both have the prompts in one order, and both students start alike. A
draw counts once, with the mean over its seeds. Intervals are 95 % intervals of Student's t over the draws. The test
questions are the same 720 everywhere, so intervals say nothing of other questions.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t


STUDENTS = ("qwen-student", "llama-student")
QUESTIONS = 720
DATA = Path(__file__).resolve().parents[3] / "docs/data"
Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of `tiny-cost-STUDENT.jsonl`")
    parser.add_argument("--ahead", default="best", help="the arm that the others are compared with")
    given = parser.parse_args()
    lines = {name: read(given.data / f"tiny-cost-{name}.jsonl") for name in STUDENTS}
    for budget in sorted({line["budget"] for some in lines.values() for line in some}):
        some = {name: [line for line in found if line["budget"] == budget] for name, found in lines.items()}
        print(f"{budget:,} cells\n\n{table(some, given.ahead)}\n")


def read(path: Path) -> list[Line]:
    """Read the lines of a student."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(lines: dict[str, list[Line]], ahead: str) -> str:
    """Return a table of the arms of one budget: what they pay, and each student's accuracy beside that of `ahead`."""
    arms = list(dict.fromkeys(line["arm"] for some in lines.values() for line in some))
    heads = ["arm", "trainings", "tokens", "SFT rows", "steps"]
    for student in lines:
        heads += [f"{student}, %", f"{ahead} ahead by, points"]
    made = []
    for arm in arms:
        own = [line for some in lines.values() for line in some if line["arm"] == arm]
        tried = [", ".join(dict.fromkeys(str(sum(line["arm"] == arm for line in some)) for some in lines.values()))]
        paid = [f"{np.mean([line[key] for line in own]):,.0f}" for key in ("tokens", "rows", "steps")]
        cells = [arm, *tried, *paid]
        for some in lines.values():
            cells += [f"{accuracy(some, arm):.1f}", "" if arm == ahead else shown(differences(some, ahead, arm))]
        made.append((accuracy(next(iter(lines.values())), arm), f"| {' | '.join(cells)} |"))
    rows = [row for _, row in sorted(made, key=lambda pair: -pair[0])]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|", *rows])


def accuracy(lines: Sequence[Line], arm: str) -> float:
    """Return an arm's accuracy in per cent, the mean over draws of the mean over seeds."""
    of = by_draw(lines, arm)
    return 100 * float(np.mean([np.mean(list(seeds.values())) for seeds in of.values()])) if of else float("nan")


def differences(lines: Sequence[Line], first: str, second: str) -> np.ndarray:
    """Return in points how far an arm is ahead of another in each draw that both have, over the seeds of both."""
    one, other = by_draw(lines, first), by_draw(lines, second)
    found = []
    for draw in sorted(set(one) & set(other)):
        seeds = set(one[draw]) & set(other[draw])
        if seeds:
            found.append(100 * float(np.mean([one[draw][seed] - other[draw][seed] for seed in seeds])))
    return np.array(found)


def by_draw(lines: Sequence[Line], arm: str) -> dict[int, dict[int, float]]:
    """Return draw -> SFT seed -> share of right answers."""
    found: dict[int, dict[int, float]] = {}
    for line in lines:
        if line["arm"] == arm:
            found.setdefault(line["draw"], {})[line["seed"]] = line["right"] / QUESTIONS
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's interval over the draws; NaN ends for one draw.

    Example: 1, 2, 3: mean 2, standard error 1 / sqrt(3) = 0.577, t of two degrees of freedom 4.303: -0.48 to 4.48.
    """
    number = len(values)
    half = student_t.ppf(0.975, number - 1) * values.std(ddof=1) / np.sqrt(number) if number > 1 else np.nan
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def shown(values: np.ndarray) -> str:
    """Write a difference with its interval."""
    if not len(values):
        return "–"
    mean, low, high = interval(values)
    return f"{mean:+.1f}" + ("" if np.isnan(low) else f" [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main()
