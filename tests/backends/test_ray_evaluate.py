"""Evaluation on a Ray cluster of two nodes: the rows of one machine, whatever is killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluation_run
import pytest
from evaluation_run import ENVIRONMENT, TASKS, evaluated
from nodes import TWO, killing, nodes, relatives, wait_until

from persyn_hf.backends.harness.work import KEPT
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner import executors
from persyn_hf.runner.step import Step
from persyn_hf.stages import evaluate


pytest.importorskip("ray")
ASKED = TASKS[1:]  # of which all is answered in one launch


@pytest.fixture(scope="module")
def cluster(heavy: None) -> Iterator[Any]:
    with nodes(3) as started:  # one more than is needed, for the place of one that is killed
        yield started


@pytest.fixture(scope="module")
def alone(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What this machine gives without an executor."""
    return evaluated(tmp_path_factory.mktemp("alone"), tasks=ASKED)


def heard(folder: Path) -> list[tuple[str, int]]:
    """What was kept, as digests of works and numbers of texts."""
    path = folder / KEPT
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]
    return [(key, number) for key, numbers, _ in kept for number in numbers]


@pytest.mark.parametrize("victim", ["node", pytest.param("process", marks=pytest.mark.slow)])
def test_nothing_is_asked_twice_whatever_is_killed(cluster: Any, alone: Any, tmp_path: Path, victim: str) -> None:
    with killing(cluster, tmp_path, victim, lambda: len(heard(tmp_path)) >= 6) as killed:
        found = evaluated(tmp_path, TWO, tasks=ASKED)
    assert killed
    assert found == alone
    assert len(heard(tmp_path)) == len(set(heard(tmp_path)))
    wait_until(lambda: not relatives(tmp_path))


def test_a_killed_driver_loses_what_was_in_hand(cluster: Any, alone: Any, tmp_path: Path) -> None:
    executor = {**TWO, "address": cluster.address}
    line = [sys.executable, evaluation_run.__file__, str(tmp_path), json.dumps(executor), "6", "asked"]
    driver = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True)
    assert (driver.returncode, driver.stdout, driver.stderr) == (-9, "", "")
    wait_until(lambda: not relatives(tmp_path))
    before = heard(tmp_path)
    assert len(before) >= 5
    assert evaluated(tmp_path, tasks=ASKED) == alone, "one machine goes on where the cluster was"
    assert heard(tmp_path)[: len(before)] == before
    assert len(heard(tmp_path)) == len(set(heard(tmp_path)))


@pytest.mark.slow
def test_references_are_weighed_on_the_nodes(cluster: Any, tmp_path: Path) -> None:
    assert evaluated(tmp_path, TWO, tasks=TASKS[:1]) == evaluated(tmp_path / "alone", tasks=TASKS[:1])


def step(stage: Any, settings: dict[str, Any]) -> Step:
    name = stage.__name__.rpartition(".")[2]
    return Step(key=name, phase=name, stage=name, settings=read_section(stage.Settings, settings, name), inputs={})


def test_a_run_looks_at_the_cluster_at_its_start(cluster: Any, tmp_path: Path) -> None:
    good = step(evaluate, {"tasks": TASKS, "executor": {**TWO, "shared": str(tmp_path / "shared")}})
    executors.check_machines([good], tmp_path / "work")
    assert [*(tmp_path / "shared").iterdir()] == [] and not (tmp_path / "work").exists()
    bad = step(evaluate, {"tasks": TASKS, "executor": {**TWO, "gpus_per_replica": 8}})
    with pytest.raises(EngineError) as caught:
        executors.check_machines([bad], tmp_path / "work")
    assert str(caught.value) == (
        "no node of the Ray cluster has the 1 CPUs and 8 GPUs that `evaluate.executor` asks for each replica (found: "
        "1 CPUs and 0 GPUs; 1 CPUs and 0 GPUs; 1 CPUs and 0 GPUs; 0 CPUs and 0 GPUs); ask for less, or add a node"
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"livebench": {"path": "/lb"}, "engine": "vllm"},
            "`livebench` asks one server on this machine, which an `executor` does not start; leave `executor` out, "
            "or evaluate `livebench` in a recipe of its own",
        ),
        (
            {"engine": "vllm", "vllm": {"distributed_executor_backend": "ray"}},
            "`vllm.distributed_executor_backend` runs one server over nodes of a Ray cluster, and `executor` one on "
            "each node; leave one out",
        ),
    ],
)
def test_what_an_executor_cannot_do(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_section(evaluate.Settings, {"tasks": TASKS, "executor": TWO, **settings}, "evaluate")
    assert sentence in str(caught.value)


def test_a_server_that_does_not_fill_its_replica() -> None:
    executor = {**TWO, "gpus_per_replica": 6}
    values = {"engine": "vllm", "vllm": {"tensor_parallel_size": 4}}
    settings = read_section(evaluate.Settings, {**values, "tasks": TASKS[1:2], "executor": executor}, "evaluate")
    with pytest.raises(RecipeError) as caught:
        evaluate.check_files(settings)
    assert str(caught.value) == (
        "`evaluate.executor.gpus_per_replica` is 6, and a server of the student uses 4 (tensor x pipeline x data "
        "parallel size); set `vllm` sizes that make 6"
    )
