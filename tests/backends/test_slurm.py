"""Work on the nodes of a Slurm job: by the real Slurm where it is installed, and by stand-ins of srun everywhere.

Both have two "nodes" on this host. What runs on them is real (accelerate, torch.distributed, models), but for vLLM.
"""

import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
import sft_run
import slurm_cluster
import slurm_vllm
from evaluation_run import TASKS, evaluated
from scoring_run import ENVIRONMENT
from slurm_cluster import Cluster, RealSlurm, StandIn, until
from slurm_job import ASKED, scored, trained

from persyn_hf.backends.engines.settings import ExecutorSettings, VllmSettings
from persyn_hf.backends.engines.slurm import Job, Part, find_job, place_replicas
from persyn_hf.backends.engines.slurm_servers import fill_replica
from persyn_hf.backends.launching import slurm_launch, slurm_task
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner import executors
from persyn_hf.runner.step import Step
from persyn_hf.stages import score
from persyn_hf.version import __version__


TWO = {"kind": "slurm", "replicas": 2}
JOB = Job("7", ("n1", "n2"), ("10.0.0.1", "10.0.0.2"), 8, 64)
PROGRAM = Path(__file__).with_name("slurm_job.py")


@pytest.fixture(scope="module", params=["slurm", "stand-in"])
def cluster(
    heavy: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    if request.param == "slurm" and (reason := slurm_cluster.why_not()):
        pytest.skip(f"the real Slurm is not tried: {reason}")
    one: Any = StandIn(tmp_path_factory.mktemp("stand-in")) if request.param == "stand-in" else None
    one = one or RealSlurm()
    yield one
    one.close()


def script(what: str, folder: Path, executor: Any, *paths: Path) -> str:
    line = shlex.join([sys.executable, str(PROGRAM), what, str(folder), json.dumps(executor)])
    modules = os.pathsep.join([*map(str, paths), ENVIRONMENT["PYTHONPATH"]])
    return f"#!/bin/bash\nexport PYTHONPATH={shlex.quote(modules)}\nexec {line}\n"


def result(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def working(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder, srun included, and not the driver."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(folder) in line and PROGRAM.name not in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def alone(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The scores that this machine gives without an executor."""
    found: dict[str, list[Any]] = scored(tmp_path_factory.mktemp("alone"), None)
    return found


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == (pytest.approx(values, abs=1e-5) if isinstance(values[0], float) else values)


@pytest.mark.slow
def test_scores_on_two_nodes_are_those_of_one_machine(
    cluster: Cluster, alone: dict[str, list[Any]], tmp_path: Path
) -> None:
    done = slurm_cluster.run(cluster, script("score", tmp_path, TWO), tmp_path)
    assert (done.code, done.output) == (0, "")
    assert_same(result(tmp_path), alone)
    shares = [(tmp_path / "likelihood" / f"measured-{rank}.jsonl").read_text() for rank in range(2)]
    assert all(shares), "both nodes measured"


@pytest.mark.slow
def test_a_student_is_trained_over_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    done = slurm_cluster.run(cluster, script("train", tmp_path, TWO), tmp_path)
    assert (done.code, done.output) == (0, "")
    expected = trained(tmp_path / "alone", None)
    assert [step for step, _ in result(tmp_path)] == [step for step, _ in expected] == [*range(1, sft_run.STEPS + 1)]
    assert [loss for _, loss in result(tmp_path)] == pytest.approx([loss for _, loss in expected], abs=1e-3)


def test_an_evaluation_goes_on_though_its_srun_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    job = cluster.submit(script("evaluate", folder, TWO), tmp_path)
    until(lambda: (folder / "answering" / "work.json").exists(), 200)
    for process in working(folder):
        with suppress(psutil.Error):
            if any("srun" in Path(word).name for word in process.cmdline()[:3]):
                process.kill()
    assert job.wait(250) == 0, (tmp_path / "output").read_text()
    assert result(folder) == evaluated(tmp_path / "alone", tasks=TASKS[1:])
    assert not working(folder)


def test_a_step_whose_srun_is_killed_is_cancelled_and_started_again(
    cluster: Cluster, alone: dict[str, list[Any]], tmp_path: Path
) -> None:
    """A killed srun leaves what it started: two launches would measure the same rows."""
    job = cluster.submit(script("score", tmp_path, TWO), tmp_path)
    begun = tmp_path / "likelihood" / "measured-0.jsonl"
    until(begun.exists, 120)
    before = working(tmp_path)
    for process in before:
        with suppress(psutil.Error):
            if any("srun" in Path(word).name for word in process.cmdline()[:3]):
                process.kill()
    assert job.wait(250) == 0, (tmp_path / "output").read_text()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in before)
    assert_same(result(tmp_path), alone)


def test_servers_on_two_nodes_share_the_load_and_one_that_dies_is_started_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    servers = tmp_path / "servers"
    slurm_vllm.install(servers)
    done = slurm_cluster.run(cluster, script("ask", tmp_path, TWO, servers), tmp_path)
    assert (done.code, done.output) == (0, "")
    assert [error for _, _, error in result(tmp_path)] == [None] * ASKED
    assert (servers / "died").exists()
    assert {*(servers / "asked").read_text().split()} == {"n1", "n2"}
    assert not working(servers), "all servers are gone"


def test_nothing_is_left_when_the_driver_is_ended(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit(script("score", tmp_path, TWO), tmp_path)
    until((tmp_path / "likelihood" / "measured-1.jsonl").exists, 120)
    driver = next(p for p in psutil.process_iter() if PROGRAM.name in " ".join(p.cmdline()) and "python" in p.name())
    driver.terminate()
    assert job.wait(100) != 0
    assert "KeyboardInterrupt" in (tmp_path / "output").read_text()
    until(lambda: not working(tmp_path), 30)


def test_a_node_that_does_not_see_the_folder_is_one_sentence(heavy: None, tmp_path: Path) -> None:
    cluster, folder = StandIn(tmp_path / "stand-in"), tmp_path / "work"
    folder.mkdir()
    done = slurm_cluster.run(cluster, script("score", folder, TWO), folder, SLURM_STAND_IN_BLIND="n2")
    assert (done.code, done.output) == (
        2,
        f"EngineError: the node n2 of the Slurm job (`score.executor`) does not see what is written to "
        f"{folder / 'likelihood'} here; let `score.executor.shared` name a folder that all nodes share "
        "(NFS, Lustre)\n",
    )
    asked = json.loads((cluster.folder / "asked").read_text())
    assert asked[: asked.index(sys.executable)] == [
        *("--job-name", asked[1], "--nodes", "2", "--ntasks", "2", "--ntasks-per-node", "1", "--nodelist", "n1,n2"),
        *("--cpus-per-task", "8", "--mem", "0", "--input", "none", "--export", "ALL"),
        *("--exact", "--kill-on-bad-exit=1", "--immediate=120"),
    ]
    assert asked[asked.index(sys.executable) + 1 : -1] == ["-m", "persyn_hf.backends.launching.slurm_task"]
    task = json.loads(asked[-1])
    port = task["launcher"][task["launcher"].index("--main_process_port") + 1]
    assert task["launcher"] == [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(folder / "likelihood" / "accelerate.yaml"), "--main_process_port", port),
        *("--log_dir", str(folder / "likelihood" / "launcher"), "--machine_rank", "0"),
        *("--main_process_ip", "127.0.0.1", "-m", "persyn_hf.backends.scoring.worker", str(folder / "likelihood")),
    ]
    assert 1024 <= int(port) < 65536


def test_a_run_looks_at_the_nodes_at_its_start(heavy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in StandIn(tmp_path / "stand-in").environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm_launch, "SEEN_S", 2.0)

    def look(**executor: Any) -> None:
        settings = read_section(score.Settings, {"executor": {**TWO, **executor}}, "score")
        step = Step(key="score", phase="score", stage="score", settings=settings)
        executors.check_machines([step], tmp_path / "work")

    look()
    assert not [*(tmp_path / "work").iterdir()]
    monkeypatch.setenv("SLURM_STAND_IN_BLIND", "n2")
    with pytest.raises(EngineError) as caught:
        look(shared=str(tmp_path / "shared"))
    assert re.sub("look-[^ ]*", "look-X", str(caught.value)) == (
        f"the node n2 of the Slurm job (`score.executor`) does not see what is written to {tmp_path}/shared/look-X "
        "here; let `score.executor.shared` name a folder that all nodes share (NFS, Lustre)"
    )
    with pytest.raises(EngineError, match="asks for 3 replicas, each on a node of its own, and the Slurm job 7 has 2"):
        look(replicas=3)
    (tmp_path / "file").touch()
    with pytest.raises(EngineError) as caught:
        look(shared=str(tmp_path / "file" / "shared"))
    assert str(caught.value) == (
        f"nothing can be written to {tmp_path}/file/shared: NotADirectoryError: [Errno 20] Not a directory: "
        f"'{tmp_path}/file/shared'; let `score.executor.shared` name a folder that this machine may write to and all "
        "nodes see"
    )


def test_what_a_node_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    (tmp_path / "token").write_text("abc")
    task: dict[str, Any] = {"folder": str(tmp_path), "place": "score.executor", "patience_s": 0, "launcher": []}
    task |= {"versions": {"persyn_hf": __version__}, "token": "abc", "needs": [str(tmp_path)]}
    slurm_task.main(task)
    with pytest.raises(SystemExit, match="persyn says: the node n3 of the Slurm job .* does not see what is written"):
        slurm_task.main({**task, "token": "other"})
    with pytest.raises(SystemExit) as left:
        slurm_task.main({**task, "needs": [str(tmp_path), "/no/model"]})
    assert left.value.code == (
        "persyn says: the node n3 of the Slurm job (`score.executor`) lacks /no/model, which is there on this one; "
        "copy it there to the same path, or name a model of the Hub"
    )
    with pytest.raises(SystemExit) as left:
        slurm_task.main({**task, "versions": {"persyn_hf": __version__, "torch": "1.0.0"}})
    assert left.value.code == (
        f"persyn says: the node n3 of the Slurm job (`score.executor`) has version {metadata.version('torch')} of "
        "`torch`, and this one has version 1.0.0; install the same on every node"
    )
    with pytest.raises(SystemExit, match="lacks the package `vanished`, and this one has"):
        slurm_task.main({**task, "versions": {"vanished": "1.0"}})


def test_no_job_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    with pytest.raises(EngineError) as error:
        find_job("score.executor")
    assert str(error.value) == (
        "`score.executor` is of kind slurm, and this process runs in no Slurm job (SLURM_JOB_ID is not set); write a "
        "script with `persyn slurm RECIPE --nodes N`, and submit it with sbatch"
    )
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="the command srun is not on the PATH of .*; add the folder of Slurm's"):
        find_job("score.executor")
    for name, value in StandIn(tmp_path / "stand-in").environment.items():
        monkeypatch.setenv(name, value)
    assert find_job("score.executor") == Job("7", ("n1", "n2"), ("127.0.0.1", "127.0.0.1"), 2, 8)
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    with pytest.raises(EngineError, match="must run on the first node of the Slurm job 7, n1, and runs on .*; submit"):
        find_job("score.executor")


def test_replicas_have_places() -> None:
    def places(alone: bool = False, **settings: Any) -> tuple[list[int], Part]:
        return place_replicas(JOB, ExecutorSettings(kind="slurm", **settings), "generate.executor", alone=alone)

    assert places(replicas=2, gpus_per_replica=8) == ([0, 1], Part(8, 64))
    assert places(replicas=4, gpus_per_replica=4) == ([0, 0, 1, 1], Part(4, 32))
    assert places(replicas=3, gpus_per_replica=4, cpus_per_replica=6) == ([0, 0, 1], Part(4, 6))
    assert places(replicas=1, alone=True) == ([0], Part(0, 64))
    for settings, message in (
        (
            {"replicas": 3, "alone": True},
            "`generate.executor` asks for 3 replicas, each on a node of its own, and the Slurm job 7 has 2 nodes "
            "(n1, n2); lower `replicas`, or submit with --nodes 3",
        ),
        (
            {"replicas": 3, "gpus_per_replica": 8},
            "`generate.executor` asks for 2 x 8 GPUs on a node (`replicas`, `gpus_per_replica`), and the Slurm job 7 "
            "has 8 on each; ask for less, or submit with --gres gpu:16",
        ),
        (
            {"replicas": 4, "cpus_per_replica": 33},
            "`generate.executor` asks for 2 x 33 CPU cores on a node (`replicas`, `cpus_per_replica`), and the Slurm "
            "job 7 has 64 on each; ask for less, or submit with --cpus-per-task 66",
        ),
    ):
        with pytest.raises(EngineError) as error:
            places(**settings)
        assert str(error.value) == message


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with pytest.raises(EngineError) as error:
            slurm_launch.find_port(port, "train_student.executor")
    assert str(error.value) == (
        f"the port {port} (`train_student.executor.port`) cannot be used on {os.uname().nodename}: Address already in "
        "use; name another one, or leave it out for a free one"
    )


def test_a_replica_is_filled_with_copies() -> None:
    def copies(gpus: int, **settings: int) -> int:
        executor = ExecutorSettings(kind="slurm", gpus_per_replica=gpus)
        return fill_replica(VllmSettings(**settings), executor, "the teacher t").data_parallel_size

    assert copies(8) == 8
    assert copies(8, tensor_parallel_size=4) == 2
    assert copies(8, tensor_parallel_size=2, pipeline_parallel_size=2) == 2
    assert copies(8, tensor_parallel_size=4, data_parallel_size=2) == 2
    assert copies(0, tensor_parallel_size=4) == 1
    for settings in ({"tensor_parallel_size": 3}, {"tensor_parallel_size": 16}, {"data_parallel_size": 4}):
        with pytest.raises(RecipeError, match="gpus_per_replica` is 8, and a server of the teacher t uses"):
            copies(8, **settings)


def test_settings_that_only_one_kind_has() -> None:
    for values, message in (
        ({"address": "auto"}, "`address` is that of a Ray cluster, and `kind` is slurm; leave it out"),
        ({"gpus_per_replica": 0.5}, "Slurm gives whole GPUs and CPU cores, got gpus_per_replica 0.5; round it up"),
    ):
        with pytest.raises(RecipeError) as error:
            read_section(ExecutorSettings, {"kind": "slurm", **values}, "generate.executor")
        assert str(error.value).endswith(message)
