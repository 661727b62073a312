"""Ties in the report: an oracle's allocation says how often its choice was one of several that are as good."""

from pathlib import Path

import pandas as pd

from persyn_hf.recipe.file import load_recipe
from persyn_hf.report.run_tables import allocation
from persyn_hf.store.manifest import read_manifest


def test_the_oracles_ties_are_counted(root: Path) -> None:
    recipe, example = load_recipe(root / "recipes/tiny/example.yaml"), root / "spaces/allocations/example"
    manifests = {
        path.parent.name.removeprefix("example-"): read_manifest(path, str(path)) for path in example.glob("*/v1")
    }
    rewards = example / "example-rewards-qwen-student/v1/data"
    rows = pd.concat([pd.read_parquet(path) for path in sorted(rewards.rglob("*.parquet"))])
    best = rows[rows["rank"] == 1].groupby("prompt_id").size()
    table = allocation(recipe, manifests, recipe.students[0])
    assert table.note == (
        f"{(best > 1).mean():.0%} of the measured prompts have several best teachers: there oracle takes the one with "
        "the best mean reward, and another column that differs may lose nothing"
    )
    without = recipe.model_copy(update={"strategies": recipe.strategies[:1]})
    assert allocation(without, manifests, recipe.students[0]).note == ""
