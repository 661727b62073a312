"""The script of on-policy distillation on the tiny zoo: phases, teachers left out, and a student that moves."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def distill(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("distill", root / "recipes" / "on-policy" / "distill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["distill"] = module
    spec.loader.exec_module(module)
    return module


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
