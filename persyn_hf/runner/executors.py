"""Look at where the processes of steps will run: configs of accelerate, and clusters."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from persyn_hf.backends.engines.ray_cluster import check_address, check_gpus, check_room, connected
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.slurm import find_job, place_replicas
from persyn_hf.backends.launching.plan import DOING, plan_of
from persyn_hf.backends.launching.ray_group import look_at_cluster
from persyn_hf.backends.launching.slurm_launch import look_at_job
from persyn_hf.errors import EngineError, PersynError, reason
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
            if executor is None:
                continue
            key = f"{step.stage}.executor"
            if step.stage != "generate":
                if executor.kind == "ray":  # one connection for all stages
                    stack.enter_context(connected(executor.address, key))
                with _folder_in(work_root(step, store), key) as folder:
                    (look_at_job if executor.kind == "slurm" else look_at_cluster)(executor, step.stage, folder)
            elif executor.kind == "slurm":
                place_replicas(find_job(key), executor, key, alone=False)
            elif executor.address is not None:  # else it starts its own, soon
                check_room(stack.enter_context(connected(executor.address, key)), executor, key)
    servers = [server for step in steps for server in _servers(step)]
    over_nodes = {name: vllm.gpus for name, vllm in servers if vllm.distributed_executor_backend == "ray"}
    for name, gpus in over_nodes.items():
        check_gpus(gpus, name)


@contextmanager
def _folder_in(folder: Path, key: str) -> Iterator[Path]:
    """Make a folder of its own in the one that all nodes are to see, and remove it afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = TemporaryDirectory(prefix="look-", dir=folder)
    except OSError as error:
        raise EngineError(
            f"nothing can be written to {folder}: {reason(error)}; let `{key}.shared` name a folder that this machine "
            "may write to and all nodes see"
        ) from None
    with place as name:
        yield Path(name)


def _servers(step: Step) -> list[tuple[str, VllmSettings]]:
    """List the vLLM servers that a step starts, each with whom it serves."""
    settings: Any = step.settings
    if step.stage == "generate" and settings.engine != "import":
        options = [(teacher.name, engine_options(settings, teacher)) for teacher in step.teachers]
        return [(f"the teacher {name}", found["vllm"]) for name, found in options if found["kind"] == "vllm"]
    if step.stage == "evaluate" and settings.engine == "vllm":
        return [("the student", settings.vllm)]
    return []
