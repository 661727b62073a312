"""What is wrong with a recipe is told before a teacher is asked: by `run`, `plan` and `validate --deep`."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import sums, write_lines

from persyn_hf.cli.main import main


ROWS = sums(range(10, 40))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda text, times: Response(body=completion("4")), models=("big", "small")) as running:
        yield running


@pytest.fixture
def values(tmp_path: Path, zoo: Path, root: Path, server: OpenAIServer) -> dict[str, Any]:
    write_lines(tmp_path / "q.jsonl", ROWS)
    return {
        "name": "checked",
        "teachers": [{"name": "big", "model": "big"}, {"name": "small", "model": "small"}],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "strategies": ["persyn", "mix"],
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": 20,
            "dev": 5,
            "pool": 5,
        },
        "generate": {"engine": "server", "samples": 1, "max_tokens": 50, "server": {"urls": [server.url]}},
        "train_router": {"kind": "knn"},
        "evaluate": {"tasks": [{"name": "sums", "path": str(root / "recipes/tiny/test.jsonl")}], "max_tokens": 60},
    }


def command(name: str, values: dict[str, Any], tmp_path: Path, *more: str) -> int:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    return main([name, str(tmp_path / "r.yaml"), "--store", str(tmp_path / "store"), *more])


# What is wrong -> where it is, what stands there, and what is told.
MISTAKES: dict[str, tuple[str, Any, str]] = {
    "no references": (
        "prompts.columns",
        {"prompt": "question"},
        "`score.quality: correct` judges answers by the references of the prompts, and `prompts.columns` names no "
        "column for them; set `prompts: {columns: {reference: ...}}`, or take another `quality`",
    ),
    "a column of the prompts": ("prompts.columns.prompt", "problem", "has no column `problem` for `columns.prompt`"),
    "a column of imported answers": (
        "generate",
        {"engine": "import", "path": "./q.jsonl", "columns": {"prompt": "question", "teacher": "answer"}},
        "has no column `response` for `columns.response`",
    ),
    "a student": (
        "students.0.model",
        "org/no-such-student",
        "the tokenizer of `org/no-such-student` cannot be loaded",
    ),
    "an encoder": (
        "train_router",
        {"kind": "knn", "features": "embeddings", "encoder": "org/no-such-encoder"},
        "`train_router.encoder`: the config of `org/no-such-encoder` cannot be loaded",
    ),
    "a backbone": (
        "train_router",
        {"kind": "llm", "backbone": "org/none"},
        "`train_router.backbone`: the config of `org/none` cannot be loaded",
    ),
    "a task": (
        "evaluate.tasks",
        [{"name": "ifeval", "harness": "ifevl"}],
        "lm-evaluation-harness has no task `ifevl`, did you mean `ifeval`?",
    ),
    "a column of a task": (
        "evaluate.tasks.0.columns",
        {"question": "problem"},
        "has no column `problem`",
    ),
    "the student's positions": (
        "evaluate.max_tokens",
        100_000,
        "no item of `sums` can be asked: the shortest prompt has 10 tokens, the student 512 positions",
    ),
}


def put(values: dict[str, Any], where: str, value: Any) -> None:
    *path, last = where.split(".")
    place: Any = values
    for key in path:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_anything_is_asked(
    mistake: str,
    values: dict[str, Any],
    tmp_path: Path,
    server: OpenAIServer,
    capsys: pytest.CaptureFixture[str],
    heavy: None,
) -> None:
    where, value, sentence = MISTAKES[mistake]
    put(values, where, value)
    for name, more in (("run", ()), ("validate", ("--deep",))):
        assert command(name, values, tmp_path, *more) == 2
        assert sentence in capsys.readouterr().err
    assert server.bodies == []


def test_all_that_is_wrong_is_told_at_once(
    values: dict[str, Any], tmp_path: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for mistake in ("no references", "a student", "an encoder"):
        put(values, *MISTAKES[mistake][:2])
    assert command("run", values, tmp_path) == 2
    told = capsys.readouterr().err
    for mistake in ("no references", "a student", "an encoder"):
        assert MISTAKES[mistake][2] in told
    assert command("plan", values, tmp_path) == 2
    assert capsys.readouterr().err == told, "the plan ends with the same list"
    assert server.bodies == []


@pytest.mark.parametrize(("module", "extra"), [("trl", "train"), ("lm_eval", "eval"), ("transformers", "models")])
def test_a_package_of_a_later_step_is_missing(
    module: str,
    extra: str,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    assert command("run", values, tmp_path) == 2
    assert (
        f"needs the package `{module}`, which is not installed: pip install 'persyn-hf[{extra}]'"
        in capsys.readouterr().err
    )


BARE = """
import sys
from importlib.machinery import PathFinder
hidden = ("torch", "transformers", "trl", "accelerate", "peft", "lm_eval")
found = PathFinder.find_spec
find = lambda name, *rest: None if name.split(".")[0] in hidden else found(name, *rest)
PathFinder.find_spec = staticmethod(find)
from persyn_hf.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def without_models(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `persyn` as where it was installed without an extra."""
    return subprocess.run([sys.executable, "-c", BARE, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["run", "plan", "preview", "probe"])
def test_all_packages_that_are_missing_are_one_sentence(name: str, tmp_path: Path) -> None:
    done = without_models(name, "persyn:tiny/quick", "--store", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "`torch`" in done.stderr and "not installed: pip install 'persyn-hf[" in done.stderr
    if name in ("run", "plan"):
        assert done.stderr == (
            "error: running a model needs the packages `transformers` and `torch`; fine-tuning needs the packages "
            "`trl` and `accelerate`; evaluation needs the package `lm_eval`, which are not installed: "
            "pip install 'persyn-hf[train,eval]'\n"
        )


@pytest.mark.heavy
def test_answers_that_exist_are_routed_without_torch(tmp_path: Path) -> None:
    done = without_models("run", "persyn:real/model-results", "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all steps are done: 10 run now" in done.stdout


def test_what_would_mean_nothing_is_warned_of(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values["teachers"] += [{"name": "again", "model": "big"}]
    values["teachers"] += [{"name": "hasty", "model": "big", "chat_template_kwargs": {"enable_thinking": False}}]
    values["strategies"] = [{"kind": "strong", "teacher": "big"}, {"kind": "strong", "name": "same", "teacher": "big"}]
    values["strategies"].append("persyn")
    assert command("validate", values, tmp_path, "--deep") == 0
    lines = capsys.readouterr()
    told = (lines.out + lines.err).splitlines()
    assert "  warning: big and again are one model: a router cannot tell them apart" in told
    assert "  warning: strong and same come to the same teacher, big: one experiment" in told
    assert any("5 dev prompts" in line for line in told)
    assert any("trained for 2 optimiser steps (25 rows, batches of 32, 2 epochs)" in line for line in told)


def test_servers_that_are_away_or_lack_the_model_are_warned_of(
    values: dict[str, Any], tmp_path: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    values["teachers"] = [
        {"name": "other", "model": "other"},
        {"name": "away", "model": "big", "server": {"urls": ["http://127.0.0.1:9/v1"]}},
    ]
    assert command("validate", values, tmp_path, "--deep") == 0
    told = "".join(capsys.readouterr())
    assert f"{server.url} has no model `other`; set the teacher's `model` to one that it has: big, small" in told
    assert "http://127.0.0.1:9/v1 does not answer now; a run will wait for it as `patience_s` says" in told
    assert server.bodies == []


def test_a_recipe_without_faults_says_so(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sums(range(2070))
    write_lines(tmp_path / "q.jsonl", rows)
    values["prompts"] |= {"dev": 50, "pool": 2000}
    assert command("validate", values, tmp_path, "--deep") == 0
    found = capsys.readouterr()
    assert "warning" not in found.out + found.err and "valid" in found.out + found.err


def test_a_config_of_accelerate_is_read_and_room_for_answers_is_looked_at(
    values: dict[str, Any], tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("distributed_type: NONSENSE\n")
    values["train_student"] = {"accelerate": "./bad.yaml"}
    values["teachers"][0] = {"name": "here", "model": str(zoo / "qwen-gen"), "engine": "transformers"}
    values["generate"]["max_tokens"] = 4000
    assert command("validate", values, tmp_path, "--deep") == 2
    assert f"the accelerate config {tmp_path / 'bad.yaml'} cannot be read" in capsys.readouterr().err
    del values["train_student"]
    assert command("validate", values, tmp_path, "--deep") == 0
    told = "".join(capsys.readouterr())
    assert "`generate.max_tokens` is 4,000, and here has 512 positions for prompt and answer" in told
    values["teachers"][0]["max_tokens"] = 600
    assert command("validate", values, tmp_path, "--deep") == 0
    assert "`teachers.here.max_tokens` is 600, and here has 512" in "".join(capsys.readouterr())
