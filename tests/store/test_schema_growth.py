"""Schemas grow by nullable columns: what was stored under an older version is read with nulls in their place."""

from dataclasses import replace

import pytest
import yaml
from datasets import Dataset
from rich.console import Console
from store_samples import DATASETS, dataset_of, fields, rows_of

from persyn_hf.contract import Schema
from persyn_hf.errors import InputError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.run import run_recipe
from persyn_hf.schemas import PROMPTS, REWARDS


NULLABLE = [(schema, column.name) for schema in DATASETS for column in schema.columns if column.nullable]
REQUIRED = [
    (schema, column.name)
    for schema in DATASETS
    for column in schema.columns
    if not column.nullable and column.name not in (schema.split_by, schema.config_by)  # these lay out the files
]


def older(schema: Schema, without: str) -> Schema:
    """The schema as it may have been before it got a column."""
    columns = tuple(column for column in schema.columns if column.name != without)
    return replace(schema, version=schema.version - 1, columns=columns)


@pytest.mark.parametrize(("schema", "name"), NULLABLE, ids=lambda value: getattr(value, "kind", value))
def test_a_nullable_column_that_an_older_artifact_lacks_is_null(store, schema, name):
    before = older(schema, name)
    rows = rows_of(before, 40)
    stored = store.put(repo="me/x", schema=before, data=dataset_of(before, rows), fields=fields())
    back = store.read_dataset(stored)
    schema.check(back, "what was read")
    assert back.column_names == schema.names
    assert back.to_list() == dataset_of(schema, [{**row, name: None} for row in rows]).to_list()


@pytest.mark.parametrize(("schema", "name"), REQUIRED, ids=lambda value: getattr(value, "kind", value))
def test_a_column_that_may_not_be_null_is_not_made_up(store, schema, name):
    before = older(schema, name)
    stored = store.put(repo="me/x", schema=before, data=dataset_of(before, rows_of(before, 3)), fields=fields())
    with pytest.raises(InputError, match=f"columns .*'{name}'.* are missing"):
        schema.check(store.read_dataset(stored), stored.ref)


def test_an_artifact_of_the_present_version_must_be_whole(store):
    today = replace(older(REWARDS, "sum_min_rank"), version=REWARDS.version)
    stored = store.put(repo="me/x", schema=today, data=dataset_of(today, rows_of(today, 3)), fields=fields())
    with pytest.raises(InputError, match="sum_min_rank"):
        REWARDS.check(store.read_dataset(stored), stored.ref)


def test_rewards_of_an_older_version_train_a_router(store, tmp_path):
    before = older(REWARDS, "sum_min_rank")
    prompts, rewards = [], []
    for number in range(80):
        split = "dev" if number < 20 else "calibration"
        topic = ("add", "rhyme")[number % 2]
        asked = {"messages": [{"role": "user", "content": f"{topic} {number}"}], "source": "t", "split": split}
        prompts.append({**dict.fromkeys(PROMPTS.names), "prompt_id": f"{number:02d}", **asked})
        for place, teacher in enumerate(("adds", "rhymes")):
            reward = float(place == number % 2)
            measured = {"quality_raw": reward, "quality_reward": reward, "reward": reward, "truncated": False}
            cell = {"prompt_id": f"{number:02d}", "teacher": teacher, "split": split}
            rewards.append({**dict.fromkeys(before.names), **cell, **measured})
    for repo, schema, rows in (("lab/prompts", PROMPTS, prompts), ("lab/rewards", before, rewards)):
        data = Dataset.from_list(rows, features=schema.features)
        store.put(repo=repo, schema=schema, data=data, fields=fields(teachers=[], student=None))
    recipe = {
        "name": "theirs",
        "teachers": [{"name": "adds"}, {"name": "rhymes"}],
        "students": [{"name": "s"}],
        "strategies": ["persyn"],
        "inputs": {"prompts": "lab/prompts@v1", "rewards-s": "lab/rewards@v1"},
        "prompts": {"dataset": "lab/source"},  # neither is read: what comes of it is pinned
        "generate": {"engine": "import", "dataset": "lab/source"},
        "score": {"quality": "column", "learnability": "none", "alpha": 0},
        "train_router": {"kind": "ridge"},
        "until": "train_router",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = run_recipe(load_recipe(path), store, Console(quiet=True))
    (trained,) = [item.stored for item in done if item.step.stage == "train_router"]
    assert trained.manifest.metrics["router"]["hit_at_1"]["value"] == 1.0
