"""Numbers of stores that others have: a teacher that came later, several answers to a prompt, answers not judged."""

from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from rows import assignment, prompt, response, reward

from persyn_hf.core.rewards import recombine
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.costs import costs
from persyn_hf.space.decisions import selected
from persyn_hf.space.events import Desk
from persyn_hf.space.router_quality import best_single, router_quality
from persyn_hf.space.whatif import by_recipe
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


Cell = tuple[float | None, float | None]  # raw quality, mean log-probability
IDS = [f"{number:016x}" for number in range(4)]
SETTINGS = {"alpha": 0.4, "normalisation": "minmax", "learnability": "mean_logprob", "in_part": False}


class Made:
    """A store with prompts 0 and 1 for calibration, 2 and 3 in the pool, and what a test puts on top."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.items: dict[str, Stored] = {}
        self.put("prompts", PROMPTS, [prompt(f"What is {n}?", IDS[n], split=split(n)) for n in range(4)], [])

    def put(
        self, name: str, schema: Any, rows: list[dict[str, Any]], teachers: list[str], *inputs: str, **more: Any
    ) -> Stored:
        pool = [{"name": teacher, "family": "f", "params_b": 1.0} for teacher in teachers]
        fields = {"stage": schema.kind, "teachers": pool, "student": {"name": "s", "model": "m"}, **more}
        fields["inputs"] = {
            self.items[of].kind: {"ref": self.items[of].ref, "digest": self.items[of].digest} for of in inputs
        }
        self.items[name] = self.store.put(repo=f"o/{name}", schema=schema, data=schema.dataset(rows), fields=fields)
        return self.items[name]

    def rewards(self, name: str, cells: dict[int, dict[str, Cell]], **settings: Any) -> Stored:
        chosen = SETTINGS | settings
        rows = [
            reward(IDS[n], teacher, quality_raw=quality, mean_logprob=logprob, split=split(n), num_tokens=5)
            for n, line in cells.items()
            for teacher, (quality, logprob) in line.items()
        ]
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        made = recombine(columns, chosen["alpha"], chosen["normalisation"])
        rows = [row | {key: values[place] for key, values in made.items()} for place, row in enumerate(rows)]
        teachers = list(dict.fromkeys(teacher for line in cells.values() for teacher in line))
        return self.put(name, REWARDS, rows, teachers, "prompts", settings=chosen)

    def routed(self, pool: list[str], chosen: dict[int, list[str]], *inputs: str, **settings: Any) -> Stored:
        rows = [
            assignment(IDS[n], teacher, split=split(n), scores=[1.0 - 0.1 * place for place in range(len(pool))],
                       margin=0.1, source="router")
            for n, names in chosen.items() for teacher in names
        ]  # fmt: skip
        return self.put("routed", ASSIGNMENTS, rows, pool, "prompts", *inputs, settings={"kind": "persyn"} | settings)

    def desk(self) -> Desk:
        return Desk(open_shelf([], self.store))


def split(number: int) -> str:
    return "calibration" if number < 2 else "pool"


def test_a_teacher_that_a_later_recipe_added_does_not_count(tmp_path: Path) -> None:
    made = Made(tmp_path)
    old: dict[str, Cell] = {"a": (1, -1.0), "b": (0, -0.5)}
    made.rewards("first", {0: old, 1: old})
    routed = made.routed(["a", "b"], {n: ["a"] for n in range(4)}, "first")
    made.rewards("later", {n: old | {"c": (1, -0.1)} for n in (2, 3)})
    desk = made.desk()
    assert "fault of ours" not in "".join(desk.page({"view": [view]}) for view in ("allocation", "router", "prompts"))
    quality = router_quality(desk.database, routed, "pool")
    assert quality.confusion.tolist() == [[2, 0], [0, 0]], "a is the best of its own pool"
    assert quality.table["router"]["regret"]["value"] == 0


def test_a_prompt_with_two_answers_is_one_prompt(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.rewards("rewards", {n: {"a": (1, -1.0), "b": (0, -0.5)} for n in range(4)})
    routed = made.routed(["a", "b"], {n: ["a", "b"] if n > 1 else ["a"] for n in range(4)}, "rewards", per_prompt=2)
    spent = {"teachers": {name: {"requests": 4, "flops": 4e9} for name in "ab"}}
    answers = [response(IDS[n], teacher, "x", split=split(n)) for n in range(4) for teacher in "ab"]
    made.put("answers", RESPONSES, answers, ["a", "b"], "prompts", cost=spent)
    desk = made.desk()
    found = costs(desk.database, routed)
    assert (found.prompts, found.labelled) == (4, 2)
    assert found.ways["generate-then-select"].requests == 8  # 4 prompts, 2 teachers
    assert found.ways["this assignment"].requests == 8  # 2 calibration prompts by both, 2 pool prompts by both
    listed = desk.page({"view": ["prompts"]})
    assert "<b>2</b> prompts</span> <small>4 answers</small>" in listed
    assert router_quality(desk.database, routed, "pool").prompts == 2


@pytest.mark.parametrize(
    ("alpha", "cells", "best"),
    [
        (0.6, {"a": (1, -0.9), "b": (0, -0.8), "c": (None, -0.1)}, 0),  # c has no verdict, but a learnability
        (0.4, {"a": (1, -0.5), "b": (0.5, -0.3), "c": (0, -0.9)}, 0),
    ],
)
def test_what_if_at_the_recipes_weights_is_what_is_stored(
    tmp_path: Path, alpha: float, cells: dict[str, Cell], best: int
) -> None:
    made = Made(tmp_path)
    made.rewards("rewards", dict.fromkeys(range(4), cells), alpha=alpha)
    made.routed(["a", "b", "c"], {n: ["b"] for n in range(4)}, "rewards")
    desk = made.desk()
    state, _ = desk.read(parse_qs("view=whatif&split=all"))
    assert by_recipe(desk.scene(state).load()).teacher.tolist() == [best] * 4


def test_a_teacher_without_a_calibration_reward_is_not_the_best_single_one(tmp_path: Path) -> None:
    made = Made(tmp_path)
    cells: dict[str, Cell] = {"a": (-3.0, -1.0), "b": (-2.0, -1.0)}
    made.rewards("rewards", {0: cells, 1: cells, 2: cells | {"c": (-4.0, -1.0)}}, normalisation="none", alpha=0.0)
    routed = made.routed(["a", "b", "c"], {n: ["a"] for n in range(4)}, "rewards")
    assert best_single(made.desk().database, routed) == "b"


def test_an_answer_is_one_of_those_that_are_stored(tmp_path: Path) -> None:
    made = Made(tmp_path)
    routed = made.routed(["a"], {n: ["a"] for n in range(4)})
    for number, (correct, tokens) in enumerate([(None, 11), (False, None)]):
        rows = [response(IDS[n], "a", "x", split=split(n), is_correct=correct, num_tokens=tokens) for n in range(4)]
        made.put(f"answers-{number}", RESPONSES, rows, ["a"], "prompts")
    desk = made.desk()
    seen = {tuple(row) for _ in range(50) for row in desk.database.rows(selected(desk.database, routed))}
    assert len(seen) == 4 and {row[2:4] for row in seen} in ({(None, 11)}, {(False, None)})


def test_what_if_of_a_pool_that_was_not_measured_shows_what_was(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.rewards("rewards", dict.fromkeys(range(2), {"a": (1, -1.0), "b": (0, -0.5)}))
    made.routed(["a", "b"], {n: ["a"] for n in range(4)}, "rewards")
    shown = unescape(made.desk().page({"view": ["whatif"]}))
    assert "No pool prompt has measured rewards" in shown and "This cannot be shown" not in shown
    assert '<option value="all" selected>' in shown and "split=all" in shown
    assert "has measured rewards" not in made.desk().page({"view": ["whatif"], "split": ["calibration"]})
