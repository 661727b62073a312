"""Start the processes of `accelerate launch`: here, or on the nodes that an executor gives.

    settings.py    the executors of a recipe: `score.executor`, `train_student.executor`, ...
    plan.py        how many processes, on what, by which accelerate config
    command.py     the command line of one machine
    start.py       who starts them
    ray_group.py   on the nodes of a Ray cluster
    node_look.py   what is looked at on such a node first
    slurm_launch.py, slurm_task.py   on the nodes of a Slurm job; what runs there first

What runs in the processes is `backends.launch`.
"""

from typing import Protocol

from persyn_hf.errors import EngineError


class Lost(EngineError):
    """Processes on other machines were lost: killed, or with their actor or node. They may be started again."""


class Started(Protocol):
    """Processes that were started, on one machine or several; as `engines.supervised.Kept`."""

    def poll(self) -> int | None:
        """Return the status of the first launcher that failed, 0 once all have ended well; None while they run."""

    def stop(self) -> None:
        """End all of the processes, and return when they are gone."""
