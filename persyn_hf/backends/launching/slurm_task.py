"""Look on one node of a Slurm job whether it can take part in a launch, and become its `accelerate launch`.

What is wrong is printed, for the log of srun reaches the driver where the folder may not.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from persyn_hf.backends.launching.node_look import TOKEN


MODULE = "persyn_hf.backends.launching.slurm_task"
SAYS = "persyn says: "
LOOK_S = 0.5


def main(task: dict[str, Any]) -> None:
    """Become the launcher of this node.

    Args:
        task: `folder` and the `token` that the driver wrote there; `place`, the setting that names this executor;
            `needs`, files that must be here; `patience_s`, for the folder to be seen; `launcher`, the command line on
            the first node.
    """
    node = f"the node {os.environ.get('SLURMD_NODENAME', os.uname().nodename)} of the Slurm job (`{task['place']}`)"
    if not _sees(Path(task["folder"]), task["token"], task["patience_s"]):
        sys.exit(
            f"{SAYS}{node} does not see what is written to {task['folder']} on the first one; let "
            f"`{task['place']}.shared` name a folder that all nodes share (NFS, Lustre)"
        )
    lacking = [path for path in task["needs"] if not os.path.exists(path)]
    if lacking:
        sys.exit(
            f"{SAYS}{node} lacks {lacking[0]}, which is there on the first one; copy it there to the same path, or "
            "name a model of the Hub"
        )
    launcher = task["launcher"]
    rank = launcher.index("--machine_rank") + 1
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
    main(json.loads(sys.argv[1]))
