"""What `persyn plan` says is to pay, against what `persyn run` then asks a real server."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai_server import OpenAIServer, Response, completion
from rows import sums, write_lines

from persyn_hf.cli.main import main
from persyn_hf.core.cost import Cost
from persyn_hf.forecast.cells import share_of
from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.forecast.to_pay import Ask, ToPay
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.runner.run import look_up
from persyn_hf.store.local import Store


ROWS = sums(range(100, 160))
NAMES = ("a", "b", "c", "d")


def say(text: str, times: int) -> Response:
    """Right for even numbers; every fifth answer is cut off at 20 tokens."""
    number = int(text.split()[2])
    cut = "length" if number % 5 == 0 else "stop"
    return Response(body=completion(f"It is \\boxed{{{number + 2 + number % 2}}}.", finish_reason=cut))


@dataclass
class World:
    """A recipe whose teachers stand behind a real server, in a folder of its own."""

    folder: Path
    server: OpenAIServer
    values: dict[str, Any]

    def write(self) -> Path:
        path = self.folder / "r.yaml"
        path.write_text(yaml.safe_dump(self.values))
        return path

    def foresee(self, *sets: str) -> ToPay | None:
        recipe, store = load_recipe(self.write(), sets), Store(self.folder / "store")
        return look_ahead(recipe, look_up(recipe, store), store).to_pay

    def plan(self, *sets: str) -> dict[str, Ask]:
        found = self.foresee(*sets)
        return {} if found is None else {**found.teachers, "total": found.total}

    def run(self, *arguments: str) -> dict[str, int]:
        """The requests of a run by teacher, and in all."""
        before = len(self.server.bodies)
        assert main(["run", str(self.write()), "--store", str(self.folder / "store"), *arguments]) == 0
        asked = [body["model"] for body in self.server.bodies[before:]]
        return {name: asked.count(name) for name in NAMES} | {"total": len(asked)}

    def copy(self, folder: Path) -> "World":
        shutil.copytree(self.folder, folder, symlinks=True)
        return World(folder, self.server, json.loads(json.dumps(self.values)))


@pytest.fixture(scope="module")
def server(heavy: None) -> Iterator[OpenAIServer]:
    with OpenAIServer(say, models=NAMES) as running:
        yield running


@pytest.fixture(scope="module")
def done(server: OpenAIServer, zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished run of three teachers on 60 prompts: 20 calibration, 20 dev, 20 pool."""
    folder = tmp_path_factory.mktemp("world") / "done"
    folder.mkdir()
    write_lines(folder / "q.jsonl", ROWS)
    values = {
        "name": "paid",
        "until": "generate",
        "teachers": [{"name": name, "model": name} for name in NAMES[:3]],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "strategies": ["persyn", "mix"],
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": 20,
            "dev": 20,
        },
        "generate": {"engine": "server", "samples": 2, "max_tokens": 20, "server": {"urls": [server.url]}},
        "score": {"alpha": 0.4},
        "train_router": {"kind": "knn"},
    }
    world = World(folder, server, values)
    planned = world.plan()
    asked = world.run()
    assert planned["total"].certain == 2 * (3 * 40 + 20), "all of calibration and dev, and what mix has drawn"
    assert planned["total"].at_most == planned["total"].certain + 2 * 20, "and one other teacher for each of the pool"
    agree(planned, asked)
    return world


def agree(planned: dict[str, Ask], asked: dict[str, int]) -> None:
    """What is certain is asked, and no more than at most; where both are one number, it is the one."""
    for name, ask in planned.items():
        assert ask.certain <= asked[name] <= ask.at_most, (name, ask, asked)
        assert ask.certain <= ask.expected + 1e-9 and ask.expected <= ask.at_most + 1e-9
    assert sum(asked[name] for name in asked if name not in (*planned, "total")) == 0


def more_prompts(world: World) -> None:
    rows = sums(range(300, 310))
    write_lines(world.folder / "q.jsonl", ROWS + rows)


def as_csv(world: World) -> None:
    with (world.folder / "q.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    world.values["prompts"]["path"] = "./q.csv"


def fourth_teacher(world: World) -> None:
    world.values["teachers"].append({"name": "d", "model": "d"})


def another_student(world: World) -> None:
    model = Path(world.values["students"][0]["model"]).with_name("llama-student")
    world.values["students"] = [{"name": "t", "model": str(model)}]


# What changes in the recipe, and the answers that are certain then.
CHANGES = {
    "nothing": (lambda world: None, 0),
    "alpha": (lambda world: world.values["score"].update(alpha=0.3), 0),
    "a fourth teacher": (fourth_teacher, 2 * 40),  # and more: see the test
    "ten more prompts": (more_prompts, None),
    "another name": (lambda world: world.values.update(name="other"), 0),
    "another student": (another_student, 0),
    "another file of the same prompts": (as_csv, 0),
    "one teacher less": (lambda world: world.values["teachers"].pop(), 0),
    "one teacher under another name": (lambda world: world.values["teachers"][0].update(name="z"), 0),
    "a third sample": (lambda world: world.values["generate"].update(samples=3), 140),
    "another strategy": (lambda world: world.values["strategies"].append("oracle"), None),
    "until a correct one": (lambda world: world.values["generate"].update(stop_when_correct=True), 0),
    "fewer prompts for dev": (lambda world: world.values["prompts"].update(dev=10), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_certain_is_asked_and_no_more_than_at_most(change: str, done: World, tmp_path: Path) -> None:
    world = done.copy(tmp_path / "w")
    alter, certain = CHANGES[change]
    alter(world)
    planned = world.plan()
    if planned and certain is not None:
        assert planned["total"].certain >= certain
    asked = world.run()
    if "z" in planned:
        planned["a"] = planned.pop("z")
    if planned:
        agree(planned, asked)
    else:
        assert asked["total"] == 0
    assert world.plan() == {} or world.plan()["total"].at_most == 0, "and all of it is stored then"


def test_the_routing_of_the_last_router_is_expected(done: World, tmp_path: Path) -> None:
    """A renamed recipe asks nothing new: its router will choose as the last one did, whose answers are there."""
    world = done.copy(tmp_path / "w")
    world.values["name"] = "other"
    total = world.plan()["total"]
    assert (total.certain, total.expected) == (0, 0) and 0 < total.at_most <= 2 * 20
    assert total.journalled == 2 * (3 * 40 + 20)
    assert world.run()["total"] == 0


def test_prompts_that_move_are_told_of_before_they_move(
    done: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten more prompts draw some of calibration and dev anew, unless these are drawn from the first sixty."""
    world = done.copy(tmp_path / "w")
    more_prompts(world)
    (note,) = world.foresee().notes
    assert re.fullmatch(
        r"warning: \d of 20 calibration prompts( and \d of 20 dev prompts)? of local/paid-prompts@v1 are in another "
        r"split now, .*; where prompts were appended to the source, --set prompts.draw_from=60 keeps the splits",
        note,
    )
    assert world.foresee("prompts.draw_from=60").notes == []
    capsys.readouterr()
    world.run("--set", "until=prompts")
    assert note in capsys.readouterr().out.replace("\n", " ")


def test_a_rerun_of_what_was_cut_off(done: World, tmp_path: Path) -> None:
    """Answers that came to their end stand for those with a higher limit; only the cut ones are asked again."""
    world = done.copy(tmp_path / "w")
    world.values["generate"]["max_tokens"] = 40
    everything = world.plan()["total"]
    assert everything.certain == 2 * (3 * 40 + 20)
    planned = world.plan("generate.rerun=truncated")
    asked = world.run("--rerun", "truncated")
    agree(planned, asked)
    assert 0 < planned["total"].certain < everything.certain / 2


def test_two_teachers_of_one_model_are_paid_once(done: World, tmp_path: Path) -> None:
    world = done.copy(tmp_path / "w")
    world.values["teachers"].insert(1, {"name": "again", "model": "a"})
    planned = world.plan()["total"]
    assert planned.certain <= world.run()["total"] <= planned.at_most


@pytest.mark.parametrize(
    "paid",
    [
        {"share": 0.58, "rounds": 2},
        {"share": 0.58, "rounds": 3},
        {"budget": {"cost": "generations", "total": 208}},
        {"budget": {"cost": "generations", "total": 208, "covers_dev": True}},
        {"budget": {"cost": "tokens", "total": 1000}},
    ],
)
def test_a_calibration_in_rounds(paid: dict[str, Any], done: World, tmp_path: Path) -> None:
    """104 of 180 cells, whatever the rounds choose; dev is whole, and the pool is mixed or routed."""
    world = World(tmp_path, done.server, json.loads(json.dumps(done.values)))
    world.values["calibration"] = {"strategy": "successive_halving", **paid}
    world.values["prompts"]["calibration"] = 60
    rows = sums(range(400, 500))
    write_lines(tmp_path / "q.jsonl", rows)
    planned = world.plan()
    assert planned["total"].expected <= planned["total"].at_most
    assert sum(planned[name].expected for name in NAMES[:3]) <= planned["total"].at_most + 1e-6
    agree(planned, world.run())


def test_the_first_round_is_paid_whatever_the_budget() -> None:
    """Of 40 prompts a budget of 5 answers for three teachers pays for ten of each, one of 60 for twenty."""
    costs = dict.fromkeys(NAMES[:3], Cost(requests=1))
    for total, expected in ((5, 10), (60, 20), (600, 40)):
        wanted = Calibration(strategy="uncertainty", budget={"cost": "generations", "total": total})
        assert share_of(wanted, costs, 40, 7) == (expected / 40, 1.0)


def test_a_budget_that_covers_dev_leaves_less_for_calibration() -> None:
    """Of 90 answers of three teachers 7 dev prompts take 21: 23 calibration prompts of 40 are left."""
    budget = {"cost": "generations", "total": 90, "covers_dev": True}
    wanted = Calibration(strategy="uncertainty", budget=budget)
    assert share_of(wanted, dict.fromkeys(NAMES[:3], Cost(requests=1)), 40, 7) == (23 / 40, 1.0)


def test_a_run_that_was_cut_short(done: World, tmp_path: Path) -> None:
    world = World(tmp_path, done.server, json.loads(json.dumps(done.values)))
    write_lines(tmp_path / "q.jsonl", ROWS)
    before = len(world.server.bodies)
    command = ["run", str(world.write()), "--store", str(tmp_path / "store"), "--max-generations", "100"]
    assert main(command) == 3
    assert len(world.server.bodies) - before == 100
    planned = world.plan()
    assert planned["total"].certain == 280 - 100 and planned["total"].journalled == 100
    agree(planned, world.run())


EDITS = st.fixed_dictionaries(
    {},
    optional={
        "teachers": st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True),
        "strategies": st.lists(
            st.sampled_from(
                [
                    "persyn",
                    "mix",
                    "best_mean_reward",
                    "oracle",
                    {"kind": "persyn", "per_prompt": 2},
                    {"kind": "persyn", "escalate": 1},
                    {"kind": "strong", "teacher": "a"},
                ]
            ),
            min_size=1,
            max_size=3,
            unique_by=str,
        ),
        "alpha": st.floats(0, 1),
        "rows": st.integers(45, 60),
        "sizes": st.tuples(st.integers(10, 20), st.sampled_from([5, 10, 20])),
        "name": st.sampled_from(["paid", "other"]),
        "samples": st.integers(1, 3),
        "seed": st.integers(0, 1),
        "stop": st.booleans(),
    },
)


@pytest.mark.ci
@pytest.mark.timeout(1200)  # of all examples together
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(edits=EDITS)
def test_any_edit_of_a_recipe(edits: dict[str, Any], done: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    world = done.copy(tmp_path_factory.mktemp("edited") / "w")
    values = world.values
    if "teachers" in edits:
        names = sorted({*edits["teachers"], "a"})
        values["teachers"] = [{"name": name, "model": name} for name in names]
    values["strategies"] = edits.get("strategies", values["strategies"])
    values["score"]["alpha"] = edits.get("alpha", 0.4)
    values["name"], values["seed"] = edits.get("name", "paid"), edits.get("seed", 0)
    values["generate"]["samples"] = edits.get("samples", 2)
    values["generate"]["stop_when_correct"] = edits.get("stop", False)
    if "rows" in edits:
        write_lines(world.folder / "q.jsonl", ROWS[: edits["rows"]])
    if "sizes" in edits:
        values["prompts"] |= dict(zip(("calibration", "dev"), edits["sizes"], strict=True))
    planned = world.plan()
    asked = world.run()
    if planned:
        agree(planned, asked)
    else:
        assert asked["total"] == 0
    shutil.rmtree(world.folder)
