"""Scoring and training on a Ray cluster of two nodes: the numbers of one machine, whatever is killed."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import sft_run
from nodes import TWO, killing, nodes, relatives, renew, wait_until
from scoring_run import rewards
from sft_run import STEPS, Told

from persyn_hf.backends.launching import ray_group
from persyn_hf.errors import EngineError
from persyn_hf.version import __version__


pytest.importorskip("ray")
PROMPTS = 100
ZOO = Path(__file__).parents[2] / "recipes" / "tiny" / "zoo"


@pytest.fixture(scope="module")
def cluster(heavy: None) -> Iterator[Any]:
    with nodes(3) as started:  # one more than is needed, for the place of one that is killed
        yield started


def measured(folder: Path) -> list[int]:
    """Rows that the processes of the newest launch have measured."""
    lines = [line for path in folder.glob("measured-*") for line in path.read_text().splitlines(keepends=True)]
    return [number for line in lines if line.endswith("\n") for number in json.loads(line)[0]]


@pytest.mark.parametrize("victim", ["actor", pytest.param("node", marks=pytest.mark.slow)])
def test_scoring_measures_each_row_once_whatever_is_killed(cluster: Any, tmp_path: Path, victim: str) -> None:
    place = tmp_path / "likelihood"
    with killing(cluster, tmp_path, victim, lambda: len(measured(place)) >= 8) as killed:
        found = rewards(tmp_path, None, PROMPTS, executor=TWO)
    assert killed
    assert found == rewards(tmp_path / "alone", None, PROMPTS)
    skipped = json.loads((place / "task.json").read_text())["skip"]
    assert len(skipped) >= 8
    assert sorted([*skipped, *measured(place)]) == list(range(2 * PROMPTS))
    wait_until(lambda: not relatives(tmp_path))


@pytest.mark.parametrize("victim", ["node", pytest.param("process", marks=pytest.mark.slow)])
def test_training_goes_on_from_its_last_checkpoint(cluster: Any, tmp_path: Path, victim: str) -> None:
    told = Told()
    checkpoint = tmp_path / "student-checkpoints-multi_gpu-2" / "checkpoint-4" / "whole"
    with killing(cluster, tmp_path, victim, checkpoint.exists) as killed:
        together = sft_run.train(tmp_path, told, executor=TWO)
    assert killed
    alone = sft_run.train(tmp_path / "alone")
    curves = [result.metrics["loss"] for result in (alone, together)]
    assert [step for step, _ in curves[1]] == [step for step, _ in curves[0]] == list(range(1, STEPS + 1))
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=1e-3)
    assert told.left >= 4
    wait_until(lambda: not relatives(tmp_path))


@contextmanager
def odd_node(cluster: Any, *before: str, **environment: str) -> Iterator[None]:
    """A further node, started by the command line `before` or with other variables."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", cluster.address, "--num-cpus", "1"]
    node = subprocess.Popen(
        [*before, *ray, "--block", "--disable-usage-stats"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: alive() == 5)
        yield
    finally:
        for process in psutil.Process(node.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        node.kill()
        node.wait()
        wait_until(lambda: alive() == 4)


def alive() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


DRIVER = """
import sys, time
from persyn_hf.backends.engines.ray_cluster import connect
ray = connect(sys.argv[1], "score.executor")
alive = lambda: sum(node["Alive"] for node in ray.nodes())
before = alive()
print("connected", flush=True)
while alive() == before:
    time.sleep(0.5)
time.sleep(5)
"""


@pytest.mark.slow
def test_a_node_that_is_lost_is_no_noise_on_the_terminal(cluster: Any) -> None:
    """Ray prints what its raylets say of it; their own logs keep that."""
    line = [sys.executable, "-c", DRIVER, cluster.address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_DEDUP_LOGS_SKIP_REGEX", None)
    driver = subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert driver.stdout is not None and driver.stdout.readline() == "connected\n"
    lost = [*cluster.worker_nodes][-1]
    psutil.Process(lost.all_processes["raylet"][0].process.pid).kill()
    said, _ = driver.communicate(timeout=120)
    renew(cluster)
    assert (driver.returncode, said) == (0, "")


def refused(folder: Path, replicas: int, model: Path = ZOO / "qwen-student") -> str:
    with pytest.raises(EngineError) as caught:
        rewards(folder, None, 2, str(model), executor={"kind": "ray", "replicas": replicas})
    return str(caught.value).replace(socket.gethostname(), "HOST")


def test_more_replicas_than_there_is_room_for(cluster: Any, tmp_path: Path) -> None:
    assert refused(tmp_path, 4) == (
        "the Ray cluster has the 1 CPUs and 0 GPUs that `score.executor` asks for each replica for 3 of 4 replicas "
        "(found: 1 CPUs and 0 GPUs; 1 CPUs and 0 GPUs; 1 CPUs and 0 GPUs; 0 CPUs and 0 GPUs); ask for less, or add a "
        "node"
    )


@pytest.mark.ci
def test_a_node_with_another_version(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "other" / "persyn_hf").mkdir(parents=True)
    (tmp_path / "other" / "persyn_hf" / "__init__.py").touch()
    (tmp_path / "other" / "persyn_hf" / "version.py").write_text('__version__ = "0.0.1"\n')
    with odd_node(cluster, PYTHONPATH=str(tmp_path / "other")):
        assert refused(tmp_path / "work", 4) == (
            "the node HOST of the Ray cluster (`score.executor`) has version 0.0.1 of `persyn_hf`, and this one has "
            f"version {__version__}; install the same on every node"
        )


@pytest.mark.ci
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_a_node_that_sees_other_files(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_group, "SEEN_S", 1.0)
    own = tmp_path / "own"
    shutil.copytree(ZOO / "qwen-student", own / "model")
    hides = f'mount -t tmpfs none {own} && exec "$@"'
    with odd_node(cluster, "unshare", "--mount", "sh", "-c", hides, "sh"):
        assert refused(own / "work", 4) == (
            "the node HOST of the Ray cluster (`score.executor`) does not see what is written to "
            f"{own}/work/likelihood here; let `score.executor.shared` name a folder that all nodes share (NFS, Lustre)"
        )
        assert refused(tmp_path / "work", 4, own / "model") == (
            f"the node HOST of the Ray cluster (`score.executor`) lacks {own}/model, which is there on this one; copy "
            "it there to the same path, or name a model of the Hub"
        )
    wait_until(lambda: not relatives(tmp_path))
