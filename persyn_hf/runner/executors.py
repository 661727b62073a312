"""Look at where the processes of steps will run: configs of accelerate, and clusters."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from persyn_hf.backends.engines.ray_cluster import check_address, check_gpus, check_room, connected
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.slurm import find_job, place_replicas
from persyn_hf.backends.launching.plan import DOING, plan_of
from persyn_hf.backends.launching.ray_group import look_at_cluster
from persyn_hf.backends.launching.slurm_launch import look_at_job
from persyn_hf.errors import PersynError
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate.settings import engine_options


def check_processes(step: Step) -> None:
    """Refuse a config of accelerate that cannot be read, or does not fit the executor."""
    if step.stage in DOING:
        plan_of(step.settings, step.stage)


def is_on_ray(step: Step) -> bool:
    """Tell whether the executor of a step is a Ray cluster."""
    executor = getattr(step.settings, "executor", None)
    return executor is not None and executor.kind == "ray"


def look_at_clusters(steps: Sequence[Step]) -> Iterator[str]:
    """Yield a warning per address of a Ray cluster at which nothing answers now."""
    settings: dict[str, Any] = {step.stage: step.settings for step in steps if is_on_ray(step)}
    keys = {of.executor.address: f"{stage}.executor" for stage, of in settings.items()}
    for address, key in keys.items():
        try:
            check_address(address, key)
        except PersynError as error:
            yield f"warning: {error}"


def work_root(step: Step, store: Path) -> Path:
    """Return the folder that has the work folders of a step: `store`, unless its executor names another.

    Processes on other machines need it as well.
    """
    shared = getattr(getattr(step.settings, "executor", None), "shared", None)
    return Path(shared) if shared else store


def check_machines(steps: Sequence[Step], store: Path) -> None:
    """Refuse what the machines around a run do not have: a Slurm job, its nodes, GPUs, a folder that all of them see.

    `persyn plan` does not look: it is asked on another machine than the run will have. store: the folder for work of
    the store. Raises `EngineError`.
    """
    with ExitStack() as stack:
        for step in {step.stage: step for step in steps}.values():
            executor: Any = getattr(step.settings, "executor", None)
            if executor is not None:
                if executor.kind == "ray":  # once for all stages
                    stack.enter_context(connected(executor.address, f"{step.stage}.executor"))
                _check_executor(executor, step.stage, work_root(step, store))
    servers = [server for step in steps for server in _servers(step)]
    over_nodes = {name: vllm.gpus for name, vllm in servers if vllm.distributed_executor_backend == "ray"}
    for name, gpus in over_nodes.items():
        check_gpus(gpus, name)


def _check_executor(executor: Any, stage: str, folder: Path) -> None:
    key = f"{stage}.executor"
    if stage == "generate":  # whose processes need no folder
        if executor.kind == "slurm":
            place_replicas(find_job(key), executor, key, alone=False)
        else:
            with connected(executor.address, key) as ray:
                check_room(ray, executor, key)
        return
    look = look_at_job if executor.kind == "slurm" else look_at_cluster
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="look-", dir=folder) as place:
        look(executor, stage, Path(place))


def _servers(step: Step) -> list[tuple[str, VllmSettings]]:
    """List the vLLM servers that a step starts, each with whom it serves."""
    settings: Any = step.settings
    if step.stage == "generate" and settings.engine != "import":
        options = [(teacher.name, engine_options(settings, teacher)) for teacher in step.teachers]
        return [(f"the teacher {name}", found["vllm"]) for name, found in options if found["kind"] == "vllm"]
    if step.stage == "evaluate" and settings.engine == "vllm":
        return [("the student", settings.vllm)]
    return []
