"""What comes with persyn is found by its name, from any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.packaged import names, summaries


TEACHERS = """
teachers:
  - {name: a, model: persyn:tiny/zoo/qwen-gen}
  - {name: b, model: org/b, system_prompt: "persyn: be brief"}
students: [{name: s}]
"""


def test_a_recipe_by_name_is_the_one_by_path(root: Path, recipes: list[Path]) -> None:
    for path in recipes:
        name = path.relative_to(root / "recipes").with_suffix("").as_posix()
        assert load_recipe(f"persyn:{name}") == load_recipe(path)
    assert load_recipe("persyn:tiny/demo.yaml").name == "demo"
    assert load_recipe(Path("persyn:tiny/demo")).name == "demo"


def test_a_recipe_extends_by_name_and_names_files_so(tmp_path: Path, root: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("extends: persyn:tasks/math\nname: my\nprompts: {path: persyn:tiny/prompts.jsonl}\n" + TEACHERS)
    recipe = load_recipe(file, ["score.accelerate=persyn:accelerate/cpu-2"])
    assert [task["name"] for task in recipe.evaluate["tasks"]] == ["gsm8k", "math500", "svamp"]
    assert recipe.prompts["path"] == str(root / "recipes/tiny/prompts.jsonl")
    assert recipe.score["accelerate"] == str(root / "recipes/accelerate/cpu-2.yaml")
    first, second = recipe.teachers
    assert first.model == str(root / "recipes/tiny/zoo/qwen-gen")
    assert second.system_prompt == "persyn: be brief", "no name, but text"
    file.write_text("extends: [persyn:tasks/math, persyn:tiny/demo]\nname: my\n")
    assert load_recipe(file).evaluate["max_tokens"] == 200


@pytest.mark.parametrize("name", ["persyn:../setup.cfg", "persyn:/etc/hostname", "persyn:tiny/../../setup.cfg"])
def test_a_name_leads_nowhere_else(name: str) -> None:
    with pytest.raises(RecipeError, match="nothing with the name"):
        load_recipe(name)


def test_the_nearest_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as told:
        load_recipe("persyn:tiny/dmo")
    assert str(told.value) == (
        "nothing with the name `persyn:tiny/dmo` comes with persyn, did you mean `persyn:tiny/demo`? `persyn recipes` "
        "lists what does"
    )
    (tmp_path / "my.yaml").write_text("extends: persyn:tasks/maths\n")
    with pytest.raises(RecipeError, match=r"my\.yaml: `extends`: .*did you mean `persyn:tasks/math`\?"):
        load_recipe(tmp_path / "my.yaml")
    (tmp_path / "my.yaml").write_text("name: my\nprompts: {path: persyn:tiny/prompt.jsonl}\n" + TEACHERS)
    with pytest.raises(RecipeError, match=r"`path`: .*did you mean `persyn:tiny/prompts\.jsonl`\?"):
        load_recipe(tmp_path / "my.yaml")


def test_everything_that_is_listed_says_what_it_is() -> None:
    told = {name: (whole, text) for name, whole, text in summaries()}
    assert [*told] == names()
    assert told["tiny/demo"] == (True, "The whole chain on the tiny world")
    assert told["tasks/math"] == (False, "The paper's mathematics benchmarks")
    assert all(text for _, text in told.values())


def test_a_package_that_was_copied_alone_says_what_it_lacks(tmp_path: Path, root: Path) -> None:
    shutil.copytree(root / "persyn_hf", tmp_path / "persyn_hf", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    listed = [sys.executable, "-m", "persyn_hf.cli", "recipes"]
    told = subprocess.run(listed, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "persyn_hf lacks its folder `recipes`; install it anew, or copy the whole clone" in told.stderr
