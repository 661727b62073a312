"""Say which criterion predicts what a student learns, from the sets that `train.py` has trained it on.

    python recipes/tiny/study-reward/analyse.py recipes/tiny/study.yaml measured.jsonl

A criterion's value of a set is its mean over the set's rows. Shown are rank correlations (Spearman) with the accuracy
of the student after training, over all sets, over the random ones, which no criterion has chosen, and over the better
half. Intervals are 95 % bootstrap intervals over sets. Combinations are linear regressions, fitted on half of the sets
and judged on the other half, 200 times.
"""

import argparse
import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import criteria
import numpy as np
from scipy.stats import rankdata
from train import make_cells, read_answers

from persyn_hf.recipe.file import load_recipe


RANDOM = ("uniform", "mixture", "by skill", "skills", "right")  # how the names of sets begin that chance has drawn
RESAMPLES = 2000
Columns = Mapping[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="the recipe that `train.py` was given")
    parser.add_argument("measured", type=Path, help="what `train.py` wrote")
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    sets = [json.loads(line) for line in given.measured.read_text(encoding="utf-8").splitlines()]
    values = of_sets(recipe, given.store, sets)
    accuracy = np.array([(400 * line["test"] + 320 * line["validation"]) / 720 for line in sets])
    names = [line["name"] for line in sets]
    print(f"{len(sets)} sets, accuracy {100 * accuracy.min():.1f} to {100 * accuracy.max():.1f} %\n")
    print(correlations(values, accuracy, names), fitted(values, accuracy), sep="\n\n")


def of_sets(recipe, store, sets) -> dict[str, np.ndarray]:
    """Return the value of each criterion for each set, (sets,)."""
    rows = read_answers(recipe, store)
    cells = make_cells(rows, recipe)
    per_token = np.full((*cells.right.shape, len(criteria.NAMES)), np.nan)
    pool = [teacher.name for teacher in recipe.teachers]
    places = {prompt_id: place for place, prompt_id in enumerate(rows["prompt_id"].drop_duplicates())}
    found = criteria.measure(recipe.students[0].model, rows["messages"].to_list(), rows["response"].to_list())
    for prompt_id, teacher, line in zip(rows["prompt_id"], rows["teacher"], found, strict=True):
        per_token[places[prompt_id], pool.index(teacher)] = line
    matrices = dict(cells.criteria) | {name: per_token[..., at] for at, name in enumerate(criteria.NAMES)}
    scaled = matrices["log-prob per token"]
    matrices["right x likelihood"] = cells.right * np.exp(scaled)
    by_set = {name: [] for name in [*matrices, "entropy of teachers", "skills", "right rows per skill, least"]}
    for line in sets:
        teachers = np.array([-1 if at == "-" else int(at) for at in line["teachers"]])
        taken = np.flatnonzero(teachers >= 0), teachers[teachers >= 0]
        for name, matrix in matrices.items():
            by_set[name].append(np.nanmean(matrix[taken]))
        share = np.bincount(taken[1], minlength=len(pool)) / len(taken[1])
        by_set["entropy of teachers"].append(-(share * np.log(np.where(share, share, 1))).sum())
        kinds = np.unique(cells.skills)
        right = np.array([cells.right[taken][cells.skills[taken[0]] == kind].sum() for kind in kinds])
        by_set["skills"].append(len(set(cells.skills[taken[0]])))
        by_set["right rows per skill, least"].append(right.min())
    return {name: np.array(column) for name, column in by_set.items()}


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation; ties share their mean rank."""
    ranks = [rankdata(values) for values in (first, second)]
    return float(np.corrcoef(ranks)[0, 1]) if min(map(np.ptp, ranks)) > 0 else float("nan")


def correlations(values: Columns, accuracy: np.ndarray, names: list[str]) -> str:
    """Return the table of rank correlations, the best criterion over all sets first."""
    chance = np.random.default_rng(0)
    better = accuracy >= np.median(accuracy)
    random = np.array([name.startswith(RANDOM) for name in names])
    lines = []
    draws = [chance.integers(len(accuracy), size=len(accuracy)) for _ in range(RESAMPLES)]
    for name, column in values.items():
        over_all = spearman(column, accuracy)
        spread = np.nanpercentile([spearman(column[draw], accuracy[draw]) for draw in draws], [2.5, 97.5])
        parts = [spearman(column[some], accuracy[some]) for some in (random, better)]
        lines.append(
            (
                over_all,
                f"| {name} | {over_all:.2f} [{spread[0]:.2f}, {spread[1]:.2f}] | {parts[0]:.2f} | {parts[1]:.2f} |",
            )
        )
    head = f"| mean over the set of | all {len(accuracy)} sets | {random.sum()} random | better half |"
    return "\n".join([head, "|---|---|---|---|", *(line for _, line in sorted(lines, key=lambda x: -x[0]))])


def fitted(values: Columns, accuracy: np.ndarray) -> str:
    """Return the table of linear combinations of two criteria, judged on the half that they were not fitted on."""
    chance = np.random.default_rng(1)
    halves = [chance.permutation(len(accuracy)) for _ in range(200)]
    cut = len(accuracy) // 2

    def judged(names: tuple[str, ...]) -> float:
        design = np.column_stack([*(values[name] for name in names), np.ones(len(accuracy))])
        scores = []
        for order in halves:
            fit, rest = order[:cut], order[cut:]
            weights = np.linalg.lstsq(design[fit], accuracy[fit], rcond=None)[0]
            scores.append(spearman(design[rest] @ weights, accuracy[rest]))
        return float(np.nanmean(scores))

    tried = {names: judged(names) for size in (1, 2) for names in combinations(values, size)}
    best = sorted(tried, key=lambda names: -tried[names])
    shown = [*(names for names in best if len(names) == 1)][:5] + [*(names for names in best if len(names) == 2)][:8]
    return "\n".join(
        [
            "| fitted on half | other half |",
            "|---|---|",
            *(f"| {' + '.join(names)} | {tried[names]:.2f} |" for names in shown),
        ]
    )


if __name__ == "__main__":
    main()
