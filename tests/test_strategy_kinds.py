"""Every kind of strategy is planned, assigned, costed and shown as its record says; `reassign` over each other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rich.console import Console

from persyn_hf.errors import RecipeError
from persyn_hf.forecast.generation import forecast
from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.recipe import names
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strategies import KINDS, Strategy, answers_seen, known_shares
from persyn_hf.report.run_tables import summary
from persyn_hf.report.strategy_costs import strategy_cost
from persyn_hf.report.tables import Table
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.run import look_up, manifests_of, run_recipe
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.costs import costs
from persyn_hf.space.database import Database
from persyn_hf.store.local import Store


CALIBRATION, DEV, POOL, SAMPLES = 12, 20, 9, 2
TEACHERS = ("small", "other", "large")
GIVEN: dict[str, dict[str, Any]] = {"reassign": {"base": "persyn", "from_teachers": ["small"], "to_teacher": "large"}}
SEEN = {
    **dict.fromkeys(("strong", "family_strong", "mix"), "nothing"),
    **dict.fromkeys(("persyn", "no_learnability", "no_quality", "car", "best_mean_reward"), "calibration"),
    "oracle": "pool",
}
# Answers of one strategy, were it run alone: each prompt's one teacher, or all of them where it looks at all answers.
ASKED = {
    "nothing": SAMPLES * (CALIBRATION + POOL),
    "calibration": SAMPLES * (3 * CALIBRATION + POOL),
    "pool": SAMPLES * 3 * (CALIBRATION + POOL),
}


def good(text: str, times: int) -> Response:
    """An answer that is right for every third number."""
    number = int(text.split()[2])
    return Response(body=completion(f"It is \\boxed{{{number + 2 + min(1, number % 3)}}}."))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, zoo: Path) -> Iterator[Recipe]:
    folder = tmp_path_factory.mktemp("kinds")
    number = CALIBRATION + DEV + POOL
    rows = [{"question": f"What is {a} + 2?", "answer": str(a + 2)} for a in range(100, 100 + number)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = [{"kind": kind, "name": kind, **GIVEN.get(kind, {})} for kind in KINDS]
    changed = {"kind": "reassign", **GIVEN["reassign"]}
    over = [{**changed, "name": f"over-{kind}", "base": kind} for kind in KINDS if kind != "reassign"]
    with OpenAIServer(good, models=TEACHERS) as server:
        values = {
            "name": "kinds",
            "until": "generate",
            "teachers": [
                {"name": name, "model": name, "family": "f", "params_b": size}
                for name, size in zip(TEACHERS, (1, 2, 70), strict=True)
            ],
            "students": [{"name": "s", "model": str(zoo / "qwen-student"), "family": "f"}],
            "strategies": [*plain, *over],
            "prompts": {
                "path": "./q.jsonl",
                "columns": {"prompt": "question", "reference": "answer"},
                "calibration": CALIBRATION,
                "dev": DEV,
                "pool": POOL,
            },
            "generate": {
                "engine": "server",
                "samples": SAMPLES,
                "max_tokens": 50,
                "server": {"urls": [server.url]},
            },
            "train_router": {"kind": "ridge"},
        }
        (folder / "kinds.yaml").write_text(yaml.safe_dump(values))
        yield load_recipe(folder / "kinds.yaml")


@pytest.fixture(scope="module")
def store(heavy: None, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which every strategy of the recipe has been assigned and answered."""
    store = Store(tmp_path_factory.mktemp("kinds-store") / "store")
    run_recipe(recipe, store, Console(quiet=True))
    return store


def seen(recipe: Recipe, strategy: Strategy) -> str:
    """What the strategy must look at, by the table of this file."""
    kind = strategy.kind if strategy.base is None else strategy.base
    return SEEN[kind]


def first(tables: list[Table], name: str) -> dict[str, dict[str, str]]:
    """The rows of one table by their first cell."""
    (table,) = [table for table in tables if table.name == name]
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_every_kind_says_what_it_must_see(recipe: Recipe) -> None:
    assert {*SEEN, "reassign"} == set(KINDS)
    for strategy in recipe.strategies:
        assert answers_seen(strategy, recipe.strategies) == seen(recipe, strategy)


def test_every_kind_is_planned(recipe: Recipe, tmp_path: Path) -> None:
    keys = {step.key: step for step in make_plan(recipe)}
    (student,) = recipe.students
    for strategy in recipe.strategies:
        step, needed = keys[names.assignments(student, strategy)], KINDS[strategy.kind].needs
        assert needed is None or step.inputs[needed] in keys
        assert {"router", "pool_rewards", "base"} & step.inputs.keys() == {needed} - {None, "rewards"}
        assert names.responses(student, strategy) in keys
    empty = Store(tmp_path / "empty")
    table = first(forecast(look_ahead(recipe, look_up(recipe, empty), empty)), "strategies")
    for strategy in recipe.strategies:
        assert table[strategy.name]["answers"].removeprefix("≤ ") == f"{ASKED[seen(recipe, strategy)]:,}", (
            strategy.name
        )


def test_every_kind_assigns_each_prompt_to_one_teacher(recipe: Recipe, store: Store) -> None:
    for strategy in recipe.strategies:
        rows = store.read_dataset(store.get(f"local/kinds-assignments-s-{strategy.name}@v1"))
        assert len(set(rows["prompt_id"])) == len(rows) == CALIBRATION + POOL
        assert set(rows["teacher"]) <= set(TEACHERS)
        if strategy.kind == "reassign":
            base = store.read_dataset(store.get(f"local/kinds-assignments-s-{strategy.base}@v1"))
            moved = ["large" if teacher == "small" else teacher for teacher in base["teacher"]]
            assert list(rows["teacher"]) == moved


def test_every_kind_is_costed_alike_by_report_and_space(recipe: Recipe, store: Store) -> None:
    manifests = manifests_of(recipe, store, look_up(recipe, store))
    table = first(summary(recipe, manifests), "cost-s")
    database = Database(open_shelf([], store))
    (student,) = recipe.students
    for strategy in recipe.strategies:
        asked = ASKED[seen(recipe, strategy)]
        cost = strategy_cost(recipe, manifests, student, strategy)
        assert cost is not None and (cost.calibration + cost.pool).requests == asked, strategy.name
        assert table[strategy.name]["total"] == f"{asked:,}"
        assignment = store.get(f"local/kinds-assignments-s-{strategy.name}@v1")
        shown = costs(database, assignment).ways["this assignment"]
        assert shown.requests == pytest.approx(asked), strategy.name


def test_what_the_plan_knows_of_an_allocation_is_what_is_assigned(
    recipe: Recipe, store: Store, tmp_path: Path
) -> None:
    """What the recipe alone decides: of a mix the expectation, of the others the exact shares."""
    manifests = manifests_of(recipe, store, look_up(recipe, store))
    (student,) = recipe.students
    for strategy in recipe.strategies:
        shares = known_shares(strategy, recipe.strategies, recipe.teachers)
        assert not shares or sum(shares.values()) == pytest.approx(1)
        stored = manifests[names.assignments(student, strategy)].metrics["allocation"]
        if shares and "mix" not in (strategy.kind, strategy.base):
            assert {name: share for name, share in stored.items() if share} == shares, strategy.name
        if strategy.name == "over-mix":
            assert shares == pytest.approx({"other": 1 / 3, "large": 2 / 3}) and not stored.get("small")


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_a_kind_does_not_read_is_refused(recipe: Recipe, kind: str) -> None:
    options = {
        **{"alpha": 0.3, "teacher": "small", "weights": {"small": 1.0}, "base": "persyn", "to_teacher": "large"},
        **{"per_prompt": 2, "escalate": 1, "budget": {"max": {"small": 0.5}}, "router": "knn"},
    }
    values = recipe.model_dump(mode="json", exclude_unset=True)
    for key in options.keys() - KINDS[kind].takes:
        strategy = {"kind": kind, "name": "x", **GIVEN.get(kind, {}), key: options[key]}
        before = [{"kind": "persyn", "name": "persyn"}]
        with pytest.raises(ValueError, match=f"strategy `x` of kind {kind} .*leave"):
            Recipe.model_validate({**values, "strategies": [*before, strategy]})


def test_two_steps_of_one_name_are_refused(recipe: Recipe) -> None:
    students = [{"name": "a", "model": "./x"}, {"name": "a-b", "model": "./x"}]
    values = {**recipe.model_dump(mode="json", exclude_unset=True), "students": students}
    values["strategies"] = [{"kind": "mix", "name": "b-c"}, {"kind": "mix", "name": "c"}]
    with pytest.raises(RecipeError, match="two different steps .* `assignments-a-b-c`.*another name"):
        make_plan(Recipe.model_validate(values))
    values = {
        **recipe.model_dump(mode="json", exclude_unset=True),
        "until": "evaluate",
        "evaluate": {"tasks": [{"name": "gsm8k"}]},
    }
    values["strategies"] = [{"kind": "mix", "name": "base"}]
    with pytest.raises(RecipeError, match="`evaluation-s-base`"):
        make_plan(Recipe.model_validate(values))
