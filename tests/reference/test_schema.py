"""The JSON Schema accepts every recipe of the repository, and refuses what `persyn validate` refuses key by key."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from persyn_hf.recipe.recipe import STAGES
from persyn_hf.recipe.schema_file import FILE, MODELINE, read_schema, schema_line
from persyn_hf.recipe.yaml_text import read_yaml
from persyn_hf.reference.__main__ import reference


SCHEMA = Draft202012Validator(read_schema())

RECIPE: dict[str, Any] = {
    "name": "study",
    "teachers": [{"name": "a", "model": "lab/a", "params_b": 7}, {"name": "b", "server": {"urls": ["http://h:1/v1"]}}],
    "students": [{"name": "s"}],
    "strategies": ["persyn", {"kind": "mix", "weights": {"a": 1, "b": 0.5}}],
    "prompts": {"path": "questions.jsonl", "columns": {"prompt": ["context", "question"]}},
    "generate": {"rerun": "errors", "executor": None, "think_tags": [["<a>", "</a>"]]},
    "train_router": {"kind": "auto", "candidates": ["knn", {"kind": "llm", "method": "frozen"}]},
    "evaluate": {"tasks": [{"name": "gsm8k"}]},
}

WRONG = {
    "alpah": 1,
    "seed": -1,
    "name": "a b",
    "until": "scoring",
    "teachers": [{"name": "a", "modle": "lab/a"}, {"name": "b"}],
    "students": [{"model": "lab/s"}],
    "strategies": ["persin"],
    "calibration": {"share": 1},
    "assign": {"kind": "all"},  # the strategies decide on it
    "generate": {"vllm": {"gpus": 2}},
    "score": {"alpha": "0.4"},
    "train_router": {"candidates": [{"backbone": "lab/small"}]},
    "mix": {"keep_incorrect": "yes"},
    "evaluate": {"tasks": [{"limit": 3}]},
}


def faults(values: Any) -> list[str]:
    return [fault.message for fault in SCHEMA.iter_errors(values)]


def files(root: Path) -> list[Path]:
    """Recipes and their parts: all YAML under recipes/ but the configs of accelerate and the rubrics of judges."""
    return [path for path in (root / "recipes").rglob("*.yaml") if path.parent.name not in ("accelerate", "judges")]


def test_what_is_made_from_the_code_is_as_the_code_makes_it(root: Path) -> None:
    stale = [str(path) for path, text in reference(root).items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run `make reference`: {stale}"


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(FILE.read_text(encoding="utf-8")))


def test_every_recipe_and_every_part_is_accepted(root: Path) -> None:
    assert len(files(root)) > 50
    for path in files(root):
        assert not faults(read_yaml(path.read_text(encoding="utf-8"), path.name)), path


def test_a_recipe_with_a_bit_of_everything_is_accepted() -> None:
    assert faults(RECIPE) == []


@pytest.mark.parametrize("key", WRONG)
def test_one_wrong_key_or_value_is_refused(key: str) -> None:
    assert len(faults(RECIPE | {key: WRONG[key]})) == 1


@pytest.mark.parametrize("section", STAGES)
def test_unknown_keys_are_refused_in_every_section(section: str) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe.setdefault(section, {})["no_such_key"] = 1
    assert faults(recipe) == ["Additional properties are not allowed ('no_such_key' was unexpected)"]


def test_only_what_extends_nothing_needs_teachers_and_students() -> None:
    assert faults({"name": "study", "extends": "base.yaml"}) == []
    assert faults({"score": {"alpha": 0.3}}) == []  # a part
    assert len(faults({"name": "study"})) == 2


def test_the_line_for_editors_leads_to_the_schema(root: Path, tmp_path: Path) -> None:
    assert schema_line(root / "recipes" / "tiny" / "demo.yaml") == (
        "# yaml-language-server: $schema=../../persyn_hf/recipe/recipe.schema.json"
    )
    assert schema_line(tmp_path / "mine.yaml") == f"{MODELINE}{FILE.as_uri()}"
    for path in files(root):
        line = path.read_text(encoding="utf-8").partition("\n")[0]
        assert (path.parent / line.removeprefix(MODELINE)).resolve() == FILE
