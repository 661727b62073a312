"""`persyn run` killed with all its processes while it trains a student: run again, it ends at the same weights."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from persyn_hf.cli.main import main
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


STEPS, SAVE_STEPS = 80, 8

DRIVER = """
import sys
from persyn_hf.backends.sft import training

def clear(checkpoints, known=training.clear):
    last, done = known(checkpoints)
    with open(sys.argv[1], "a") as log:
        log.write(f"{done}\\n")
    return last, done

training.clear = clear
from persyn_hf.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def recipe(tmp_path: Path, root: Path, zoo: Path) -> Path:
    """Twenty rows and the least that has to run before them."""
    values = {
        "name": "killed",
        "teachers": [{"name": name, "model": str(zoo / name)} for name in ("qwen-gen", "gemma-terse")],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "strategies": ["mix"],
        "prompts": {
            "path": str(root / "recipes" / "tiny" / "prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            **{"calibration": 10, "dev": 4, "pool": 10},
        },
        "generate": {"samples": 1, "max_tokens": 100},
        "train_student": {
            "epochs": STEPS / 5,  # of five steps
            "batch_size": 4,
            "per_device_batch_size": 4,
            "save_steps": SAVE_STEPS,
            "dtype": "float32",
        },
    }
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(recipe: Path, store: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", DRIVER, str(log), "run", str(recipe), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def student(store: Path) -> list[Stored]:
    return [item for item in Store(store).artifacts() if item.kind == "student"]


def test_the_same_command_ends_at_the_weights_of_an_undisturbed_run(recipe: Path, tmp_path: Path) -> None:
    plain, store, log = tmp_path / "plain", tmp_path / "store", tmp_path / "log"
    assert main(["run", str(recipe), "--store", str(store), "--set", "until=mix"]) == 0
    shutil.copytree(store, plain, symlinks=True)
    assert main(["run", str(recipe), "--store", str(plain)]) == 0
    (undisturbed,) = student(plain)
    assert undisturbed.manifest.metrics["steps"] == STEPS

    process = start(recipe, store, log)
    while not list(store.glob(".persyn/work/*/student-checkpoints-1/*/whole")):
        assert process.poll() is None, "it was over before its first checkpoint"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert student(store) == [], "it was over before the kill"

    process = start(recipe, store, log)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    first, second = map(int, log.read_text().split())
    assert first == 0 and SAVE_STEPS <= second < STEPS, "the second run goes on from a checkpoint"
    (resumed,) = student(store)
    assert resumed.digest == undisturbed.digest
    assert resumed.manifest.metrics == undisturbed.manifest.metrics
