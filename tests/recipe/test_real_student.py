"""`recipes/real/smollm2`: its script makes what its recipes begin from."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from smollm2 import PREPARE

from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.stages import evaluate


TEACHERS = [teacher.name for teacher in load_recipe(PREPARE.with_name("recipe.yaml")).teachers]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """What the script makes of 460 made-up prompts, whose best answer is that of teacher `prompt number % 12`."""
    folder = tmp_path_factory.mktemp("real")
    rows = [
        {
            "prompt_id": f"p{number}",
            "dataset": "made-up",
            "prompt": f"Say {number}.",
            "model": name,
            "response": f"{number}, said by {name}.",
            "preference": 1.0 if place == number % 12 else 0.5 / (place + 1),
        }
        for number in range(460)
        for place, name in enumerate(TEACHERS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "answers.parquet")
    student = str(root / "recipes/tiny/zoo/qwen-student")
    given = ["--answers", folder / "answers.parquet", "--out", folder / "work", "--student", student]
    given += ["--encoder", "/models/encoder", "--ifeval", "asked.jsonl"]
    subprocess.run([sys.executable, str(PREPARE), *map(str, given)], check=True, cwd=folder)
    return folder / "work"


def test_the_splits_have_their_sizes_and_keep_a_prompt_whole(work: Path) -> None:
    rows = pq.read_table(work / "answers.parquet").to_pylist()
    splits = {row["prompt_id"]: row["split"] for row in rows}
    assert all(splits[row["prompt_id"]] == row["split"] for row in rows)
    found = list(splits.values())
    assert [found.count(name) for name in ("calibration", "dev", "pool")] == [300, 150, 10]


def test_held_out_are_the_judges_favourites_of_the_dev_prompts(work: Path) -> None:
    rows = pq.read_table(work / "answers.parquet").to_pylist()
    dev = {row["prompt"] for row in rows if row["split"] == "dev"}
    lines = [json.loads(line) for line in (work / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["prompt"] for line in lines} == dev
    for line in lines:
        number = int(line["prompt"].removeprefix("Say ").removesuffix("."))
        assert line["model"] == TEACHERS[number % 12]
        assert line["response"] == f"{number}, said by {line['model']}."


@pytest.mark.parametrize("name", ["recipe", "bench", "sft"])
def test_the_recipes_read_what_was_made(work: Path, root: Path, name: str) -> None:
    recipe: Recipe = load_recipe(work / f"{name}.yaml")
    (student,) = recipe.students
    assert student.model == str(root / "recipes/tiny/zoo/qwen-student")
    text = json.dumps(recipe.model_dump(mode="json"))
    assert text.count(str(work / "answers.parquet")) == 2
    assert "HuggingFaceTB" not in text
    assert "sentence-transformers" not in text
    assert ("/models/encoder" in text) == (name == "bench")
    settings = read_section(evaluate.Settings, recipe.evaluate, "evaluate")
    tasks = {task.name: task for task in settings.tasks}
    assert tasks["heldout"].is_weighed
    assert tasks["ifeval"].path == str(work.parent / "asked.jsonl")
    assert tasks["truthfulqa"].path is None
