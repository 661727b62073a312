"""The executors of stages that run in the processes of `accelerate launch`: on which machines these are."""

from typing import Any

from pydantic import Field

from persyn_hf.backends.engines.settings import ExecutorSettings


class Executor(ExecutorSettings):
    """The settings of processes that run on the nodes of a Ray cluster or of a Slurm job."""

    shared: str | None = Field(
        default=None,
        description="A folder that every node sees, for checkpoints and results. Null: the store's own work folder.",
    )
    max_restarts: int = Field(
        default=3, ge=0, le=1000, description="The restarts after a process, an actor or a node was lost."
    )
    port: int | None = Field(
        default=None,
        ge=1024,
        le=65_535,
        description="Of slurm: the port of the first node at which the processes meet. Null: a free one.",
    )

    @property
    def machines(self) -> int:
        """The number of launchers, one per replica."""
        return self.replicas

    @property
    def gpus(self) -> float:
        """The GPUs of one launcher."""
        return self.gpus_per_replica


def decider(settings: Any) -> str:
    """Name the setting that says which devices a stage works on, `accelerate` or `executor`; empty without either."""
    return next((f"`{name}`" for name in ("accelerate", "executor") if getattr(settings, name) is not None), "")
