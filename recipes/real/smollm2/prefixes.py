"""Do the first tokens of an answer say how learnable it is?

    python prefixes.py WORK [--store STORE] [--prompts 100]      after `persyn run WORK/recipe.yaml --set until=mix`

The answers of all teachers to the first calibration prompts are cut after 32, 64, 128 and 256 tokens. The student's
log-probability per token of what is left stands beside that of the whole answer, which the run has measured. Intervals
are 95 % bootstrap intervals over prompts.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from analyse import interval, read
from scipy.stats import kendalltau

from persyn_hf.backends.scoring.likelihood import MEASURES, LikelihoodScorer
from persyn_hf.core.rewards import combine, normalise
from persyn_hf.recipe.file import load_recipe


LENGTHS = (32, 64, 128, 256)
ALPHA = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path, help="the folder that prepare.py made")
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    parser.add_argument("--prompts", type=int, default=100)
    given = parser.parse_args()
    recipe = load_recipe(given.work / "recipe.yaml")
    student = recipe.students[0]
    rows = read(given.work, given.store, recipe.namespace, recipe.name, student.name)
    rows = rows[rows.groupby("prompt_id")["teacher"].transform("count") == len(recipe.teachers)]
    asked = list(dict.fromkeys(rows["prompt_id"]))[: given.prompts]
    rows = rows[rows["prompt_id"].isin(asked)].sort_values(["prompt_id", "teacher"])
    measured = measure(str(student.model), rows)
    shape = (len(asked), len(recipe.teachers))
    matrices = {length: of.reshape(shape) for length, of in measured.items()}
    quality = normalise(rows["quality_raw"].to_numpy().reshape(shape))
    print(table(matrices, rows["mean_logprob"].to_numpy().reshape(shape), quality))


def measure(model: str, rows: pd.DataFrame) -> dict[int, np.ndarray]:
    """Return the log-probability per token, in nats, of the first tokens of every answer, by their number."""
    scorer = LikelihoodScorer(model, max_length=2048, dtype="bfloat16", device="cpu")
    conversations = [[{"role": "user", "content": prompt}] for prompt in rows["prompt"]]
    turns = scorer.encode(list(zip(conversations, rows["response"], strict=True)))
    found: dict[int, np.ndarray] = {}
    for length in LENGTHS:
        cut = [replace(turn, ids=turn.ids[: turn.start + length]) for turn in turns]
        values = []
        for turn in cut:
            (of,) = scorer.measure([turn])
            named = dict(zip(MEASURES, of, strict=True))
            values.append(named["sum_logprob"] / named["num_tokens"])
        found[length] = np.array(values)
    return found


def table(prefixes: dict[int, np.ndarray], whole: np.ndarray, quality: np.ndarray) -> str:
    """Return how far each prefix orders the teachers as the whole does; matrices are (prompts, teachers)."""
    reward = combine(quality, normalise(whole), ALPHA)
    best = reward.argmax(axis=1)
    places = np.arange(len(whole))
    head = (
        "| first tokens | tau of a prompt's teachers | tau of the teachers' means | same best teacher | reward lost |"
    )
    lines = [head, "|---|---|---|---|---|"]
    for length, prefix in prefixes.items():
        taus = np.array([kendalltau(one, other).statistic for one, other in zip(prefix, whole, strict=True)])
        means = kendalltau(prefix.mean(axis=0), whole.mean(axis=0)).statistic
        chosen = combine(quality, normalise(prefix), ALPHA).argmax(axis=1)
        same = interval((chosen == best).astype(float))
        lost = interval(reward[places, best] - reward[places, chosen])
        lines.append(f"| {length} | {interval(taus)} | {means:.2f} | {same} | {lost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
