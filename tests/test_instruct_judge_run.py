"""`recipes/server/instruct-judge.yaml` up to a student of the zoo: recorded answers and a judge behind a server."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import write_lines

from persyn_hf.cli.main import main
from persyn_hf.recipe.file import load_recipe
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy

RECORDED = {  # model of the recipe -> model whose answers to GSM8K are in recipes/real; None: the bare reference
    "meta-llama/llama-3.3-70b-instruct": "gpt-4-1106-preview",
    "qwen/qwen-2.5-72b-instruct": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "mistralai/mistral-small-24b-instruct-2501": None,
}
SIZES = {"calibration": 8, "dev": 4, "pool": 6}
JUDGED = (SIZES["calibration"] + SIZES["dev"]) * len(RECORDED)
KILLED_AT = 15  # the question to the judge at which the run is killed


def recorded(root: Path) -> dict[str, dict[str, str]]:
    """The answers to each question, by model of the recipe."""
    rows = pq.read_table(root / "recipes/real/gsm8k_two_models_sample.parquet").to_pylist()
    answers: dict[str, dict[str, str]] = {}
    for row in rows:
        for model, known in RECORDED.items():
            if known in (row["model"], None):
                said = row["reference"] if known is None else row["response"]
                answers.setdefault(row["prompt"], {})[model] = said.strip()
    return dict(list(answers.items())[: sum(SIZES.values())])


def verdict(text: str) -> Response:
    """The judge's: an answer that says more is more helpful."""
    answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
    return Response(body=completion(json.dumps({"reason": "It explains.", "score": min(10, 1 + len(answer) // 60)})))


def recipe(folder: Path, root: Path, server: OpenAIServer, questions: list[str]) -> Path:
    """The recipe, small: other addresses, sizes and student, one strategy, and no evaluation."""
    write_lines(folder / "instructions.jsonl", [{"instruction": question} for question in questions])
    student = {"name": "small", "model": str(root / "recipes/tiny/zoo/qwen-student")}
    values: dict[str, Any] = {
        "extends": str(root / "recipes/server/instruct-judge.yaml"),
        "name": "instruct",
        "students": [student],
        "strategies": ["persyn"],
        "prompts": {"dataset": None, "source_split": "train", "path": "./instructions.jsonl"}
        | {"columns": {"prompt": "instruction"}, "decontaminate": "none", **SIZES},
        "generate": {"server": {"urls": [server.url]}},
        "score": {"judge": {"server": {"urls": [server.url], "concurrency": 1, "max_concurrency": 1}}},
        "train_router": {"kind": "logistic"},
        "train_student": {"epochs": 1, "batch_size": 4, "per_device_batch_size": 4, "learning_rate": 0.001},
        "until": "train_student",
    }
    path = folder / "instruct.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_instructions_from_prompts_to_a_student_killed_while_the_judge_judges(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = recorded(root)
    asked: Counter[tuple[str, str]] = Counter()  # (model, text)
    victim: list[subprocess.Popen[bytes]] = []

    def answer(text: str, times: int) -> Response:
        with server.lock:
            model = [body["model"] for body in server.bodies if body["messages"][-1]["content"] == text][times - 1]
        asked[model, text] += 1
        if model in RECORDED:
            return Response(body=completion(answers[text][model]))
        if sum(number for (name, _), number in asked.items() if name not in RECORDED) == KILLED_AT:
            victim[0].send_signal(signal.SIGKILL)
            victim[0].wait()
        return verdict(text)

    for name in ("OPENROUTER_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk-of-a-test")
    with OpenAIServer(answer, models=(*RECORDED, "gpt-4.1-mini")) as server:
        path = recipe(tmp_path, root, server, list(answers))
        read = load_recipe(path)
        assert read.teachers == load_recipe(root / "recipes/server/instruct-judge.yaml").teachers
        arguments = ["run", str(path), "--store", str(tmp_path / "store")]
        victim.append(subprocess.Popen([sys.executable, "-m", "persyn_hf.cli", *arguments], env=os.environ))
        assert victim[0].wait(timeout=300) == -signal.SIGKILL
        before = asked.copy()
        assert main(["plan", str(path), "--store", str(tmp_path / "store"), "--no-checks"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        left = JUDGED - (KILLED_AT - 1)
        assert f"gpt-4.1-mini {KILLED_AT - 1} {left} {left}" in told
        assert main(arguments) == 0
        cut_off = {key for key, number in asked.items() if number > 1}
        assert len(cut_off) == 1, "only the question that the kill left without its answer"
        assert cut_off <= before.keys()
        verdicts = [key for key in asked if key[0] == "gpt-4.1-mini"]
        assert len(verdicts) == JUDGED
        pool = len(asked) - 2 * JUDGED  # answers of the pool, which nobody judges
        assert SIZES["pool"] <= pool <= SIZES["pool"] * len(RECORDED)
        again = len(server.bodies)
        assert main(arguments) == 0
        assert len(server.bodies) == again
    store = Store(tmp_path / "store")
    rewards = store.get("local/instruct-rewards-small@v1")
    assert rewards.manifest.counts["unjudged"] == 0
    assert rewards.manifest.cost["total"]["requests"] == JUDGED
    assert store.get("local/instruct-student-small-persyn@v1").kind == "student"
    assert (
        len(store.read_dataset(store.get("local/instruct-sft-small-persyn@v1")))
        == SIZES["calibration"] + SIZES["pool"]
    )
