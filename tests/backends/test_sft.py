"""Training a student in one process: killed at some moment and resumed, it ends where it would have ended."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sft_run
from safetensors.numpy import load_file
from sft_run import CHANGES, ROWS, STEPS, Told

from persyn_hf.backends.sft import Schedule, Training
from persyn_hf.backends.sft.training import lay_out
from persyn_hf.stage import Result


@pytest.fixture(scope="module")
def undisturbed(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return sft_run.train(tmp_path_factory.mktemp("whole"))


def assert_same(one: Result, other: Result) -> None:
    first, second = (load_file(result.data / "model.safetensors") for result in (one, other))
    assert first.keys() == second.keys()
    assert max(np.abs(first[name] - second[name]).max() for name in first) <= 1e-6
    assert one.metrics == other.metrics


def killed(folder: Path, when: str, config: str = "none") -> None:
    command = [sys.executable, sft_run.__file__, str(folder), config, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=sft_run.ENVIRONMENT)
    assert done.returncode == -9, done.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "student-checkpoints-1").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("when", "there", "left"),
    [
        ("save-6", [2, 4, 6], 4),  # the third is not whole yet
        pytest.param("marked-6", [4, 6], 4, marks=pytest.mark.slow),
        pytest.param("step-1", [], 0, marks=pytest.mark.slow),
        pytest.param("step-5", [2, 4], 4, marks=pytest.mark.slow),
        pytest.param("step-8", [4, 6], 6, marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    when: str, there: list[int], left: int, undisturbed: Result, tmp_path: Path
) -> None:
    killed(tmp_path, when)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in there]
    told = Told()
    assert_same(sft_run.train(tmp_path, told), undisturbed)
    assert (told.total, told.left, told.done) == (STEPS, left, STEPS - left)
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-8"]


def test_a_training_that_was_done_is_not_repeated(undisturbed: Result) -> None:
    """Its run may have been killed while the student was saved."""
    told = Told()
    assert_same(sft_run.train(undisturbed.data.parent, told), undisturbed)
    assert (told.left, told.done) == (STEPS, 0)


def test_no_pickle_reaches_the_artifact(undisturbed: Result) -> None:
    checkpoint = undisturbed.data.parent / "student-checkpoints-1" / "checkpoint-8"
    assert (checkpoint / "optimizer.pt").exists()
    kinds = {path.suffix for path in undisturbed.data.rglob("*") if path.is_file()}
    assert kinds == {".jinja", ".json", ".safetensors"}


def test_every_epoch_has_each_row_once_in_an_order_of_its_own() -> None:
    schedule = Schedule.of(training(), ROWS)
    assert (schedule.per_epoch, schedule.total, schedule.warmup) == (3, STEPS, 2)
    rows = lay_out(training(), examples())
    assert len(rows) == STEPS * CHANGES["batch_size"]
    epochs = [rows["input_ids"][start : start + 24] for start in (0, 24, 48)]
    for epoch in epochs[:2]:
        assert sorted(epoch[:ROWS]) == [[number] for number in range(ROWS)]
        assert epoch[ROWS:] == [[99, 99]] * 3
    assert epochs[0][:ROWS] != epochs[1][:ROWS]
    assert len(epochs[2]) == 16
    empty = {tuple(labels) for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True) if ids == [99, 99]}
    assert empty == {(-100, -100)}


def training() -> Training:
    plain = {"revision": None, "chat_template": None, "dtype": "auto", "gradient_checkpointing": None, "seed": 0}
    more = {"model": "m", "stored_dtype": "float32", "end": 99, "scheduler": "cosine", "weight_decay": 0.0}
    return Training(**plain, **more, lora=False, lora_rank=1, lora_alpha=1, **CHANGES)


def examples() -> "sft_run.Dataset":
    ids = [[number] for number in range(ROWS)]
    return sft_run.Dataset.from_dict({"input_ids": ids, "labels": ids})
