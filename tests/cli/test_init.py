"""`persyn init` writes recipes that are valid, for the file that the user has, and asks only where somebody sits."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rows import sums, write_lines

from persyn_hf.cli.main import main
from persyn_hf.cli.new_recipe import Wishes, entry_of, text_of
from persyn_hf.recipe.file import load_recipe, read_recipe
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.yaml_text import read_yaml
from persyn_hf.runner.plan import make_plan


TEACHERS = "persyn:tiny/zoo/qwen-gen,persyn:tiny/zoo/mistral-eq"
STUDENT = "persyn:tiny/zoo/qwen-student"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the user sits, without a terminal, with 60 questions."""
    write_lines(tmp_path / "q.jsonl", sums(range(10, 70)))
    monkeypatch.chdir(tmp_path)
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield tmp_path


def init(*arguments: str) -> dict[str, Any]:
    assert main(["init", *arguments]) == 0
    file = next((one for one in arguments if one.endswith(".yaml")), "my.yaml")
    make_plan(load_recipe(file))
    values: dict[str, Any] = yaml.safe_load(Path(file).read_text())
    return values


def test_questions_with_answers(capsys: pytest.CaptureFixture[str]) -> None:
    values = init("--prompts", "q.jsonl", "--teachers", TEACHERS, "--student", STUDENT, "--test", "q.jsonl")
    assert values["name"] == "my"
    assert values["prompts"] == {
        "path": "./q.jsonl",
        "columns": {"prompt": "question", "reference": "answer"},
        "references": "math",
        "calibration": 15,
        "dev": 7,
    }
    assert [teacher["name"] for teacher in values["teachers"]] == ["qwen-gen", "mistral-eq"]
    assert values["score"] == {"quality": "correct", "alpha": 0.4}
    columns = {"question": "question", "answer": "answer"}
    assert values["evaluate"]["tasks"] == [{"name": "held-out", "path": "./q.jsonl", "columns": columns}]
    said = capsys.readouterr().out
    assert "wrote my.yaml: 2 teachers, 60 prompts (15 for calibration, 7 for dev)" in said
    assert "persyn plan my.yaml" in said


@pytest.mark.parametrize(
    ("row", "more", "lines"),
    [
        (
            {"question": "1 + 1?", "answer": "2", "skill": "sums"},
            [],
            [
                "kind: math, because the column `answer` is taken for the answers to check by",
                "not used: skill; to use one: --columns topic=NAME",
                "evaluated on GSM8K, MATH-500 and SVAMP, from the Hub; on a test of your own: --test FILE",
            ],
        ),
        (
            {"question": "1 + 1?", "loesung": "2"},
            [],
            [
                "kind: instruct, because no column is known to hold a reference",
                "not used: loesung; to use one: --columns reference=NAME or topic=NAME",
                "evaluated on IFEval and TruthfulQA, from the Hub",
            ],
        ),
        (
            {"question": "1 + 1?", "answer": "2"},
            ["--kind", "instruct"],
            ["kind: instruct, as chosen", "not used: answer; to use one: --columns reference=NAME or topic=NAME"],
        ),
    ],
)
def test_what_is_taken_for_granted_is_told(
    row: dict[str, str], more: list[str], lines: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(folder / "p.jsonl", [row | {"question": f"{number} + 1?"} for number in range(60)])
    init("--prompts", "p.jsonl", "--teachers", TEACHERS, "--student", STUDENT, *more)
    said = " ".join(capsys.readouterr().out.split())
    for line in lines:
        assert line in said


def test_a_topic_is_read_and_own_tests_take_the_place_of_those_of_the_hub(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"{number} + 1?", "answer": number + 1, "skill": "sums"} for number in range(60)]
    write_lines(folder / "p.jsonl", rows)
    models = ("--teachers", TEACHERS, "--student", STUDENT, "--test", "p.jsonl")
    values = init("--prompts", "p.jsonl", "--columns", "topic=skill", *models)
    assert values["prompts"]["columns"] == {"prompt": "question", "reference": "answer", "topic": "skill"}
    said = capsys.readouterr().out
    assert "not used" not in said and "from the Hub" not in said


def test_instructions_behind_a_server_from_another_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    models = ("--teachers", "Qwen/Qwen3-30B-A3B,org/mid-1.5B-chat", "--student", "HuggingFaceTB/SmolLM2-135M")
    server = ("--url", "http://localhost:8000/v1", "--api-key-env", "KEY")
    values = init("sub/chat.yaml", "--prompts", "q.jsonl", "--kind", "instruct", *models, *server)
    assert values["extends"] == ["persyn:tasks/instruct", "persyn:reward-models/skywork-v2-3b"]
    assert values["prompts"]["path"] == "../q.jsonl" and values["prompts"]["columns"] == {"prompt": "question"}
    assert [teacher["params_b"] for teacher in values["teachers"]] == [3, 1.5]
    assert values["students"][0]["params_b"] == 0.135
    assert values["strategies"] == ["persyn", "mix", "strong"]
    server_settings = {"urls": ["http://localhost:8000/v1"], "api_key_env": "KEY"}
    assert values["generate"]["engine"] == "server" and values["generate"]["server"] == server_settings


JUDGE = ("--judge", "gpt-4.1-mini", "--judge-url", "https://api.openai.com/v1", "--judge-key-env", "OPENAI_API_KEY")


def test_a_judge_takes_the_place_of_the_reward_model(capsys: pytest.CaptureFixture[str]) -> None:
    models = ("--teachers", TEACHERS, "--student", STUDENT, "--test", "q.jsonl")
    values = init("--prompts", "q.jsonl", "--kind", "instruct", *models, *JUDGE)
    server = {"urls": ["https://api.openai.com/v1"], "api_key_env": "OPENAI_API_KEY"}
    judge = {"model": "gpt-4.1-mini", "rubric": "helpfulness", "server": server}
    assert values["score"] == {"quality": "judge", "judge": judge, "alpha": 0.4}
    assert values["generate"]["verify"] == "none" and "extends" not in values
    assert "judge-check" in Path("my.yaml").read_text()
    teachers_server = ("--url", "http://localhost:8000/v1", "--api-key-env", "KEY")
    values = init(
        "two.yaml", "--prompts", "q.jsonl", "--kind", "instruct", *models, "--judge", "big", *teachers_server
    )
    assert values["score"]["judge"]["server"] == {"urls": ["http://localhost:8000/v1"], "api_key_env": "KEY"}
    assert main(["init", "three.yaml", "--prompts", "q.jsonl", "--kind", "instruct", *models, "--judge", "big"]) == 2
    assert "there is no terminal to ask at for the url of the judge's server" in capsys.readouterr().err
    assert main(["init", "four.yaml", "--prompts", "q.jsonl", *models, "--judge", "b", "--judge-url", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not Path("four.yaml").exists()


@pytest.mark.heavy
def test_answers_with_a_quality_become_training_data(folder: Path) -> None:
    rows = [
        {"instruction": f"Say {number}", "model": model, "output": f"{number}{'!' * length}", "score": float(length)}
        for number in range(40)
        for model, length in (("org/short", number % 2), ("long", 1))
    ]
    write_lines(folder / "answers.jsonl", rows)
    values = init("--prompts", "answers.jsonl", "--student", "none")
    assert values["teachers"] == [{"name": "short", "model": "org/short"}, {"name": "long"}]
    assert values["score"] == {"quality": "column", "learnability": "none", "alpha": 0}
    assert values["until"] == "mix" and values["prompts"]["calibration"] == 10
    assert main(["run", "my.yaml"]) == 0
    assert main(["artifacts", "export", "local/my-sft-any-persyn@v1", "--out", "data"]) == 0
    exported = [json.loads(line) for file in Path("data").iterdir() for line in file.read_text().splitlines()]
    assert len(exported) == 35, "of 40 prompts 5 are of dev"


def test_prompts_of_the_hub_are_not_looked_at() -> None:
    values = init("--prompts", "openai/gsm8k", "--columns", "prompt=question", "reference=answer", "--kind", "math",
                  "--teachers", "a/b-1B,a/c-2B", "--student", "a/d")  # fmt: skip
    assert values["prompts"]["dataset"] == "openai/gsm8k"
    assert (values["prompts"]["calibration"], values["prompts"]["dev"]) == (2500, 1000)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is no terminal to ask at for the file of your prompts"),
        (["--prompts", "q.jsonl"], "give --teachers"),
        (["--prompts", "q.jsonl", "--teachers", "a,b"], "give --student"),
        (["--prompts", "q.jsonl", "--teachers", "a", "--student", "s"], "`teachers` must name at least two"),
        (["--prompts", "gone.jsonl"], "gone.jsonl does not exist"),
        (["--prompts", "q.jsonl", "--columns", "prmpt=x"], "`prmpt` is not known, did you mean `prompt`?"),
        (["--prompts", "q.jsonl", "--columns", "prompt"], "write --columns prompt=question"),
        (["--prompts", "q.jsonl", "--columns", "prompt=qestion"], "no column `qestion`, did you mean `question`?"),
        (["--prompts", "q.jsonl", "--kind", "answers"], "hold the teacher; name it: --columns teacher=NAME"),
        (["--prompts", "leer.csv"], "leer.csv is empty: it holds no rows"),
        (["there.yaml"], "there.yaml is there already"),
        (["my.txt"], "my.txt must end in .yaml"),
    ],
)
def test_what_is_missing_is_told_and_nothing_is_written(
    arguments: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "there.yaml").write_text("name: mine\n")
    (folder / "leer.csv").touch()
    assert main(["init", *arguments]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["leer.csv", "q.jsonl", "there.yaml"]
    assert (folder / "there.yaml").read_text() == "name: mine\n"


def test_it_asks_for_what_the_options_leave_open(folder: Path) -> None:
    above, below = pty.openpty()
    started = subprocess.Popen([sys.executable, "-m", "persyn_hf.cli", "init"], stdin=below, stdout=subprocess.PIPE)
    answers = ("q.jsonl", "maths", "", TEACHERS, STUDENT, "vllm")
    os.write(above, "".join(f"{answer}\n" for answer in answers).encode())
    said, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    assert "`maths` is not known, did you mean `math`?" in said.decode()
    recipe = load_recipe(folder / "my.yaml")
    assert recipe.generate["engine"] == "vllm" and recipe.prompts["references"] == "math"


NAMES = st.text(min_size=1, max_size=40)


@given(model=NAMES)
def test_any_model_has_a_name_that_a_recipe_takes(model: str) -> None:
    if model.isprintable() and "persyn:" not in model:
        entry = entry_of(model)
        assert Teacher(**entry).model == model


@given(columns=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=2, max_size=2))
def test_any_column_is_read_back_as_it_was(columns: list[str]) -> None:
    wishes = Wishes(
        name="x",
        kind="math",
        source={"path": "./q.jsonl"},
        columns=dict(zip(("prompt", "reference"), columns, strict=True)),
        teachers=["a", "b"],
        student=None,
    )
    if "\0" not in "".join(columns):
        recipe = read_recipe(read_yaml(text_of(wishes), "it"), Path("/tmp"))
        assert [*recipe.prompts["columns"].values()] == columns
