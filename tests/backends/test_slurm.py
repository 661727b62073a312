"""Work on the nodes of a Slurm job: by the real Slurm where it is installed, and by stand-ins of srun everywhere.

Both have two "nodes" on this host. What runs on them is real: accelerate, torch.distributed, models.
"""

import json
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sft_run
import slurm_cluster
from scoring_run import ENVIRONMENT
from slurm_cluster import Cluster, RealSlurm, StandIn
from slurm_job import scored, trained

from persyn_hf.backends.engines.slurm import Job


TWO = {"kind": "slurm", "replicas": 2}
JOB = Job("7", ("n1", "n2"), ("10.0.0.1", "10.0.0.2"), 8, 64)
PROGRAM = Path(__file__).with_name("slurm_job.py")


def free_ports(count: int) -> list[int]:
    found = [socket.socket() for _ in range(count)]
    for one in found:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in found]
    for one in found:
        one.close()
    return ports


@pytest.fixture(scope="module", params=["slurm", "stand-in"])
def cluster(
    heavy: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    if request.param == "slurm" and (reason := slurm_cluster.why_not()):
        pytest.skip(f"the real Slurm is not tried: {reason}")
    one: Any = StandIn(tmp_path_factory.mktemp("stand-in")) if request.param == "stand-in" else None
    one = one or RealSlurm(tuple(free_ports(3)))
    yield one
    one.close()


def script(what: str, folder: Path, executor: Any) -> str:
    line = shlex.join([sys.executable, str(PROGRAM), what, str(folder), json.dumps(executor)])
    return f"#!/bin/bash\nexport PYTHONPATH={ENVIRONMENT['PYTHONPATH']}\nexec {line}\n"


def result(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == (pytest.approx(values, abs=1e-5) if isinstance(values[0], float) else values)


def test_scores_on_two_nodes_are_those_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    done = slurm_cluster.run(cluster, script("score", tmp_path, TWO), tmp_path)
    assert (done.code, done.output) == (0, "")
    assert_same(result(tmp_path), scored(tmp_path / "alone", None))
    shares = [(tmp_path / "likelihood" / f"measured-{rank}.jsonl").read_text() for rank in range(2)]
    assert all(shares), "both nodes measured"


def test_a_student_is_trained_over_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    done = slurm_cluster.run(cluster, script("train", tmp_path, TWO), tmp_path)
    assert (done.code, done.output) == (0, "")
    alone = trained(tmp_path / "alone", None)
    assert [step for step, _ in result(tmp_path)] == [step for step, _ in alone] == list(range(1, sft_run.STEPS + 1))
    assert [loss for _, loss in result(tmp_path)] == pytest.approx([loss for _, loss in alone], abs=1e-3)
