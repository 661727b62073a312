"""Start `accelerate launch` for a module: once here, or once on each machine of an executor."""

import os
import sys
from functools import partial
from pathlib import Path

from persyn_hf.backends.engines.supervised import Kept
from persyn_hf.backends.launching import Started
from persyn_hf.backends.launching.plan import Plan


LOG = "log"  # of the launcher here; that of machine 1 is log-1
LAUNCHED = "launcher"
SAFE = {"PYTHONSAFEPATH": "1"}  # modules do not come from where we are


def start(plan: Plan, module: str, folder: Path) -> Started:
    """Start the processes of a plan, each as `python -m MODULE FOLDER`."""
    if plan.executor is None:
        assert plan.path is not None
        return Kept(command(plan.path, module, folder), environment=os.environ | SAFE, log=folder / LOG)
    if plan.executor.kind == "slurm":
        from persyn_hf.backends.launching.slurm_launch import SlurmLaunch

        launcher = partial(command, module=module, folder=folder)
        return SlurmLaunch(plan, folder, launcher, environment=os.environ | SAFE, log=folder / LOG)
    from persyn_hf.backends.launching.ray_group import RayGroup

    return RayGroup(plan, module, folder)


def command(
    config: str, module: str, folder: Path, *, rank: int = 0, address: str | None = None, port: int = 0
) -> list[str]:
    """Return the command line of the launcher on machine `rank`.

    Machine 0 listens at `address` and `port`; without an address there is one machine only, and 0 is a free port.
    """
    options = ["--config_file", config, "--main_process_port", str(port)]
    options += ["--log_dir", str(folder / LAUNCHED)]  # else torch leaves a folder in the system's for every launch
    if address is not None:
        options += ["--machine_rank", str(rank), "--main_process_ip", address]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", module, str(folder)]
