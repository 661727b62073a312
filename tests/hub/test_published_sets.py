"""Parallel responses that others have published on the Hub, in every layout, as a recipe reads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import HubServer
from huggingface_hub import CommitOperationAdd

from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy


PROMPTS = [f"What is {i} + {i}?" for i in range(6)]
README = """---
configs:
- config_name: qwen
  data_files: [{split: train, path: qwen/*.parquet}]
- config_name: Llama-3.1-8B-Instruct
  data_files: [{split: train, path: llama/*.parquet}]
---
"""


def commit(hub: HubServer, folder: Path, repo: str, tables: dict[str, list[dict[str, Any]]], readme: str = "") -> None:
    """Published by somebody, under the tag v1."""
    api = hub.api(hub.token("alice"))
    api.create_repo(repo, repo_type="dataset", exist_ok=True)
    operations = [CommitOperationAdd("README.md", readme.encode())] if readme else []
    for name, rows in tables.items():
        path = folder / name.replace("/", "-")
        pq.write_table(pa.Table.from_pylist(rows), path)
        operations.append(CommitOperationAdd(name, path))
    api.create_commit(repo, operations, commit_message="publish", repo_type="dataset")
    api.create_tag(repo, tag="v1", repo_type="dataset")


def per_config(teacher: str) -> list[dict[str, Any]]:
    """As PerSyn-Math: samples with a verdict each."""
    answers = [(f"{teacher}: {2 * i}", f"{teacher}: {i}") for i in range(6)]
    return [
        {"problem": prompt, "answer": str(2 * i), "samples": list(answers[i]), "correct": [True, i == 0]}
        for i, prompt in enumerate(PROMPTS)
    ]


def zoo(i: int, prompt: str) -> dict[str, Any]:
    """As Magpie-Zoo."""
    cells = {name: {"content": f"{name}: {2 * i}", "ArmoRM": i / 10} for name in ("qwen", "Llama-3.1-8B-Instruct")}
    return {"uuid": str(i), "instruction": prompt, **cells}


@pytest.fixture
def published(hub: HubServer, tmp_path: Path) -> None:
    tables = {"qwen/a.parquet": per_config("qwen"), "llama/a.parquet": per_config("llama")}
    commit(hub, tmp_path, "lab/math", tables, README)
    commit(
        hub, tmp_path, "lab/zoo", {"data/train-00000-of-00001.parquet": [zoo(*item) for item in enumerate(PROMPTS)]}
    )


def run(
    hub: HubServer, folder: Path, prompts: dict[str, Any], generate: dict[str, Any], quality: str
) -> tuple[int, str]:
    """`persyn run` up to the rewards; its exit code and what it said of errors."""
    teachers = [{"name": "qwen"}, {"name": "llama", "model": "meta-llama/Llama-3.1-8B-Instruct"}]
    recipe = {
        "name": "others",
        "namespace": "me",
        "prompts": {"calibration": 3, "dev": 1, **prompts},
        "teachers": teachers,
        "students": [{"name": "s"}],
        "generate": {"engine": "import", "verify": "none", **generate},
        "score": {"learnability": "none", "alpha": 0, "quality": quality},
        "strategies": ["persyn"],
        "until": "score",
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "persyn_hf.cli", "run", str(path), "--store", str(folder / "store")]
    done = subprocess.run(command, env=hub.env(home=folder / "home"), capture_output=True, text=True, timeout=200)
    return done.returncode, done.stderr


def responses(folder: Path) -> dict[tuple[str, str], list[tuple[str, float | None, bool | None]]]:
    """(prompt, teacher) -> samples."""
    store = Store(folder / "store")
    texts = {
        row["prompt_id"]: row["messages"][0]["content"] for row in store.read_dataset(store.get("me/others-prompts"))
    }
    found: dict[tuple[str, str], list[Any]] = {}
    for row in store.read_dataset(store.get("me/others-responses")):
        sample = (row["response"], row["quality"], row["is_correct"])
        found.setdefault((texts[row["prompt_id"]], row["teacher"]), []).append(sample)
    return found


MATH, ZOO = {"dataset": "lab/math", "revision": "v1"}, {"dataset": "lab/zoo", "revision": "v1"}
SAMPLES = {"columns": {"prompt": "problem", "response": "samples", "is_correct": "correct"}}
CONFIGS = {"configs": {"qwen": "qwen", "llama": None}}
QUESTIONS = {"columns": {"prompt": "problem", "reference": "answer"}}


def test_one_config_per_teacher(hub: HubServer, tmp_path: Path, published: None) -> None:
    prompts = {**MATH, **QUESTIONS, "config": "qwen"}
    code, said = run(hub, tmp_path, prompts, {**MATH, **CONFIGS, **SAMPLES}, quality="pass_rate")
    assert code == 0, said
    found = responses(tmp_path)
    assert len(found) == 8
    for (prompt, teacher), samples in found.items():
        i = PROMPTS.index(prompt)
        assert samples == [(f"{teacher}: {2 * i}", None, True), (f"{teacher}: {i}", None, i == 0)]


def test_one_column_per_teacher(hub: HubServer, tmp_path: Path, published: None) -> None:
    columns = {"prompt": "instruction", "responses": {"qwen": None, "llama": None}, "quality": "ArmoRM"}
    prompts = {**ZOO, "columns": {"prompt": "instruction"}}
    code, said = run(hub, tmp_path, prompts, {**ZOO, "columns": columns}, quality="column")
    assert code == 0, said
    names = {"qwen": "qwen", "llama": "Llama-3.1-8B-Instruct"}
    for (prompt, teacher), samples in responses(tmp_path).items():
        i = PROMPTS.index(prompt)
        assert samples == [(f"{names[teacher]}: {2 * i}", i / 10, None)]


UNREADABLE = "the dataset lab/math cannot be read: "
READ = """
import json, sys
from pathlib import Path
import numpy as np
from datasets import Dataset
from persyn_hf.backends.dataset_rows import NameIndex
from persyn_hf.backends.engines.imported import ImportSettings, read_responses
from persyn_hf.errors import PersynError
from persyn_hf.recipe.recipe import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context
from persyn_hf.stages import prompts

teachers = [Teacher(name="qwen"), Teacher(name="llama", model="meta-llama/Llama-3.1-8B-Instruct")]
said = []
for stage, settings in json.loads(sys.argv[1]):
    try:
        if stage == "prompts":
            prompts.run(read_section(prompts.Settings, settings, stage), Context(seed=0, work_dir=Path(sys.argv[2])))
        else:
            cell = {"prompt_id": "x", "messages": [{"role": "user", "content": "asked"}]}
            rows, index, asked = Dataset.from_list([cell]), NameIndex([["x"]]), np.array([0])
            cells, path = {"qwen": asked, "llama": asked}, Path(sys.argv[2]) / "kept.arrow"
            read_responses(read_section(ImportSettings, settings, stage), teachers, rows, index, cells, path)
        said.append("nothing")
    except PersynError as error:
        said.append(str(error))
print(json.dumps(said))
"""
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "prompts",
        {"config": "qwem"},
        [UNREADABLE, "qwem", "'qwen', 'Llama-3.1-8B-Instruct'", "check `prompts.dataset`"],
    ),
    ("prompts", {}, [UNREADABLE, "Config name is missing", "'qwen', 'Llama-3.1-8B-Instruct'"]),
    (
        "prompts",
        {"config": "qwen", "source_split": "test"},
        [f"{UNREADABLE}Bad split: test. Available splits: ['train']"],
    ),
    ("prompts", {"config": "qwen", "revision": "v2"}, [UNREADABLE, "v2", "`revision`"]),
    ("prompts", {"dataset": "lab/none"}, ["the dataset lab/none cannot be read: ", "lab/none"]),
    (
        "prompts",
        {"config": "qwen", "columns": {"prompt": "problems"}},
        ["lab/math has no column `problems` for `columns.prompt`, did you mean `problem`? (known: "],
    ),
    (
        "generate",
        {"configs": {"qwen": "qwen", "llama": "Llama"}},
        ["lab/math has no config `Llama` for `configs.llama`", "(known: qwen, Llama-3.1-8B-Instruct)"],
    ),
    ("generate", {"configs": {"qwen": None, "llama": None}, "revision": "v9"}, [UNREADABLE, "v9", "and `revision`"]),
    (
        "generate",
        {**CONFIGS, "columns": {"prompt": "problem", "response": "sample"}},
        ["lab/math, config qwen has no column `sample` for `columns.response`, did you mean `samples`? (known: "],
    ),
    (
        "generate",
        {**CONFIGS, **SAMPLES},
        ["lab/math, config qwen: of 6 rows none has one of the 1 prompts that are asked for", "'What is 0 + 0?'"],
    ),
]


def test_what_is_not_there_is_named_with_what_is(hub: HubServer, tmp_path: Path, published: None) -> None:
    """In one process: it takes `datasets` seconds to start."""
    settings = json.dumps([(stage, {**MATH, **more}) for stage, more, _ in CASES])
    command = [sys.executable, "-c", READ, settings, str(tmp_path)]
    done = subprocess.run(command, env=hub.env(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for (_, _, needed), said in zip(CASES, json.loads(done.stdout), strict=True):
        assert all(part in said for part in needed), said
        assert "\n" not in said
