"""The script of on-policy distillation on the tiny zoo: phases, teachers left out, and a student that moves."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file

from persyn_hf.core.comparison import TaskScores
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.stages import evaluate


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def distill(root: Path) -> ModuleType:
    return script(root / "recipes" / "on-policy" / "distill.py")


@pytest.fixture(scope="module")
def compare(root: Path) -> ModuleType:
    return script(root / "recipes" / "on-policy" / "compare.py")


def test_each_round_has_a_part_of_every_teachers_prompts(distill: ModuleType) -> None:
    rows = {"a": [{"n": n} for n in range(5)], "b": [{"n": 9}]}
    phases = [(teacher, [row["n"] for row in part]) for teacher, part in distill._phases(rows, 2)]
    assert phases == [("a", [0, 2, 4]), ("b", [9]), ("a", [1, 3])]


def test_a_student_moves_and_what_cannot_teach_it_is_told(
    heavy: None, distill: ModuleType, zoo: Path, smollm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teachers = ("qwen-gen", "qwen-gen", "qwen-gen", "gemma-md", "other", "unnamed")
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {n} plus 5?"}], "teacher_id": teacher}
        for n, teacher in enumerate(teachers)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    student, out = zoo / "qwen-student", tmp_path / "out"
    arguments = ["--prompts", str(tmp_path / "rows.jsonl"), "--student", str(student), "--out", str(out)]
    arguments += ["--batch-size", "2", "--rounds", "1", "--max-tokens", "24", "--learning-rate", "1e-4"]
    for name, model in (("qwen-gen", zoo / "qwen-gen"), ("gemma-md", zoo / "gemma-md"), ("other", smollm2)):
        arguments += ["--teacher", f"{name}={model}"]
    assert distill.main(arguments) == 0
    said = capsys.readouterr().out
    for line in (
        "left out: 1 prompts of other, as its vocabulary is not the student's",
        "left out: 1 prompts of unnamed, as it is not named with --teacher",
        "round 1, gemma-md: 1 prompts",
        "round 1, qwen-gen: 3 prompts",
    ):
        assert line in said
    before, after = (load_file(folder / "model.safetensors") for folder in (student, out))
    assert before.keys() == after.keys()
    moved = max(float(np.abs(before[name].astype(np.float32) - after[name]).max()) for name in before)
    assert 0 < moved < 0.1
    assert (out / "tokenizer_config.json").exists()


def test_before_and_after_are_paired(compare: ModuleType) -> None:
    before = np.array([[1.0, 0, 0, 0], [0, 0, 0, 1]])
    task = TaskScores(np.stack([before, np.ones((2, 4)) - before]), np.array([3.0, 1, 1, 1]))
    lines = compare._shown(task).splitlines()
    assert lines[:2] == ["  pair 1: 50.0 before, 50.0 after", "  pair 2: 16.7 before, 83.3 after"]
    assert [line.partition("[")[0] for line in lines[2:]] == [
        "  before: 33.3 ",
        "  after: 66.7 ",
        "  after - before: +33.3 ",
    ]
    same = compare._shown(TaskScores(np.stack([before, before]), np.ones(4)))
    assert "after - before: +0.0 [+0.0, +0.0]" in same, "nothing changed for any question, so there is no chance in it"


def test_students_are_asked_what_the_recipe_asks(
    heavy: None, compare: ModuleType, root: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, teacher = str(zoo / "qwen-student"), str(zoo / "qwen-math")
    arguments = ["--recipe", str(root / "recipes/tiny/quick.yaml"), "--set", "evaluate.limit=8", "--before", student]
    with pytest.raises(SystemExit, match="error: 1 students before and 2 after, needed are pairs"):
        compare.main([*arguments, "--after", teacher, teacher])
    assert compare.main([*arguments, "--after", student]) == 0
    said = capsys.readouterr().out.splitlines()
    settings = read_section(evaluate.Settings, load_recipe(arguments[1], [arguments[3]]).evaluate, "evaluate")
    of_the_stage = compare._by_task(settings, 0, zoo / "qwen-student")["tiny-test"]
    accuracy = f"{100 * np.mean([row['score'] for row in of_the_stage]):.1f}"
    assert said[:2] == ["tiny-test, 8 questions", f"  pair 1: {accuracy} before, {accuracy} after"]
    assert said[-1] == "  after - before: +0.0 [+0.0, +0.0]"
