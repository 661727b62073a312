"""Look on one node of a Slurm job whether it can take part in a launch, and become its `accelerate launch`.

What is wrong is printed, for the log of srun reaches the driver where the folder may not.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path


MODULE = "persyn_hf.backends.launching.slurm_task"
TOKEN = "token"  # a file that the driver writes, and every node reads
SAYS = "persyn says: "
SEEN_S = 30.0  # network disks show a new file late
LOOK_S = 0.5


def main(folder: Path, token: str, place: str, launcher: Sequence[str]) -> None:
    """Become the launcher of this node.

    Args:
        token: what the driver wrote to the folder.
        place: the setting that names this executor, such as `score.executor`.
        launcher: the command line of the launcher on the first node.
    """
    if not _sees(folder, token, SEEN_S):
        node = os.environ.get("SLURMD_NODENAME", os.uname().nodename)
        sys.exit(
            f"{SAYS}the node {node} does not see what the first node wrote to {folder}; put the store (`--store`) or "
            f"`{place}.shared` on a disk that all nodes see"
        )
    rank = list(launcher).index("--machine_rank") + 1
    line = [*launcher[:rank], os.environ["SLURM_PROCID"], *launcher[rank + 1 :]]
    os.execv(line[0], line)


def _sees(folder: Path, token: str, seconds: float) -> bool:
    """Tell whether the folder that the driver wrote the token to is the one that is seen here."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.listdir(folder.parent)  # has NFS ask its server anew
            if (folder / TOKEN).read_text(encoding="utf-8") == token:
                return True
        except OSError:
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
