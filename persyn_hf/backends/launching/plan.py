"""Read how many processes a stage works in, and refuse what accelerate or the executor could not start."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from persyn_hf.backends.launching.settings import Executor
from persyn_hf.errors import InputError, RecipeError, reason, require


CONFIG = "accelerate.yaml"  # in the folder of a launch on other machines
# Of a config, what the executor decides on instead.
DECIDED = ("gpu_ids", "machine_rank", "main_process_ip", "main_process_port", "rdzv_backend", "same_network")

DOING = {
    "score": "answers are scored",
    "assign": "prompts are routed",
    "train_router": "a router is trained",
    "train_student": "a student is trained",
    "evaluate": "a student is evaluated",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The processes of a stage.

    stage: names the settings in errors. path: the accelerate config of one machine; None: the default of an executor.
    kind: its `distributed_type`. per_machine: processes.
    """

    stage: str
    path: str | None
    kind: str
    per_machine: int
    cpu: bool
    deepspeed: Mapping[str, Any]
    executor: Executor | None = None

    @property
    def machines(self) -> int:
        """The number of launchers."""
        return self.executor.machines if self.executor else 1

    @property
    def processes(self) -> int:
        """The number of processes on all machines."""
        return self.machines * self.per_machine

    @property
    def key(self) -> str:
        """The setting that says where the processes run."""
        return f"{self.stage}.{'executor' if self.executor else 'accelerate'}"


def plan_of(settings: Any, stage: str) -> Plan | None:
    """Read the plan of a stage's settings, `executor` and, if it has one, `accelerate`; None without either."""
    path = getattr(settings, "accelerate", None)
    if path is None and settings.executor is None:
        return None
    return read_plan(stage, path, settings.executor)


def read_plan(stage: str, path: str | None, executor: Executor | None = None) -> Plan:
    """Read the accelerate config (`use_cpu`, `distributed_type`, ...) before anything is started.

    Raises `InputError` where the config cannot be read or does not describe one machine, `RecipeError` where it does
    not fit the executor.
    """
    require("accelerate", extra="models", feature=f"`{stage}.{'accelerate' if path else 'executor'}`")
    if path is None:
        assert executor is not None
        each, cpu = max(1, math.ceil(executor.gpus)), not executor.gpus
        return Plan(
            stage=stage, path=None, kind="MULTI_GPU", per_machine=each, cpu=cpu, deepspeed={}, executor=executor
        )
    config = _load(path, DOING[stage])
    plan = Plan(
        stage=stage,
        path=path,
        kind=str(getattr(config.distributed_type, "value", config.distributed_type)),
        per_machine=int(config.num_processes),
        cpu=bool(config.use_cpu),
        deepspeed=getattr(config, "deepspeed_config", None) or {},
        executor=executor,
    )
    if executor is not None:
        _check_fit(plan, executor)
    return plan


def _load(path: str, doing: str) -> Any:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    try:
        config = load_config_from_file(path)
    except Exception as error:  # noqa: BLE001  # no YAML, no mapping, unknown keys: anything is raised
        raise InputError(f"the accelerate config {path} cannot be read: {reason(error)}") from None
    if getattr(config, "num_machines", 1) != 1:
        raise InputError(
            f"the accelerate config {path} names {config.num_machines} machines, and {doing} on one; "
            "set `num_machines: 1`"
        )
    if config.distributed_type == DistributedType.MULTI_CPU and not config.mpirun_config:
        raise InputError(
            f"the accelerate config {path} is of type MULTI_CPU, of which accelerate starts one process only unless "
            "MPI is configured; write `distributed_type: MULTI_GPU` and `use_cpu: true` for processes on the CPU"
        )
    return config


def _check_fit(plan: Plan, executor: Executor) -> None:
    """Refuse a config whose processes and the GPUs of one launcher are not as many."""
    needed = 0 if plan.cpu else plan.per_machine
    if needed == math.ceil(executor.gpus):
        return
    on = "the CPU" if plan.cpu else "a GPU each"
    raise RecipeError(
        f"the accelerate config {plan.path} starts {plan.per_machine} processes on {on}, and `{plan.key}` gives them "
        f"{executor.gpus:g} GPUs; write the same number in both"
    )


def write_config(plan: Plan, folder: Path) -> Path:
    """Write the accelerate config of all machines together into `folder`, which each of them sees."""
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "mixed_precision": "no",
        "use_cpu": plan.cpu,
    }
    if plan.path is not None:
        config |= yaml.safe_load(Path(plan.path).read_text(encoding="utf-8"))
        for key in DECIDED:
            config.pop(key, None)
    config["distributed_type"] = "MULTI_GPU" if plan.kind == "NO" else plan.kind  # else it starts one process only
    config |= {"num_machines": plan.machines, "num_processes": plan.processes}
    if plan.deepspeed:
        config["deepspeed_config"] = {**plan.deepspeed, "deepspeed_multinode_launcher": "standard"}
    (folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / CONFIG
