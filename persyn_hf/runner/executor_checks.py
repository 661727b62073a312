"""Refuse at the start of a run what the machines around it do not have: a Slurm job, its nodes, GPUs of a Ray cluster.

`persyn plan` does not look: it is asked on another machine than the run will have.
"""

from collections.abc import Sequence
from typing import Any

from persyn_hf.backends.engines.ray_cluster import check_gpus
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.slurm import find_job, place_replicas
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate.settings import engine_options


def check_executors(steps: Sequence[Step]) -> None:
    """Refuse the executors of steps that will run (`EngineError`)."""
    for step in steps:
        settings: Any = step.settings
        executor = getattr(settings, "executor", None)
        if executor is not None and executor.kind == "slurm":
            place = f"{step.stage}.executor"
            place_replicas(find_job(place), executor, place, alone=step.stage != "generate")
        for name, vllm in _servers(step):
            if vllm.distributed_executor_backend == "ray":
                check_gpus(vllm.gpus, name)


def _servers(step: Step) -> list[tuple[str, VllmSettings]]:
    """List the vLLM servers that a step starts, each with whom it serves."""
    settings: Any = step.settings
    if step.stage == "generate" and settings.engine != "import":
        options = [(teacher.name, engine_options(settings, teacher)) for teacher in step.teachers]
        return [(f"the teacher {name}", found["vllm"]) for name, found in options if found["kind"] == "vllm"]
    if step.stage == "evaluate" and settings.engine == "vllm":
        return [("the student", settings.vllm)]
    return []
