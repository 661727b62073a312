"""Start `accelerate launch` for a module: once here, or once on each machine of an executor."""

import os
from collections.abc import Sequence
from pathlib import Path

from persyn_hf.backends.engines.supervised import Kept
from persyn_hf.backends.launching import Started
from persyn_hf.backends.launching.command import LOG, SAFE, command
from persyn_hf.backends.launching.plan import Plan


def start(plan: Plan, module: str, folder: Path, needs: Sequence[str] = (), again: bool = False) -> Started:
    """Start the processes of a plan, each as `python -m MODULE FOLDER`.

    needs: files and folders of this machine, where they are any, that others must have as well. again: others were
    lost, and may be about to return.
    """
    if plan.executor is None:
        assert plan.path is not None
        return Kept(command(plan.path, module, folder), environment=os.environ | SAFE, log=folder / LOG)
    if plan.executor.kind == "slurm":
        from persyn_hf.backends.launching.slurm_launch import SlurmLaunch

        return SlurmLaunch(plan, module, folder, needs)
    from persyn_hf.backends.launching.ray_group import RayGroup

    return RayGroup(plan, module, folder, needs, again)
