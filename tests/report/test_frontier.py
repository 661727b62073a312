"""The frontier of a budget, from the recipe's plan to table, figure and card."""

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.figures import write_figures
from persyn_hf.report.frontier import frontier_table
from persyn_hf.report.run_tables import summary
from persyn_hf.runner.plan import make_plan
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.manifest import Manifest


def recipe(**assign) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "until": "assign",
            "teachers": [{"name": "big", "params_b": 70}, {"name": "small", "params_b": 7}],
            "students": [{"name": "s"}],
            "strategies": ["persyn", {"kind": "persyn", "budget": {"cost": "flops", "total": 1e15}}, "mix"],
            "prompts": {"path": "/dev/null", "columns": {"prompt": "q"}},
            "generate": {"engine": "import", "path": "/dev/null"},
            "train_router": {"kind": "ridge"},
            "assign": assign,
        }
    )


def manifest() -> Manifest:
    budget = {"prompts": 10, "cost": 45.0, "predicted_reward": 0.6, "without_budget": 0.8, "gap": 0.0, "price": 0.1}
    points = {"1": {"cost": 1.0, "reward": 0.2, "price": 0.3}, "9": {"cost": 9.0, "reward": 0.8, "price": 0.0}}
    return Manifest(
        repo="local/r-assignments-s-persyn-budget",
        kind="assignments",
        schema_version=2,
        stage="assign",
        settings={"budget": {"cost": "flops", "total": 1e15}},
        seed=0,
        fingerprint="0" * 64,
        rows={"default": {"pool": 10}},
        files={},
        metrics={"allocation": {"big": 0.5, "small": 0.5}, "budget": budget, "frontier": points},
    )


def test_table_figure_and_card(tmp_path):
    manifests = {"assignments-s-persyn-budget": manifest()}
    table = frontier_table(recipe(), manifests, recipe().students[0])
    assert table.rows == [
        ["persyn-budget", "", "1 FLOPs", "0.200", "0.3"],
        ["persyn-budget", "", "9 FLOPs", "0.800", "0"],
        ["persyn-budget", "chosen", "4.5 FLOPs", "0.600", "0.1"],
    ]
    assert "frontier-s" in [found.name for found in summary(recipe(), manifests)]
    drawn = {path.name for path in write_figures(recipe(), manifests, tmp_path)}
    assert {"frontier-s-persyn-budget.png", "frontier-s-persyn-budget.svg"} <= drawn
    card = render_card(manifest(), "v1")
    assert "### frontier" in card and "`budget.predicted_reward`" in card or "`predicted_reward`" in card


def test_without_a_budget_there_is_none(tmp_path):
    assert frontier_table(recipe(), {}, recipe().students[0]).rows == []


def test_the_plan_gives_a_budget_the_answers_to_reckon_with():
    steps = {step.key: step for step in make_plan(recipe())}
    assert steps["assignments-s-persyn-budget"].inputs["calibration"] == "responses"
    assert "calibration" not in steps["assignments-s-persyn"].inputs
    everywhere = {step.key: step for step in make_plan(recipe(budget={"max": {"big": 0.5}}))}
    assert everywhere["assignments-s-persyn"].settings.budget.max == {"big": 0.5}
    assert everywhere["assignments-s-persyn-budget"].settings.budget.cost == "flops", "its own goes first"
    assert everywhere["assignments-s-mix"].settings.budget is None, "no router, no budget"
