"""The study at equal cost: every arm of `arms.py` may pay for as many cells, and trains a student on what it gets.

    python recipes/tiny/study-cost/study.py
    python recipes/tiny/study-cost/analyse.py

It has every teacher answer every prompt once (a minute or two), and then chooses: an arm is a choice of cells, the
training set that follows from it, and one student. A line per student goes to `docs/data/tiny-cost-STUDENT.jsonl`;
a run that was stopped goes on with what has no line yet. The most telling lines come first.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from arms import ARMS, Arm, Purchase
from world import World

import persyn_hf
from persyn_hf.core.mixing import chosen_responses, drop_reason, further_responses, sft_rows
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe


HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "study-reward"))
from train import TASKS, TINY, train_and_ask  # noqa: E402  # the other study's folder is on the path now


DRAWS = 5
LEADING = ("mix", "mix_right", "hindsight", "persyn", "best")
SLOW = ("tournament", "strong")  # long answers, and far behind
SINGLES = tuple(name for name in ARMS if name not in (*LEADING, *SLOW))
# Budget, arms and SFT seed, in the order in which they are worked on.
PLAN = (
    (1300, LEADING, 0),
    (1300, SINGLES, 0),
    (1300, LEADING, 1),
    (650, LEADING, 0),
    (2600, LEADING, 0),
    (1300, LEADING, 2),
    (1300, SLOW, 0),
)


class Job(NamedTuple):
    """One student to be trained."""

    budget: int
    arm: str
    seed: int  # of SFT
    draw: int
    student: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=HERE / "answers.yaml", help="what is asked of the teachers")
    parser.add_argument("--store", type=Path, default=None, help="default: $PERSYN_STORE, or ./artifacts")
    parser.add_argument("--out", type=Path, default=HERE.parents[2] / "docs/data", help="the folder of the results")
    parser.add_argument("--look", type=int, metavar="CELLS", help="say what each arm buys for so many, and train none")
    given = parser.parse_args()
    persyn_hf.run(given.recipe, store=given.store)
    tasks = ", ".join(f"{{name: {name}, path: {TINY / name}.jsonl}}" for name in TASKS)
    recipe = load_recipe(given.recipe, [f"evaluate.tasks=[{tasks}]"])
    studies = {student.name: Study(recipe, World(recipe, given.store, student.name)) for student in recipe.students}
    if given.look:
        for student, study in studies.items():
            print(student, study.look(given.look), sep="\n\n", end="\n\n")
        return
    for job in jobs(studies):
        path = given.out / f"tiny-cost-{job.student}.jsonl"
        known = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        if any(all(line[key] == value for key, value in job._asdict().items() if key != "student") for line in known):
            continue
        line = studies[job.student].line(job, known)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(job.student, json.dumps({key: value for key, value in line.items() if key != "by_skill"}), flush=True)


def jobs(students: Any) -> Iterator[Job]:
    """Yield every student to be trained, the most telling first."""
    for budget, arms, seed in PLAN:
        for draw, arm, student in product(range(DRAWS), arms, students):
            yield Job(budget, arm, seed, draw, student)


class Study:
    """The answers of all teachers, as one student scores them, and what a student learns from a choice of them."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world = recipe, world
        self._answers: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in [*self.world.table("responses"), *self.world.table("responses-pool")]:
            self._answers.setdefault((row["prompt_id"], row["teacher"]), []).append(row)

    def line(self, job: Job, known: list[dict[str, Any]]) -> dict[str, Any]:
        """Train and ask a student, and return its line; rows that `known` has with this seed are not trained again."""
        bought = self.buy(job)
        rows = self.rows(ARMS[job.arm], bought)
        answers = [row["completion"][0]["content"] for row in rows]
        digest = hashlib.sha256(json.dumps([[row["prompt_id"] for row in rows], answers]).encode()).hexdigest()[:12]
        line = {key: value for key, value in job._asdict().items() if key != "student"}
        line |= self.spent(bought) | bought.told | {"rows": len(rows), "digest": digest}
        same = [old for old in known if (old["digest"], old["seed"]) == (digest, job.seed)]
        made = ("steps", "right", "by_skill")
        return line | ({key: same[0][key] for key in made} if same else train(self.recipe, self.world, rows, job.seed))

    def look(self, budget: int) -> str:
        """Return a table of what each arm buys, the mean over the draws; rewards are those of alpha 0.8."""
        world = self.world
        place = {key: row for row, key in enumerate(world.ids)}
        right, rewards = world.measured("quality_raw", np.arange(len(place))), world.rewards(0.8)
        is_long = np.array([teacher.long_cot for teacher in world.teachers])
        lines = ["| arm | cells | tokens | SFT rows | right | reward | Long-CoT |", "|---" + "|---:" * 6 + "|"]
        for name, arm in ARMS.items():
            found = []
            for draw in range(DRAWS):
                bought = self.buy(Job(budget, name, 0, draw, world.student.name))
                rows = self.rows(arm, bought)
                prompts = np.array([place[row["prompt_id"]] for row in rows])
                teachers = np.array([world.pool.index(row["teacher"]) for row in rows])
                means = right[prompts, teachers].mean(), rewards[prompts, teachers].mean(), is_long[teachers].mean()
                found.append([*self.spent(bought).values(), len(rows), *means])
            *paid, of_right, reward, of_long = np.mean(found, axis=0)
            shown = [*(f"{value:,.0f}" for value in paid), f"{of_right:.0%}", f"{reward:.3f}", f"{of_long:.0%}"]
            lines.append(f"| {name} | {' | '.join(shown)} |")
        return "\n".join(lines)

    def buy(self, job: Job) -> Purchase:
        """Let an arm pay for cells; all arms of a draw see its prompts in one order."""
        order = np.random.default_rng([9, job.draw]).permutation(len(self.world.ids))
        arm, chance = ARMS[job.arm], np.random.default_rng([10, job.draw])
        return arm.spend(arm, self.world, order, job.budget, chance)

    def spent(self, bought: Purchase) -> dict[str, int]:
        """Return what was paid: cells, and the tokens of their samples."""
        cells = [(self.world.ids[row], self.world.pool[column]) for row, column in np.argwhere(bought.asked)]
        return {"cells": len(cells), "tokens": sum(row["num_tokens"] for cell in cells for row in self._answers[cell])}

    def rows(self, arm: Arm, bought: Purchase) -> list[dict[str, Any]]:
        """Return the SFT rows, as the stage `mix` makes them of what was paid for."""
        world, several = self.world, np.flatnonzero(bought.calibrated)
        rewards: dict[tuple[str, str], float | None] = {}
        if len(several):
            found = world.known(bought.asked[several], several, arm.alpha)
            rewards = {
                (world.ids[prompt], name): float(value)
                for prompt, values in zip(several, found, strict=True)
                for name, value in zip(world.pool, values, strict=True)
                if not np.isnan(value)
            }
        prompts = [{"prompt_id": key, "messages": said} for key, said in zip(world.ids, world.messages, strict=True)]
        paid = [
            row
            for prompt, teacher in np.argwhere(bought.asked)
            for row in self._answers[world.ids[prompt], world.pool[teacher]]
        ]
        each = {
            key: arm.calibration if calibrated else arm.pool
            for key, calibrated in zip(world.ids, bought.calibrated, strict=True)
        }
        made: list[dict[str, Any]] = []
        for teachers in bought.teachers:
            assigned = {world.ids[prompt]: [world.pool[teachers[prompt]]] for prompt in np.flatnonzero(teachers >= 0)}
            chosen, keep = chosen_responses(assigned, paid, rewards), {"keep_incorrect": arm.keep_incorrect}
            usable = {key: row for key, row in chosen.items() if drop_reason(row, **keep) is None}
            further = further_responses(usable, paid, rewards, {key: each[key] for key in assigned if each[key] > 1})
            made += sft_rows(prompts, assigned, chosen, rewards, further, **keep)[0]
        said = {(row["prompt_id"], row["completion"][0]["content"]): row for row in made}
        return list(said.values())  # two teachers of a prompt may have said the same


def train(recipe: Recipe, world: World, rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Train a student on rows, and return its optimiser steps and its right answers, in all and by skill."""
    trained, found = train_and_ask(recipe, world.student, rows, seed)
    files = [(TINY / f"{task}.jsonl").read_text("utf-8").splitlines() for task in TASKS]
    skills = [json.loads(line)["skill"] for lines in files for line in lines]
    right = [bool(row["is_correct"]) for task in TASKS for row in found.data if row["task"] == task]
    by_skill = {name: [0, 0] for name in sorted(set(skills))}
    for skill, is_right in zip(skills, right, strict=True):
        by_skill[skill][0] += is_right
        by_skill[skill][1] += 1
    return {"steps": trained.metrics["steps"], "right": sum(right), "by_skill": by_skill}


if __name__ == "__main__":
    main()
