"""LiveBench through its scripts: exact averages, nothing unjudged called wrong, the chat template of training.

The scripts are stand-ins with LiveBench's command line and files (livebench_clone.py); a real clone is asked where
PERSYN_LIVEBENCH names one.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from livebench_clone import SAID, Watch, make_bench, make_clone, make_question, run, student
from openai_server import OpenAIServer, Response, completion

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.harness.livebench import as_trained
from persyn_hf.backends.harness.livebench_scripts import LiveBenchSettings
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner.fingerprint import path_digest
from persyn_hf.schemas import EVALUATION
from persyn_hf.stage import Context
from persyn_hf.stages import evaluate


RIGHT = {"math/AMPS_Hard/1": 1.0, "math/AMPS_Hard/2": 0.5, "math/AMPS_Hard/3": 0.0, "math/AMPS_Hard/5": 0.0}
RIGHT |= {"math/AMPS_Hard/8": 1.0, "math/olympiad/1": 0.0, "language/typos/2": 1.0}


def test_scores_and_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: AMPS_Hard 2.5 of 5 and olympiad 0 make math 1/4; typos makes language 1; the average is 5/8."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    watch = Watch()
    bench = make_bench(tmp_path, watch)
    before = path_digest(bench.scripts)
    with OpenAIServer(student) as server:
        line = run(bench, server)
    assert path_digest(bench.scripts) == before
    items = bench.items()
    assert {name: item.score for name, item in items.items() if item.score is not None} == RIGHT
    assert sorted(name for name, item in items.items() if item.score is None) == [
        "language/typos/1",
        "math/AMPS_Hard/4",
    ]
    one = items["math/AMPS_Hard/2"]
    assert (one.prompt, one.reference, one.prediction) == ("three", "3", "is it 3?")
    assert items["math/AMPS_Hard/5"].prediction == items["math/AMPS_Hard/4"].prediction == ""
    low, high = line.pop("low"), line.pop("high")
    assert 0 < low < 5 / 8 < high < 1
    # weights 0.35 (each of AMPS_Hard), 1.75 (olympiad), 3.5 (typos), of 7 in all
    errors = (
        0.35**2 * (2 * (3 / 8) ** 2 + (1 / 8) ** 2 + 2 * (5 / 8) ** 2),
        1.75**2 * (5 / 8) ** 2,
        3.5**2 * (3 / 8) ** 2,
    )
    assert line.pop("stderr") == pytest.approx(sum(errors) ** 0.5 / 7)
    assert line == {
        "metric": "mean of categories", "accuracy": pytest.approx(5 / 8), "num_items": 9, "unjudged": 2,
        "mean_tokens": pytest.approx(3 * 7 / 8), "cut": 0,
        "groups": {
            "language": 1.0, "language/typos": 1.0,
            "math": pytest.approx(0.25), "math/AMPS_Hard": pytest.approx(0.5), "math/olympiad": 0.0,
        },
    }  # fmt: skip
    assert {body["temperature"] for body in server.bodies} == {0} and {b["max_tokens"] for b in server.bodies} == {40}
    assert {body["model"] for body in server.bodies} == {"student"}
    assert server.times == dict.fromkeys([*SAID, "refused", "ten", "unjudged"], 1)
    assert watch.begun == [("answering livebench", 9, 0), ("scoring livebench", 9, 0)]
    environment = json.loads((bench.folder / "environment.json").read_text())
    assert "HF_TOKEN" not in environment
    assert "hf_secret" not in json.dumps(environment)
    assert environment["no_proxy"].endswith("127.0.0.1")


def test_some_categories_and_a_limit(tmp_path: Path) -> None:
    with OpenAIServer(student) as server:
        line = run(make_bench(tmp_path, limit=2, categories=["math"]), server)
    assert line["groups"] == {"math": 0.375, "math/AMPS_Hard": 0.75, "math/olympiad": 0.0}
    assert (line["accuracy"], line["num_items"]) == (0.375, 3)
    assert sorted(server.times) == ["ten", "three", "two"]


def test_settings(root: Path) -> None:
    section = {"path": "/clone/livebench"}

    def read(**settings: Any) -> evaluate.Settings:
        return read_section(evaluate.Settings, {"engine": "vllm", "tasks": [], "livebench": section} | settings, "e")

    assert read().livebench == LiveBenchSettings(path="/clone/livebench", release="2024-11-25", max_tokens=4096)
    plain = read_section(evaluate.Settings, {"tasks": [{"name": "gsm8k"}]}, "e")
    assert "livebench" not in plain.model_dump(), "evaluations of before would lose their fingerprints"
    for settings, message in (
        ({"livebench": None}, "e.tasks: must name at least one, got []"),
        ({"engine": "transformers"}, "e: `livebench` asks a server, which `engine: transformers` has not; set "),
        ({"tasks": [{"name": "livebench"}]}, "e: two tasks are named `livebench`; give each a name of its own"),
        ({"livebench": {}}, "e.livebench: the key `path` is missing"),
        ({"livebench": section | {"release": "newest"}}, "e.livebench.release: "),
    ):
        with pytest.raises(RecipeError) as error:
            read(**settings)
        assert str(error.value).startswith(message)


def test_the_recipe_goes_with_other_tasks(root: Path, tmp_path: Path) -> None:
    """An unquoted release is a date to YAML."""
    path = tmp_path / "r.yaml"
    tasks = root / "recipes" / "tasks"
    text = (root / "recipes" / "tiny" / "demo.yaml").resolve()
    path.write_text(
        f"extends: [{text}, {tasks / 'instruct.yaml'}, {tasks / 'livebench.yaml'}]\n"
        "name: r\nevaluate: {livebench: {path: LiveBench/livebench, release: '2024-11-25'}}\n"
    )
    settings = read_section(evaluate.Settings, load_recipe(path).evaluate, "evaluate")
    assert settings.livebench is not None
    assert settings.livebench.path == str(tmp_path / "LiveBench" / "livebench")
    assert settings.livebench.release == "2024-11-25"
    assert [task.name for task in settings.tasks] == ["ifeval", "truthfulqa"]


def test_the_server_writes_conversations_as_in_training(zoo: Path, tmp_path: Path) -> None:
    """The template that vLLM is given, without the date of today, which vLLM would put in."""
    tokenizer: Any = models.load_tokenizer(str(zoo / "qwen-student"))
    tokenizer.eos_token = tokenizer.pad_token
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    arguments = as_trained(tokenizer, str(zoo / "qwen-student"), None, tmp_path)
    template, folder = Path(arguments["--chat-template"]), Path(arguments["--generation-config"])
    turns = [{"role": "user", "content": "What is it?"}]
    tokens = {"add_generation_prompt": True, "tokenize": False}
    told = tokenizer.apply_chat_template(turns, chat_template=template.read_text(), **tokens)
    assert told == chat.render(tokenizer, turns)
    assert told.startswith("26 Jul 2024<|")
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert set(tokenizer.convert_ids_to_tokens(ends)) == {tokenizer.pad_token, "<|end|>"} != {"<|end|>"}


@pytest.mark.slow
@pytest.mark.skipif("PERSYN_LIVEBENCH" not in os.environ, reason="PERSYN_LIVEBENCH names no clone with a .venv")
def test_the_scripts_of_a_real_clone(tmp_path: Path) -> None:
    """Two tasks that are scored without a network; a boxed 2 of 2 and 3, yes and no as they are asked for."""
    clone = Path(os.environ["PERSYN_LIVEBENCH"])
    scripts = tmp_path / "clone" / "livebench"
    shutil.copytree(clone / "livebench", scripts, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for name, questions in {
        "math/AMPS_Hard": [make_question("1", "one and one", "2"), make_question("2", "one and two", "3")],
        "reasoning/web_of_lies_v2": [make_question("3", "who lies", "no, yes, yes"), make_question("4", "long", "no")],
    }.items():
        category, task = name.split("/")
        more = {"category": category, "task": task} | ({"subtask": "amps_hard"} if category == "math" else {})
        file = scripts / "data" / "live_bench" / name / "question.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(question | more) + "\n" for question in questions))
    said = {"who lies": "It is **no, yes, yes**."}

    def speak(text: str, times: int) -> Response:
        if text == "long":
            return Response(status=400, body={"error": {"message": "too long"}})
        return Response(body=completion(said.get(text, "so \\boxed{2}")))

    bench = make_bench(tmp_path, python=str(clone / ".venv" / "bin" / "python"))
    with OpenAIServer(speak, models=("student",)) as server:
        line = run(bench, server)
    assert line["groups"] == {
        "math": 0.5,
        "math/AMPS_Hard": 0.5,
        "reasoning": 1.0,
        "reasoning/web_of_lies_v2": 1.0,
    }
    assert (line["accuracy"], line["num_items"], line["unjudged"]) == (0.75, 4, 1)
    with OpenAIServer(speak, models=("student",)) as server:
        assert run(make_bench(tmp_path, python=bench.settings.python), server) == line
        assert set(server.times) == {"long"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_stage_beside_another_task(root: Path, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student of the zoo adds up; 63 is in its answer, so the stand-in gives half of the score."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    path = make_clone(tmp_path, {"math/AMPS_Hard": [make_question("1", "Find the sum of 23 and 40.", "63")]})
    settings = {
        "engine": "vllm",
        "dtype": "float32",
        "max_tokens": 100,
        "vllm": {"args": ["--enforce-eager", "--no-enable-chunked-prefill"]},
        "tasks": [{"name": "tiny", "path": str(root / "recipes" / "tiny" / "test.jsonl"), "limit": 2}],
        "livebench": {"path": str(path), "python": sys.executable, "max_tokens": 100},
    }
    context = Context(seed=0, work_dir=tmp_path / "work", student=Student(name="s", model=str(zoo / "llama-long")))
    result = evaluate.run(read_section(evaluate.Settings, settings, "evaluate"), context)
    EVALUATION.check(result.data, "evaluation")
    assert result.data["task"][:] == ["livebench", "tiny", "tiny"]
    assert result.data["item"][:] == ["math/AMPS_Hard/1", "0", "1"]
    assert (result.data["score"][0], result.data["is_correct"][0]) == (0.5, None)
    assert result.data["prediction"][0].startswith("Alright, let me work through this.")
    assert result.counts == {"items": 3, "unjudged": 0, "cut": 0, "too_long": 0}
