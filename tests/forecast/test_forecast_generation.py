"""`persyn plan`: what will be asked and what it will cost, against numbers worked by hand; no model is loaded."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rows import prompt

from persyn_hf.cli.main import main
from persyn_hf.core.cost import Cost, ledger
from persyn_hf.forecast.generation import forecast
from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.tables import Table
from persyn_hf.runner.fingerprint import described
from persyn_hf.runner.run import look_up
from persyn_hf.schemas import PROMPTS, RESPONSES
from persyn_hf.store.local import Store


BASE = {
    "name": "r",
    "until": "generate",
    "teachers": [
        {"name": "small", "model": "org/small", "params_b": 1, "price": {"prompt": 1, "completion": 2}},
        {"name": "long", "model": "org/long", "params_b": 8, "long_cot": True, "price": {"completion": 5}},
        {"name": "large", "model": "org/large", "params_b": 72, "price": {"completion": 10}},
    ],
    "students": [{"name": "s"}],
    "strategies": ["persyn"],
    "prompts": {"dataset": "org/prompts", "calibration": 10, "dev": 5, "pool": 90},
    "generate": {"max_tokens": 100},
}


def recipe(tmp_path: Path, **changes: object) -> Recipe:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**BASE, **changes}))
    return load_recipe(tmp_path / "r.yaml")


def plan(found: Recipe, store: Path) -> dict[str, Table]:
    return {table.name: table for table in forecast(look_ahead(found, look_up(found, Store(store)), Store(store)))}


def rows(table: Table) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_what_each_teacher_is_asked(tmp_path: Path, store: Path) -> None:
    """15 labelled prompts and a third of the 90 for each; 4 samples, but 2 of the Long-CoT and the 72B teacher."""
    table = plan(recipe(tmp_path), store)["teachers"]
    found = rows(table)
    assert table.title.endswith("(10 calibration, 5 dev, 90 pool prompts)")
    assert [row["samples"] for row in found.values()] == ["4", "2", "2", ""]
    assert [row["answers"] for row in found.values()] == ["180", "90", "90", "360"]
    assert [row["tokens out"] for row in found.values()] == ["≤ 18.0K", "≤ 9.00K", "≤ 9.00K", "≤ 36.0K"]
    assert [row["compute"] for row in found.values()] == [
        "≤ 36.0 TFLOPs",  # 2 x 1e9 x 18,000
        "≤ 144 TFLOPs",
        "≤ 1.30 PFLOPs",  # 2 x 72e9 x 9,000
        "≤ 1.48 PFLOPs",
    ]
    assert [row["money"] for row in found.values()] == ["≤ 0.04", "≤ 0.04", "≤ 0.09", "≤ 0.17"]
    assert table.note == (
        "calibration 80, dev 40, pool 240 answers; "  # 10, 5 and a third of 90 prompts, x 8
        "≤: no finished step has an answer, so `generate.max_tokens` bounds it, prompt tokens not counted; "
        "what of it the journal holds is known once `prompts` has run: --set until=prompts"
    )
    assert "tokens in" not in table.header and "time" not in table.header, "nothing is known of them"


def test_each_strategy_alone_against_generate_then_select(tmp_path: Path, store: Path) -> None:
    """Every teacher on 10 calibration prompts is 80 answers, on all 100 it is 800."""
    strategies = [
        "persyn",
        {"kind": "persyn", "name": "two", "per_prompt": 2},
        {"kind": "persyn", "name": "more", "escalate": 2},
        "oracle",
        "car",
        {"kind": "strong", "teacher": "small"},
        {"kind": "strong", "name": "largest"},
        {"kind": "mix", "weights": {"small": 1, "large": 3}},
        {"kind": "mix", "name": "even"},
    ]
    table = plan(recipe(tmp_path, strategies=strategies), store)["strategies"]
    found = rows(table)
    assert {name: row["answers"] for name, row in found.items()} == {
        "persyn": "320",  # 80 + 90 x (4 + 2 + 2) / 3
        "two": "560",  # 80 + 180 x 8 / 3
        "more": "≤ 800",  # 80 + 90 x 8 / 3 + 2 more each
        "oracle": "800",
        "car": "320",
        "strong": "400",  # 100 x 4: it looks at no answer
        "largest": "200",
        "mix": "250",  # 100 x (1/4 x 4 + 3/4 x 2)
        "even": "267",
        "generate-then-select": "800",
    }
    fewer = [row["fewer"].removesuffix("x") for row in found.values()]
    assert fewer == ["2.5", "1.4", "1.0", "1.0", "2.5", "2.0", "4.0", "3.2", "3.0", "1.0"]
    assert found["largest"]["money"] == "≤ 0.20" and found["generate-then-select"]["money"] == "≤ 0.38"
    assert table.note == "an even split of the pool is assumed for persyn, two, more, car"


def test_only_what_escalates_is_marked_in_answers(tmp_path: Path, store: Path) -> None:
    """15 labelled prompts for all; of the pool a third and two more thirds, which is all of it."""
    found = recipe(tmp_path, strategies=[{"kind": "persyn", "escalate": 2}])
    assert rows(plan(found, store)["teachers"])["small"]["answers"] == "≤ 420"


def test_strategies_and_students_share_cells(tmp_path: Path, store: Path) -> None:
    """Four strategies that name the same teacher ask it for the 90 prompts once, not four times."""
    strong = [{"kind": "strong", "teacher": "large"}, {"kind": "strong", "name": "again", "teacher": "large"}]
    two = [{"name": "s"}, {"name": "t"}]
    tables = plan(recipe(tmp_path, strategies=strong, students=two), store)
    answers = {name: row["answers"] for name, row in rows(tables["teachers"]).items()}
    assert answers == {"small": "60", "long": "30", "large": "210", "total": "300"}
    assert "cells that strategies share are asked once" in tables["teachers"].note
    assert list(rows(tables["strategies"])) == [
        *("strong (s)", "again (s)", "strong (t)", "again (t)"),
        "generate-then-select",
    ]
    oracle = plan(recipe(tmp_path, strategies=["oracle", "persyn"]), store)["teachers"]
    assert rows(oracle)["total"]["answers"] == "840", "105 prompts x 8, whatever the other strategies choose"
    assert "share" not in oracle.note


def test_fewer_samples_may_do_where_a_correct_one_ends_it(tmp_path: Path, store: Path) -> None:
    generate = {"max_tokens": 100, "stop_when_correct": True}
    assert rows(plan(recipe(tmp_path, generate=generate), store)["teachers"])["total"]["answers"] == "≤ 360"
    greedy = {"max_tokens": 100, "temperature": 0}
    assert rows(plan(recipe(tmp_path, generate=greedy), store)["teachers"])["total"]["answers"] == "135"


def test_a_price_without_what_it_needs_is_unknown(tmp_path: Path, store: Path) -> None:
    teachers = [dict(teacher) for teacher in BASE["teachers"]]
    teachers[0]["price"], teachers[1]["params_b"] = {"gpu_hour": 2}, None
    table = plan(recipe(tmp_path, teachers=teachers), store)["teachers"]
    found = rows(table)
    assert [row["money"] for row in found.values()] == ["–", "≤ 0.04", "≤ 0.09", "≤ 0.14 + ?"]
    assert [row["compute"] for row in found.values()] == ["≤ 36.0 TFLOPs", "–", "≤ 1.30 PFLOPs", "≤ 1.33 PFLOPs + ?"]
    for teacher in teachers:
        del teacher["price"]
    assert "money" not in plan(recipe(tmp_path, teachers=teachers), store)["teachers"].header


@pytest.mark.parametrize(
    ("prompts", "title"),
    [
        ({"dataset": "org/p", "pool": 7}, "(2,500 calibration, 1,000 dev, 7 pool prompts)"),
        ({"dataset": "org/p", "calibration": 5, "dev": 0, "pool": 7}, "(5 calibration, 7 pool prompts)"),
    ],
)
def test_sizes_that_the_recipe_leaves_out_are_the_papers(
    prompts: dict[str, object], title: str, tmp_path: Path, store: Path
) -> None:
    assert plan(recipe(tmp_path, prompts=prompts), store)["teachers"].title.endswith(title)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {"prompts": {"dataset": "org/p"}},
            "what will be generated is known once `prompts` has run: persyn run RECIPE --set until=prompts; or once "
            "`prompts.calibration`, `dev` and `pool` are set",
        ),
        (
            {"prompts": {"dataset": "org/p", "pool": 7, "columns": {"split": "split"}}},
            "what will be generated is known once `prompts` has run: persyn run RECIPE --set until=prompts; or once "
            "`prompts.calibration`, `dev` and `pool` are set",
        ),
        (
            {"until": "prompts"},
            "no teacher is asked: the responses are imported or pinned, or the recipe ends before",
        ),
    ],
)
def test_only_steps_where_there_is_no_more_to_say(
    changes: dict[str, object], note: str, tmp_path: Path, store: Path
) -> None:
    tables = plan(recipe(tmp_path, **changes), store)
    assert list(tables) == ["steps"] and tables["steps"].note == note


def put_answers(
    store: Path, found: Recipe, teacher: str, repo: str = "me/earlier", number: int = 20, **changes: object
) -> None:
    """An artifact with answers of 50 + 60 tokens and 3 seconds each, on 2 GPUs."""
    cost = Cost(requests=1, prompt_tokens=50, completion_tokens=60, seconds=3, gpu_seconds=6, flops=2.2e11, money=None)
    (model,) = (described(t) for t in found.teachers if t.name == teacher)
    fields = {
        "stage": "generate",
        "settings": {"max_tokens": 100},
        "teachers": [{**model, "name": "alias"}],
        "metrics": {"teachers": {"alias": {"truncated": 0.0, "errors": 0.0}}},
        "cost": ledger({"alias": cost * number}, {"alias": number}),
    }
    data = RESPONSES.dataset([])
    Store(store).put(repo=repo, schema=RESPONSES, data=data, fields={**fields, **changes})


def test_stored_answers_of_the_same_model_give_the_means(tmp_path: Path, store: Path) -> None:
    """180 answers at 50 + 60 tokens: 9,000 at 1 and 10,800 at 2 a million; 3 s on 2 GPUs each are 18 minutes."""
    found = recipe(tmp_path, strategies=["persyn", {"kind": "strong", "teacher": "small"}])
    put_answers(store, found, "small")
    assert rows(plan(found, store)["strategies"])["strong"]["tokens out"] == "24.0K", "400 x 60: no bound in it"
    found = recipe(tmp_path)
    table = plan(found, store)["teachers"]
    small, long = rows(table)["small"], rows(table)["long"]
    assert {key: small[key] for key in ("answers", "tokens in", "tokens out", "time", "GPU time", "money")} == {
        "answers": "180",
        "tokens in": "9.00K",
        "tokens out": "10.8K",
        "time": "9.00 min",
        "GPU time": "18.0 min",
        "money": "0.03",
    }
    assert (long["tokens in"], long["tokens out"], long["GPU time"]) == ("–", "≤ 9.00K", "–")
    assert rows(table)["total"]["tokens out"] == "≤ 28.8K"
    assert table.note.startswith(
        "calibration 80, dev 40, pool 240 answers; tokens and time: means over 20 answers in me/earlier; "
        "≤: no finished step has an answer of large, long"
    )


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"settings": {"max_tokens": 50}}, True),
        (
            {
                "settings": {"max_tokens": 50},
                "metrics": {"teachers": {"alias": {"truncated": 0.1, "errors": 0.0}}},
            },
            False,
        ),
        ({"metrics": {"teachers": {"alias": {"truncated": 0.1, "errors": 0.0}}}}, True),
        ({"teachers": [{"name": "alias", "model": "org/other", "revision": None}]}, False),
        ({"teachers": [{"name": "alias", "model": "org/small", "revision": "0123"}]}, False),
        *(
            ({"teachers": [{"name": "alias", "model": "org/small", "revision": None, **asked_as}]}, False)
            for asked_as in ({"temperature": 1.0}, {"chat_template_kwargs": {"enable_thinking": True}})
        ),
        ({"cost": {}}, False),
    ],
)
def test_answers_that_say_nothing_of_these_are_not_used(
    changes: dict[str, object], used: bool, tmp_path: Path, store: Path
) -> None:
    found = recipe(tmp_path)
    put_answers(store, found, "small", **changes)
    assert rows(plan(found, store)["teachers"])["small"]["tokens out"] == ("10.8K" if used else "≤ 18.0K")


def test_the_largest_artifact_gives_the_means(tmp_path: Path, store: Path) -> None:
    found = recipe(tmp_path)
    for repo, number in (("me/a", 10), ("me/b", 30), ("me/c", 20)):
        put_answers(store, found, "small", repo, number)
    put_answers(store, found, "long", "me/d", 7)
    note = plan(found, store)["teachers"].note
    assert "; tokens and time: means over 30 answers in me/b, 7 answers in me/d; " in note


def test_what_is_done_is_not_to_do(tmp_path: Path, store: Path) -> None:
    """The steps of each stage are counted by their state, or listed one by one."""
    found = recipe(tmp_path, strategies=["oracle", "persyn"])
    outlook = look_ahead(found, look_up(found, Store(store)), Store(store))
    steps = [(key, stage, "done" if key == "responses-pool" else state) for key, stage, state in outlook.steps]
    folded, whole = (forecast(replace(outlook, steps=steps), whole=whole)[-1] for whole in (False, True))
    assert rows(folded)["generate"] == {"stage": "generate", "steps": "4", "done": "1", "partly done": "0", "new": "3"}
    assert rows(whole)["responses-pool"] == {"step": "responses-pool", "stage": "generate", "state": "done"}
    assert sum(int(row["steps"]) for row in rows(folded).values()) == len(whole.rows) == len(steps)


def test_pinned_prompts_and_responses_count_as_theirs(tmp_path: Path, store: Path) -> None:
    """Prompts give the sizes; with the answers to calibration and dev pinned too, only the 30 of the pool are left."""
    sizes = {"calibration": 4, "dev": 2, "pool": 30}
    fields = {"stage": "prompts", "counts": {f"rows_{split}": size for split, size in sizes.items()}}
    data = [prompt(f"{split} {n}", split=split) for split, size in sizes.items() for n in range(size)]
    Store(store).put(repo="me/prompts", schema=PROMPTS, data=PROMPTS.dataset(data), fields=fields)
    found = recipe(tmp_path, inputs={"prompts": "me/prompts@v1"})
    table = plan(found, store)["teachers"]
    assert table.title.endswith("(4 calibration, 2 dev, 30 pool prompts)")
    assert rows(table)["small"]["answers"] == "64", "4 x (6 + 10)"
    put_answers(store, found, "small", "me/pinned")
    put_answers(store, found, "small", "me/more", 50)
    found = recipe(tmp_path, inputs={"prompts": "me/prompts@v1", "responses": "me/pinned@v1"})
    table = plan(found, store)["teachers"]
    assert rows(table)["small"]["answers"] == "40"
    assert table.note.startswith("tokens and time: means over 20 answers in me/pinned")
    paid = rows(plan(found, store)["to_pay"])
    assert (paid["total"]["certain"], paid["total"]["at most"]) == ("0", "136"), (
        "34 prompts of the dearest teacher, 4 each"
    )


def test_the_plan_of_the_recipes_fits_a_page_and_loads_no_model(root: Path, store: Path) -> None:
    """In a process of its own: what is imported stays imported."""
    code = (
        "import sys; from persyn_hf.cli.main import main\n"
        f"recipe, store = {str(root / 'recipes/real/gsm8k.yaml')!r}, {str(store)!r}\n"
        "assert main(['plan', recipe, '--no-checks', '--store', store]) == 0\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'ray', 'datasets'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    lines = shown.splitlines()
    assert lines[-1] == "[]"
    assert max(map(len, lines)) <= 120
    (persyn,) = (line.split() for line in lines if line.startswith("  persyn "))
    assert persyn == ["persyn", "1,800", "≤", "216K", "≤", "135", "GFLOPs", "2.3x"]  # 7 x 200 + 400, 120 tokens each


def some_rows(columns: dict[str, str]) -> list[dict[str, str]]:
    """Rows with the columns that a recipe names, enough for the splits of each."""
    splits = ("calibration", "dev", "pool")
    return [
        {name: splits[n % 3] if key == "split" else f"{n + 2}" for key, name in columns.items()} for n in range(6000)
    ]


@pytest.mark.heavy
def test_every_recipe_can_be_planned(
    root: Path, recipes: list[Path], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in recipes:
        sets = []
        for section, settings in load_recipe(path):
            if isinstance(settings, dict) and "path" in settings and not Path(settings["path"]).exists():
                sample = store.parent / f"{section}.jsonl"
                sample.write_text("".join(json.dumps(row) + "\n" for row in some_rows(settings["columns"])))
                sets += ["--set", f"{section}.path={sample}"]
        assert main(["plan", str(path), "--no-checks", "--store", str(store), *sets]) == 0, path
        assert "Steps of" in capsys.readouterr().out
