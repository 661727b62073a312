"""Train a student on each of the training sets of `sets.py`, and measure how many questions it then answers.

    persyn run recipes/tiny/study.yaml --set 'strategies=[oracle]' --set until=assign
    python recipes/tiny/study-reward/train.py recipes/tiny/study.yaml --out measured.jsonl

The recipe's artifacts hold every teacher's answer to every prompt, so nothing is generated anew. One line per set
goes to the output; a killed run goes on with the sets that have no line yet. `--part 0/2` takes every second set, so
that two processes share the work.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sets import Cells, draw

from persyn_hf import load_artifact
from persyn_hf.core.rewards import learnability, reward_matrix, to_matrix
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.schemas import SFT
from persyn_hf.stage import Context, Result
from persyn_hf.stages import evaluate, train_student


ALPHAS = (0.2, 0.4, 0.6, 0.8)
TINY = Path(__file__).resolve().parent.parent
TASKS = ("test", "validation")  # 400 and 320 questions; no teacher answered any of them


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="study.yaml, or study-student.yaml for the other student")
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines: name, teachers, right answers per task")
    parser.add_argument("--part", default="0/1", help="which sets: the first number, modulo the second")
    given = parser.parse_args()
    tasks = ", ".join(f"{{name: {name}, path: {TINY / name}.jsonl}}" for name in TASKS)
    recipe = load_recipe(given.recipe, [f"evaluate.tasks=[{tasks}]"])
    rows = read_answers(recipe, given.store)
    cells = make_cells(rows, recipe)
    known = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    done = {json.loads(line)["name"] for line in known}
    part, parts = map(int, given.part.split("/"))
    for number, (name, teachers) in enumerate(draw(cells)):
        if name in done or number % parts != part:
            continue
        accuracy = measure(recipe, training_rows(rows, teachers, recipe))
        line = {"name": name, "teachers": "".join("-" if at < 0 else str(at) for at in teachers), **accuracy}
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(name, accuracy, flush=True)


def read_answers(recipe: Recipe, store: Path | None) -> pd.DataFrame:
    """Read one row per cell of the calibration and pool prompts: its kept answer, and what it scored."""

    def table(kind: str) -> pd.DataFrame:
        splits = load_artifact(f"{recipe.namespace}/{recipe.name}-{kind}", store=store)
        return pd.concat([split.to_pandas() for split in splits.values()])

    student = recipe.students[0].name
    rewards = pd.concat([table(f"rewards-{student}"), table(f"rewards-{student}-pool")])
    responses = pd.concat([table("responses"), table("responses-pool")])
    responses = responses[responses["selected"]][["prompt_id", "teacher", "response"]]
    prompts = table("prompts")[["prompt_id", "messages", "topic", "split"]].drop(columns="split")
    rows = rewards.merge(responses, on=["prompt_id", "teacher"]).merge(prompts, on="prompt_id")
    return rows[rows["split"] != "dev"].sort_values("prompt_id", kind="stable").reset_index(drop=True)


def make_cells(rows: pd.DataFrame, recipe: Recipe) -> Cells:
    """Make matrices (prompts, teachers) of what is known of each answer."""
    pool = [teacher.name for teacher in recipe.teachers]
    columns = {name: rows[name].to_list() for name in rows if name != "messages"}

    def matrix(values: Any) -> Any:
        return to_matrix(columns["prompt_id"], columns["teacher"], list(values), pool)[1]

    mean, ranks = (matrix(learnability(columns, how)) for how in ("mean_logprob", "rank_surprisal"))
    criteria = {f"eq2 {alpha:g}": reward_matrix(columns, pool, alpha)[1] for alpha in ALPHAS}
    criteria |= {"log-prob per token": mean, "rank-surprisal": ranks, "log-prob": matrix(columns["sum_logprob"])}
    criteria |= {"quality": matrix(columns["quality_raw"]), "shortness": -matrix(columns["num_tokens"])}
    topics = rows.drop_duplicates("prompt_id")["topic"].to_numpy(dtype=str)
    return Cells(right=criteria["quality"], criteria=criteria, skills=topics)


def training_rows(rows: pd.DataFrame, teachers: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the SFT rows of one set, in the order of the prompts."""
    pool = [teacher.name for teacher in recipe.teachers]
    ids = rows["prompt_id"].drop_duplicates().to_list()
    cells = rows.set_index(["prompt_id", "teacher"])
    made = []
    for prompt_id, at in zip(ids, teachers, strict=True):
        if at >= 0:
            cell = cells.loc[(prompt_id, pool[at])]
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in cell["messages"]]
            answer = [{"role": "assistant", "content": cell["response"]}]
            made.append({"prompt": turns, "completion": answer, "prompt_id": prompt_id, "teacher": pool[at]})
    return [row | {"reward": None} for row in made]


def measure(recipe: Recipe, rows: Any) -> Mapping[str, float]:
    """Train the recipe's student on the rows, and return its accuracy and the loss at the end of training."""
    trained, found = train_and_ask(recipe, recipe.students[0], rows)
    tasks = {name: round(line["accuracy"], 4) for name, line in found.metrics.items()}
    return tasks | {"loss": round(float(np.float64(trained.metrics["final_loss"])), 4)}


def train_and_ask(recipe: Recipe, student: Student, rows: Any, seed: int = 0) -> tuple[Result, Result]:
    """Train a student on SFT rows, ask it the recipe's questions, and return what both stages say."""
    with tempfile.TemporaryDirectory() as folder:
        context = Context(seed=seed, work_dir=Path(folder), student=student)
        training = train_student.Settings.model_validate(recipe.train_student)
        trained = train_student.run(training, context, sft=SFT.dataset(list(rows)))
        asked = evaluate.Settings.model_validate(recipe.evaluate)
        return trained, evaluate.run(asked, context, student=Path(str(trained.data)))


if __name__ == "__main__":
    main()
