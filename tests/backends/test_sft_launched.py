"""Training a student in the processes of `accelerate launch`: the same curve as in one, whoever is killed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import sft_run
from safetensors.numpy import load_file
from sft_run import STEPS, Told

from persyn_hf.backends.sft import launched
from persyn_hf.errors import InputError, PersynError, RecipeError
from persyn_hf.stage import Result
from persyn_hf.stages.train_student import Settings


CPU_2 = str(Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml")


@pytest.fixture(scope="module")
def two(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Told]:
    """By a config that names another precision: `train_student.dtype` decides."""
    folder, told = tmp_path_factory.mktemp("two"), Told()
    config = folder / "bf16.yaml"
    config.write_text(Path(CPU_2).read_text().replace("mixed_precision: 'no'", "mixed_precision: bf16"))
    assert config.read_text() != Path(CPU_2).read_text()
    return sft_run.train(folder, told, accelerate=str(config)), told


def weights(result: Result) -> dict[str, np.ndarray]:
    return load_file(result.data / "model.safetensors")


def difference(one: Result, other: Result) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return float(max(np.abs(first[name] - second[name]).max() for name in first))


def test_two_processes_train_as_one_with_twice_the_accumulation(two: tuple[Result, Told], tmp_path: Path) -> None:
    together, told = two
    alone = sft_run.train(tmp_path)
    curves = [result.metrics["loss"] for result in (alone, together)]
    assert [step for step, _ in curves[1]] == [step for step, _ in curves[0]] == list(range(1, STEPS + 1))
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=1e-4)
    assert curves[0][-1][1] < curves[0][0][1] / 1.5
    assert difference(alone, together) < 1e-3
    assert {key: of for key, of in alone.metrics.items() if "loss" not in key} == {
        key: of for key, of in together.metrics.items() if "loss" not in key
    }
    assert (told.total, told.left, told.done) == (STEPS, 0, STEPS)
    assert not (together.data.parent / "student-launch").exists()


@pytest.mark.slow
def test_killed_with_its_processes_it_goes_on_to_the_same_weights(two: tuple[Result, Told], tmp_path: Path) -> None:
    command = [sys.executable, sft_run.__file__, str(tmp_path), CPU_2, "step-5"]
    assert subprocess.run(command, capture_output=True, timeout=250, env=sft_run.ENVIRONMENT).returncode == -9
    psutil.wait_procs(list(relatives(tmp_path)), timeout=30)
    assert not list(relatives(tmp_path))
    told = Told()
    again = sft_run.train(tmp_path, told, accelerate=CPU_2)
    assert told.left in (2, 4, 6, 8)  # it went on for a moment after step 5 was heard
    assert told.left + told.done == STEPS
    assert difference(two[0], again) <= 1e-6
    assert again.metrics == two[0].metrics


def relatives(folder: Path) -> list[psutil.Process]:
    """Processes that train in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_batch_that_the_processes_cannot_share(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        sft_run.train(tmp_path, accelerate=CPU_2, per_device_batch_size=3, batch_size=9)
    assert str(caught.value) == (
        "`train_student.batch_size` must be a multiple of `per_device_batch_size` x processes = 3 x 2 = 6, got 9"
    )


@pytest.mark.slow
def test_a_fault_in_one_of_the_processes_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        sft_run.train(tmp_path, accelerate=CPU_2, learning_rate=1e30, warmup_steps=0)
    assert re.fullmatch(
        r"training the student diverged by step \d: the loss is nan; lower `train_student.learning_rate`",
        str(caught.value),
    )


def test_configs_that_a_student_cannot_be_trained_by(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("{distributed_type: MEGATRON_LM, num_machines: 1, num_processes: 2, mixed_precision: 'no'}")
    with pytest.raises(InputError) as caught:
        launched.read_plan(Settings(accelerate=str(config)))
    assert str(caught.value) == (
        f"the accelerate config {config} is of type MEGATRON_LM, and a student is trained by NO, MULTI_GPU, FSDP, "
        "DEEPSPEED; write one of these as its `distributed_type`"
    )
    config.write_text("{distributed_type: MULTI_GPU, num_processes: 8, num_machines: 2}")
    with pytest.raises(InputError, match="names 2 machines, and a student is trained on one; set `num_machines: 1`"):
        launched.read_plan(Settings(accelerate=str(config)))


@pytest.mark.parametrize("path", sorted(Path(CPU_2).parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_configs_that_come_with_us(path: Path) -> None:
    """They can be read by accelerate, and say in their names what they are."""
    kind, number, *sharding = path.stem.split("-")
    try:
        plan = launched.read_plan(Settings(accelerate=str(path)))
    except PersynError as error:  # deepspeed is not installed
        assert sharding and sharding[0].startswith("zero")
        assert str(error) == (
            f"the accelerate config {path} needs the package `deepspeed`, which is not installed: "
            "pip install 'persyn-hf[deepspeed]'"
        )
        return
    kinds = {"fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    expected = kinds[sharding[0]] if sharding else "MULTI_GPU" if int(number) > 1 else "NO"
    assert plan is not None
    assert (plan.path, plan.kind, plan.processes, plan.cpu) == (str(path), expected, int(number), kind == "cpu")
