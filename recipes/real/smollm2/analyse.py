"""How learnability differs between teachers under the real student, and how much of it is length, format or family.

    python analyse.py WORK [--store STORE]      after `persyn run WORK/recipe.yaml --set until=mix`

It reads the stored rewards of all 805 prompts, and prints the tables of docs/real.md. All shares of variance are
within prompts: of the answers to a prompt, each less their mean, so that easy prompts explain nothing. Intervals are
95 % bootstrap intervals over prompts.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from persyn_hf import load_artifact
from persyn_hf.recipe.file import load_recipe


MARKS = {
    "headings": re.compile(r"^#{1,6} |^\*\*[^*\n]+\*\*:?$", re.MULTILINE),
    "list items": re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*"),
    "code": re.compile(r"```|`[^`\n]+`"),
    "tables": re.compile(r"^\|.*\|$", re.MULTILINE),
    "line breaks": re.compile(r"\n"),
}
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path, help="the folder that prepare.py made")
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    given = parser.parse_args()
    recipe = load_recipe(given.work / "recipe.yaml")
    rows = read(given.work, given.store, recipe.namespace, recipe.name, recipe.students[0].name)
    families = {teacher.name: teacher.family for teacher in recipe.teachers}
    rows["family"] = rows["teacher"].map(families)
    print(teachers(rows), shares(rows), agreement(rows), sep="\n\n")


def read(work: Path, store: Path | None, namespace: str, name: str, student: str) -> pd.DataFrame:
    """Read one row per measured answer: prompt, teacher, quality, mean_logprob, tokens, and counts of marks."""

    def table(kind: str) -> pd.DataFrame:
        splits = load_artifact(f"{namespace}/{name}-{kind}", store=store)
        return pd.concat([split.to_pandas() for split in splits.values()])

    rows = pd.concat([table(f"rewards-{student}"), table(f"rewards-{student}-pool")])
    prompts = table("prompts")
    texts = pd.read_parquet(work / "answers.parquet")[["prompt", "model", "response"]]
    prompts["prompt"] = [turns[-1]["content"] for turns in prompts["messages"]]
    rows = rows.merge(prompts[["prompt_id", "prompt"]], on="prompt_id")
    texts["prompt"] = texts["prompt"].str.strip()
    rows["prompt"] = rows["prompt"].str.strip()
    rows = rows.merge(texts, left_on=["prompt", "teacher"], right_on=["prompt", "model"], how="left")
    rows = rows.dropna(subset=["mean_logprob", "quality_raw", "response"])
    for mark, pattern in MARKS.items():
        found = [len(pattern.findall(text)) for text in rows["response"]]
        rows[mark] = np.log1p(100 * np.array(found) / rows["num_tokens"].to_numpy())  # per hundred tokens
    rows["length"] = np.log(rows["num_tokens"])
    return rows.reset_index(drop=True)


def teachers(rows: pd.DataFrame) -> str:
    """Return means per teacher, and learnability with the length taken out of it within prompts."""
    centred = within(rows, ["mean_logprob", "length"])
    slope = np.polyfit(centred["length"], centred["mean_logprob"], 1)[0]
    rows = rows.assign(adjusted=centred["mean_logprob"] - slope * centred["length"], own=centred["mean_logprob"])
    lines = []
    for name, of in sorted(rows.groupby("teacher"), key=lambda pair: -pair[1]["own"].mean()):
        cells = [f"{of['quality_raw'].mean():.3f}", f"{of['mean_logprob'].mean():.3f}"]
        cells += [interval(of[column].to_numpy()) for column in ("own", "adjusted")]
        lines.append(f"| {name} | {' | '.join(cells)} | {of['num_tokens'].mean():.0f} |")
    head = "| teacher | quality | log-prob per token | less the prompt's mean | and less length | tokens |"
    return "\n".join([head, "|---|---|---|---|---|---|", *lines])


def shares(rows: pd.DataFrame) -> str:
    """Return what part of the variance of learnability within prompts each set of columns explains."""
    whole = rows["mean_logprob"].var(ddof=0)
    centred = within(rows, ["mean_logprob", "length", "quality_raw", *MARKS])
    centred["square"] = within(rows.assign(square=rows["length"] ** 2), ["square"])["square"]
    inside = centred["mean_logprob"].var(ddof=0)
    dummies = {of: pd.get_dummies(rows[of], dtype=float) for of in ("family", "teacher")}
    dummies = {of: found - found.groupby(rows["prompt_id"]).transform("mean") for of, found in dummies.items()}
    length, marks = centred[["length", "square"]], centred[list(MARKS)]
    sets = {
        "length": [length],
        "format": [marks],
        "length and format": [length, marks],
        "family": [dummies["family"]],
        "teacher": [dummies["teacher"]],
        "length, format and family": [length, marks, dummies["family"]],
        "length, format and teacher": [length, marks, dummies["teacher"]],
        "the judge's quality": [centred[["quality_raw"]]],
    }
    lines = [f"Of all variance of learnability, prompts explain {1 - inside / whole:.0%}; of the rest:", ""]
    lines += ["| explained by | share |", "|---|---|"]
    groups = rows["prompt_id"].to_numpy()
    for name, columns in sets.items():
        design = np.hstack([of.to_numpy() for of in columns])
        lines.append(f"| {name} | {explained(design, centred['mean_logprob'].to_numpy(), groups)} |")
    return "\n".join(lines)


def agreement(rows: pd.DataFrame) -> str:
    """Return how far orders of a prompt's teachers agree: the mean of Kendall's tau over prompts."""
    from scipy.stats import kendalltau

    pairs = {
        "quality and learnability": ("quality_raw", "mean_logprob"),
        "length and learnability": ("num_tokens", "mean_logprob"),
        "length and quality": ("num_tokens", "quality_raw"),
    }
    lines = ["| two orders of a prompt's teachers | mean tau |", "|---|---|"]
    for name, (one, other) in pairs.items():
        taus = np.array([kendalltau(of[one], of[other]).statistic for _, of in rows.groupby("prompt_id")])
        lines.append(f"| {name} | {interval(taus[np.isfinite(taus)])} |")
    best = rows.loc[rows.groupby("prompt_id")["mean_logprob"].idxmax()]
    liked = rows.loc[rows.groupby("prompt_id")["quality_raw"].idxmax()].set_index("prompt_id")["teacher"]
    same = (best.set_index("prompt_id")["teacher"] == liked).to_numpy(dtype=float)
    lines.append(f"| the most learnable answer is the best-judged | {interval(same)} of the prompts |")
    return "\n".join(lines)


def within(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns less their means over the prompt."""
    return rows[list(columns)] - rows.groupby("prompt_id")[list(columns)].transform("mean")


def explained(design: np.ndarray, target: np.ndarray, groups: np.ndarray) -> str:
    """Return R-squared out of sample: ten folds of prompts, each predicted by least squares on the others."""
    _, number = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(number.max() + 1)[number] % 10
    predicted = np.zeros_like(target)
    for held_out in range(10):
        train = fold != held_out
        weights, *_ = np.linalg.lstsq(design[train], target[train], rcond=None)
        predicted[~train] = design[~train] @ weights
    errors, totals = (np.bincount(number, of**2) for of in (target - predicted, target))
    return resampled(len(errors), lambda draw: 1 - errors[draw].sum() / totals[draw].sum(), "{:.0%}")


def interval(values: np.ndarray) -> str:
    return resampled(len(values), lambda draw: values[draw].mean(), "{:+.3f}" if values.min() < 0 else "{:.3f}")


def resampled(size: int, measure: Callable[[np.ndarray], float], form: str) -> str:
    """Return a measure of all rows with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).integers(0, size, (RESAMPLES, size))
    low, high = np.percentile([measure(draw) for draw in draws], [2.5, 97.5])
    return " ".join([form.format(measure(np.arange(size))), f"[{form.format(low)}, {form.format(high)}]"])


if __name__ == "__main__":
    main()
