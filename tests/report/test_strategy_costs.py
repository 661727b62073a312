"""Cost tables of a run: a real one, whose rows are counted again here, and manifests worked by hand."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from persyn_hf.backends.journal import Spent, read_spent
from persyn_hf.cli.main import main
from persyn_hf.core.cost import Cost, ledger
from persyn_hf.forecast.generation import forecast
from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.run_tables import summary
from persyn_hf.report.strategy_costs import paid
from persyn_hf.report.tables import Table
from persyn_hf.runner.run import look_up
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest


def rows(table: Table) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def number(text: str) -> float:
    """1.48K is 1480."""
    return float(text.rstrip("KM").replace(",", "")) * {"K": 1e3, "M": 1e6}.get(text[-1], 1)


@pytest.fixture(scope="module")
def two(heavy: None, tmp_path_factory: pytest.TempPathFactory, root: Path, zoo: Path) -> tuple[Path, Path]:
    """A recipe of two teachers, run as far as its answers, and its store."""
    folder = tmp_path_factory.mktemp("two")
    recipe = {
        "name": "two",
        "until": "generate",
        "teachers": [
            {"name": "gen", "model": str(zoo / "qwen-gen"), "price": {"prompt": 1000, "completion": 3000}},
            {"name": "terse", "model": str(zoo / "gemma-terse"), "params_b": 0.000144, "price": {"gpu_hour": 5}},
        ],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "strategies": ["persyn", "mix", {"kind": "strong", "teacher": "gen"}],
        "prompts": {
            "path": str(root / "recipes/tiny/prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            **{"calibration": 6, "dev": 2, "pool": 6, "limit": 20},
        },
        "generate": {"samples": 2, "max_tokens": 60},
        "train_router": {"kind": "global_best"},
    }
    (folder / "two.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", str(folder / "two.yaml"), "--store", str(folder / "store")]) == 0
    return folder / "two.yaml", folder / "store"


def stored(path: Path, store: Path, *overrides: str) -> tuple[Recipe, dict[str, Manifest], dict[str, Table]]:
    recipe = load_recipe(path, list(overrides))
    done = look_up(recipe, Store(store))
    manifests = {item.step.key: item.stored.manifest for item in done if item.stored is not None}
    return recipe, manifests, {table.name: table for table in forecast(look_ahead(recipe, done, Store(store)))}


def test_a_real_ledger_is_what_the_rows_and_the_journal_say(two: tuple[Path, Path]) -> None:
    recipe, manifests, _ = stored(*two)
    answers: dict[str, dict[tuple[str, int], tuple[int, int]]] = {"gen": {}, "terse": {}}
    for key, manifest in manifests.items():
        if manifest.kind == "responses":
            for row in Store(two[1]).read_dataset(Store(two[1]).get(f"local/two-{key}@v1")):
                cell = row["prompt_id"], row["sample_index"]
                answers[row["teacher"]][cell] = (row["num_prompt_tokens"], row["num_tokens"])
    spent = read_spent(Store(two[1]).state_dir / "journal.sqlite", "local/two")
    for found in (paid(recipe, manifests, spent), paid(recipe, manifests, {})):
        assert list(found) == ["gen", "terse"]
        for name, line in found.items():
            assert line.cost.requests == len(answers[name]) > 0
            assert line.errors == 0
    by_journal = paid(recipe, manifests, spent)
    for name, cells in answers.items():
        tokens_in, tokens_out = map(sum, zip(*cells.values(), strict=True))
        cost = by_journal[name].cost
        assert (cost.prompt_tokens, cost.completion_tokens) == (tokens_in, tokens_out)
        assert cost.money == (pytest.approx(tokens_in / 1e3 + 3 * tokens_out / 1e3) if name == "gen" else 0)
    table = summary(recipe, manifests, spent)[-1]
    assert table.name == "ledger" and list(rows(table)) == ["gen", "terse", "total"]
    total = sum(line.cost.completion_tokens for line in by_journal.values())
    assert number(rows(table)["total"]["tokens out"]) == pytest.approx(total, rel=0.01)


def test_a_real_strategy_against_generate_then_select_and_car(two: tuple[Path, Path]) -> None:
    recipe, manifests, _ = stored(*two)
    tables = {table.name: table for table in summary(recipe, manifests)}
    counted = rows(tables["cost-s"])
    assert [counted["persyn"][key] for key in ("calibration", "pool", "total", "fewer")] == ["24", "12", "36", "1.3x"]
    assert [counted["strong"][key] for key in ("calibration", "pool", "total", "fewer")] == ["12", "12", "24", "2.0x"]
    spending = rows(tables["spending-s"])
    assert list(spending) == ["persyn", "mix", "strong", "generate-then-select", "CAR, any teacher"]
    matrix, own = manifests["responses"].cost["teachers"], manifests["responses-s-strong"].cost["teachers"]
    assert number(spending["strong"]["tokens out"]) == pytest.approx(own["gen"]["completion_tokens"], rel=0.01)
    labelled = sum(line["completion_tokens"] * 12 / 16 for line in matrix.values())  # 6 of 8 prompts, dev is left out
    everything = number(spending["generate-then-select"]["tokens out"])
    assert everything == pytest.approx(2 * labelled, rel=0.01), "6 more prompts at the mean of the first 6"
    assert number(spending["CAR, any teacher"]["tokens out"]) == pytest.approx(1.5 * labelled, rel=0.01)


def test_the_plan_of_a_run_that_is_done_and_of_one_more_strategy(two: tuple[Path, Path]) -> None:
    _, manifests, tables = stored(*two)
    assert "to_pay" not in tables
    assert {(row["partly done"], row["new"]) for row in rows(tables["steps"]).values()} == {("0", "0")}
    assert "tokens and time: means over 32 answers in local/two-responses; " in tables["teachers"].note
    shares = manifests["assignments-s-mix"].metrics["allocation"]
    lines = manifests["responses"].cost["teachers"]
    expected = 12 * 2 * sum(share * lines[name]["completion_tokens"] / 16 for name, share in shares.items())
    assert number(rows(tables["strategies"])["mix"]["tokens out"]) == pytest.approx(expected, rel=0.01)
    more = "strategies=[persyn, mix, {kind: strong, teacher: gen}, {kind: strong, name: other, teacher: terse}]"
    recipe, _, tables = stored(*two, more)
    store = Store(two[1])
    chosen = [
        row for name in ("persyn", "mix") for row in store.read_dataset(store.get(f"local/two-assignments-s-{name}"))
    ]
    there = {row["prompt_id"] for row in chosen if (row["split"], row["teacher"]) == ("pool", "terse")}
    to_pay = rows(tables["to_pay"])
    assert {name: row["to pay"] for name, row in to_pay.items()} == dict.fromkeys(
        ("terse", "total"), str(2 * (6 - len(there)))
    ) | {"gen": "0"}
    assert to_pay["total"]["in the journal"] == str(2 * (6 + len(there)))
    assert "share" in tables["teachers"].note


def test_a_step_that_was_cut_pays_for_what_the_journal_lacks(two: tuple[Path, Path]) -> None:
    recipe, store = load_recipe(two[0]), Store(two[1])
    done = [
        replace(item, stored=None, started=True) if item.step.key == "responses" else item
        for item in look_up(recipe, store)
    ]
    tables = {table.name: table for table in forecast(look_ahead(recipe, done, store))}
    assert rows(tables["steps"])["generate"]["partly done"] == "1"
    total = rows(tables["to_pay"])["total"]
    assert (total["in the journal"], total["to pay"]) == ("32", "0"), "8 labelled prompts, 2 teachers, 2 samples"


def manifest(key: str, splits: dict[str, dict[str, int]], **changes: Any) -> Manifest:
    """Answers of 10 + 100 tokens and 2 seconds, as many as `splits` says; half of them new, none has failed."""
    number = {name: sum(rows.values()) for name, rows in splits.items()}
    costs = {
        name: Cost(requests=n, prompt_tokens=10 * n, completion_tokens=100 * n, seconds=2 * n, gpu_seconds=8 * n)
        for name, n in number.items()
    }
    fields = {
        "kind": "responses",
        "stage": "generate",
        "schema_version": 1,
        "repo": f"me/{key}",
        "rows": splits,
        "cost": ledger(costs, {name: n // 2 for name, n in number.items()}),
        "metrics": {"teachers": {name: {"truncated": 0.5, "errors": 0.25} for name in number}},
    }
    return Manifest(**{**fields, **changes})


@pytest.fixture
def priced(tmp_path: Path) -> Recipe:
    recipe = {
        "name": "r",
        "teachers": [{"name": "a", "price": {"completion": 10_000, "gpu_hour": 1}}, {"name": "b"}],
        "students": [{"name": "s"}],
        "strategies": ["persyn", "oracle", "car"],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    return load_recipe(tmp_path / "r.yaml")


def test_the_journal_counts_before_the_manifests(priced: Recipe) -> None:
    """10 new answers of `a` at 100 tokens and 8 GPU-seconds; the journal knows of 30, 6 cut and 3 failed."""
    manifests = {"responses": manifest("responses", {"a": {"calibration": 20}, "b": {"calibration": 20}})}
    found = paid(priced, manifests, {})
    assert found["a"].cost.requests == 10 and found["a"].cost.completion_tokens == 1000
    assert found["a"].cost.money == pytest.approx(1000 * 0.01 + 80 / 3600) and found["b"].cost.money == 0
    assert (found["a"].truncated, found["a"].errors) == (0.5, 0.25)
    spent = Spent(
        requests=30,
        prompt_tokens=300,
        completion_tokens=3000,
        seconds=90.0,
        truncated=6,
        errors=Counter({"time-out": 2, "refused": 1}),
    )
    found = paid(priced, manifests, {"a": spent, "gone": spent})
    assert list(found) == ["a", "b"]
    assert found["a"].cost.gpu_seconds == 360, "4 GPUs, as in the artifact"
    assert found["a"].cost.money == pytest.approx(3000 * 0.01 + 360 / 3600)
    assert (found["a"].truncated, found["a"].errors) == (0.2, 0.1)


def test_an_answered_pool_is_not_estimated(priced: Recipe) -> None:
    """The oracle had every teacher answer 6 pool prompts; a CAR of the recipe's own needs no estimate beside it."""
    counts = {"rows_calibration": 4, "rows_pool": 6}
    pool = manifest("pool", {"a": {"pool": 6}, "b": {"pool": 6}})
    pool.cost["teachers"]["b"]["completion_tokens"] = 6000
    own = {"a": {"calibration": 4, "pool": 6}}
    manifests = {
        "prompts": Manifest(kind="prompts", stage="prompts", schema_version=1, repo="me/p", counts=counts),
        "responses": manifest("responses", {t: {"calibration": 4, "dev": 2} for t in "ab"}),
        "responses-pool": pool,
        **{f"responses-s-{name}": manifest(name, own) for name in ("persyn", "oracle", "car")},
    }
    (spending,) = (table for table in summary(priced, manifests) if table.name == "spending-s")
    assert {name: row["tokens out"] for name, row in rows(spending).items()} == {
        "persyn": "1.40K",  # 2 x 4 x 100 + 6 x 100
        "oracle": "7.40K",  # 2 x 4 x 100 + 600 + 6000
        "car": "1.40K",
        "generate-then-select": "7.40K",
    }
    assert "time" not in spending.header and spending.header[3] == "GPU time"


def test_imported_responses_are_counted_and_no_more(priced: Recipe) -> None:
    counts = {"rows_calibration": 4, "rows_pool": 6}
    manifests = {
        "prompts": Manifest(kind="prompts", stage="prompts", schema_version=1, repo="me/p", counts=counts),
        "responses": manifest("r", {t: {"calibration": 4} for t in "ab"}, cost={"teachers": {}}),
        "responses-s-persyn": manifest("p", {"b": {"calibration": 4, "pool": 6}}, cost={}),
    }
    tables = {table.name: table for table in summary(priced, manifests)}
    assert list(tables) == ["cost-s"]
    assert tables["cost-s"].rows == [["persyn", "8", "6", "14", "20", "1.4x"]]
