"""Look on one node of a Slurm job whether it can take part in a launch, and become its `accelerate launch`.

What is wrong is printed, for the log of srun reaches the driver where the folder may not.
"""

import json
import os
import sys
from typing import Any

from persyn_hf.backends.launching.node_look import fault_of
from persyn_hf.backends.launching.probe import look


MODULE = "persyn_hf.backends.launching.slurm_task"
SAYS = "persyn says: "


def main(task: dict[str, Any]) -> None:
    """Become the launcher of this node.

    Args:
        task: that of `node_look.task_of`; `place`, the setting that names this executor; and `launcher`, the command
            line on the first node, empty where this is only a look.
    """
    node = f"the node {os.environ.get('SLURMD_NODENAME', os.uname().nodename)} of the Slurm job (`{task['place']}`)"
    if fault := fault_of(look(task), task, node, task["place"]):
        sys.exit(f"{SAYS}{fault}")
    if launcher := task["launcher"]:
        rank = launcher.index("--machine_rank") + 1
        line = [*launcher[:rank], os.environ["SLURM_PROCID"], *launcher[rank + 1 :]]
        os.execv(line[0], line)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
