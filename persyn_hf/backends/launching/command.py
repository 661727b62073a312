"""The command line of `accelerate launch` for one machine, and the names of what it writes."""

import sys
from pathlib import Path


LOG = "log"  # of the launcher here; that of machine 1 is log-1
LAUNCHED = "launcher"
SAFE = {"PYTHONSAFEPATH": "1"}  # environment: modules do not come from where we are


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
