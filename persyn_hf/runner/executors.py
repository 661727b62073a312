"""Look at where the processes of steps will run: configs of accelerate, and clusters."""

from collections.abc import Iterator, Sequence
from typing import Any

from persyn_hf.backends.engines.ray_cluster import check_address
from persyn_hf.backends.launching.plan import plan_of
from persyn_hf.errors import PersynError
from persyn_hf.runner.step import Step


def check_processes(step: Step) -> None:
    """Refuse a config of accelerate that cannot be read, or does not fit the executor."""
    if hasattr(step.settings, "accelerate"):
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
