"""How many processes a stage works in, what they are told, and what is refused before any is started."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from persyn_hf.backends.engines.ray_cluster import check_address, check_room
from persyn_hf.backends.launching.command import command
from persyn_hf.backends.launching.node_look import look_from
from persyn_hf.backends.launching.plan import Plan, plan_of, write_config
from persyn_hf.backends.launching.settings import Executor
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.stages import score


CONFIGS = Path(__file__).parents[2] / "recipes" / "accelerate"


def plan(config: str | None, **executor: Any) -> Plan:
    path = None if config is None else str(CONFIGS / f"{config}.yaml")
    settings = score.Settings(accelerate=path, executor=Executor(kind="ray", **executor))
    found = plan_of(settings, "score")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("config", "executor", "expected"),
    [
        (None, {"replicas": 3}, ("MULTI_GPU", True, 3, 3)),
        (None, {"replicas": 2, "gpus_per_replica": 8}, ("MULTI_GPU", False, 2, 16)),
        (None, {"replicas": 4, "gpus_per_replica": 0.5}, ("MULTI_GPU", False, 4, 4)),
        ("cpu-2", {"replicas": 2}, ("MULTI_GPU", True, 2, 4)),
        ("gpu-1", {"replicas": 2, "gpus_per_replica": 1}, ("MULTI_GPU", False, 2, 2)),
        ("gpu-8-fsdp2", {"replicas": 4, "gpus_per_replica": 8}, ("FSDP", False, 4, 32)),
    ],
)
def test_the_config_of_all_machines(
    tmp_path: Path, config: str | None, executor: dict[str, Any], expected: tuple[str, bool, int, int]
) -> None:
    """Accelerate reads it; what the executor decides on is not in it, and the rest is as in the config given."""
    from accelerate.commands.config.config_args import load_config_from_file

    found = plan(config, **executor)
    path = write_config(found, tmp_path)
    written = yaml.safe_load(path.read_text())
    parts = ("distributed_type", "use_cpu", "num_machines", "num_processes")
    assert tuple(written[part] for part in parts) == expected
    assert not {"gpu_ids", "machine_rank", "main_process_ip"} & written.keys()
    assert load_config_from_file(str(path)).num_processes == found.processes == expected[3]
    if config is not None:
        given = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
        kept = {key: value for key, value in given.items() if key not in (*parts, "gpu_ids")}
        assert kept == {key: written[key] for key in kept}


def test_deepspeed_starts_no_machine_itself(tmp_path: Path) -> None:
    """Its own launcher would reach the others by pdsh."""
    path = write_config(plan("gpu-8-zero3", replicas=2, gpus_per_replica=8), tmp_path)
    written = yaml.safe_load(path.read_text())["deepspeed_config"]
    given = yaml.safe_load((CONFIGS / "gpu-8-zero3.yaml").read_text())["deepspeed_config"]
    assert written == {**given, "deepspeed_multinode_launcher": "standard"}


def test_the_command_of_a_machine() -> None:
    line = command("c.yaml", "a.module", Path("/shared/work"), rank=1, address="10.0.0.7", port=4000)
    assert " ".join(line[1:]) == (
        "-m accelerate.commands.launch --config_file c.yaml --main_process_port 4000 --log_dir /shared/work/launcher "
        "--machine_rank 1 --main_process_ip 10.0.0.7 -m a.module /shared/work"
    )


@pytest.mark.parametrize(
    ("config", "executor", "sentence"),
    [
        ("cpu-2", {"gpus_per_replica": 2}, "starts 2 processes on the CPU, and `score.executor` gives them 2 GPUs"),
        ("gpu-8", {"gpus_per_replica": 4}, "starts 8 processes on a GPU each, and `score.executor` gives them 4 GPUs"),
        ("gpu-8", {}, "starts 8 processes on a GPU each, and `score.executor` gives them 0 GPUs"),
    ],
)
def test_a_config_that_does_not_fit(config: str, executor: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(config, **executor)
    path = CONFIGS / f"{config}.yaml"
    assert str(caught.value) == f"the accelerate config {path} {sentence}; write the same number in both"


def test_a_device_and_an_executor_contradict_each_other() -> None:
    with pytest.raises(RecipeError, match="`device: cuda:1` and `executor` contradict each other; leave `device` out"):
        read_section(score.Settings, {"device": "cuda:1", "executor": {"kind": "ray"}}, "score")


def test_no_cluster_at_the_address() -> None:
    with pytest.raises(EngineError) as caught:
        check_address("127.0.0.1:9", "score.executor")
    assert str(caught.value) == (
        "there is no Ray cluster at 127.0.0.1:9 (`score.executor.address`): ConnectionRefusedError: [Errno 111] "
        "Connection refused; start one with `ray start --head`, or leave `address` out to start one for this run"
    )


class Nodes:
    """What `ray.nodes` says of nodes with 8 CPUs and 4 GPUs, one of which has died."""

    def nodes(self) -> list[dict[str, Any]]:
        own = enumerate((True, True, False))
        return [{"NodeID": str(id), "Alive": alive, "Resources": {"CPU": 8.0, "GPU": 4.0}} for id, alive in own]


@pytest.mark.parametrize(
    ("gpus", "cpus", "room"), [(4, 8, 2), (4, 1, 2), (2, 1, 4), (1, 2, 8), (0.5, 0.5, 16), (0, 3, 4), (1, 5, 2)]
)
def test_room_is_counted_node_by_node(gpus: float, cpus: float, room: int) -> None:
    settings = Executor(kind="ray", gpus_per_replica=gpus, cpus_per_replica=cpus)
    assert check_room(Nodes(), settings, "score.executor", room) == ["0", "1"]
    with pytest.raises(EngineError) as caught:
        check_room(Nodes(), settings, "score.executor", room + 1)
    assert str(caught.value) == (
        f"the Ray cluster has the {cpus:g} CPUs and {gpus:g} GPUs that `score.executor` asks for each replica for "
        f"{room} of {room + 1} replicas (found: 8 CPUs and 4 GPUs; 8 CPUs and 4 GPUs); ask for less, or add a node"
    )


def test_a_look_at_this_machine(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    task = {
        "folder": str(tmp_path),
        "token": "one",
        "patience_s": 0,
        "versions": {"persyn_hf": "1", "torch": "2", "no-such-package": "3"},
        "needs": [str(tmp_path), "/no/such/model"],
    }
    found = look_from(json.dumps(task))()
    assert found["python"] is None and found["sees"] and found["lacks"] == ["/no/such/model"]
    assert found["versions"].keys() == {"persyn_hf", "torch", "no-such-package"}
    assert found["versions"]["no-such-package"] is None
    assert not look_from(json.dumps({**task, "token": "two"}))()["sees"]
