"""Start the processes of a plan on nodes of the Slurm job that this process runs in: `srun`, a launcher on each node.

On every node srun runs `slurm_task`, which looks whether the node sees this folder, and becomes `accelerate launch`.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from persyn_hf.backends.engines.slurm import SlurmStep, find_job, place_replicas
from persyn_hf.backends.launching.command import LOG, SAFE, command
from persyn_hf.backends.launching.node_look import leave_token
from persyn_hf.backends.launching.plan import Plan, write_config
from persyn_hf.backends.launching.slurm_task import MODULE, SAYS
from persyn_hf.errors import EngineError


SEEN_S = 30.0  # for a network file system to show what was written elsewhere


class SlurmLaunch:
    """A launcher on each replica's node, as `launching.Started`."""

    def __init__(self, plan: Plan, module: str, folder: Path, needs: Sequence[str] = ()) -> None:
        """Start them; `needs` are local files and folders that every node must have.

        Raises:
            EngineError: the job has not what the plan asks for, or the port is taken.
        """
        assert plan.executor is not None
        self._folder, self._log = folder, folder / LOG
        job = find_job(plan.key)
        places, part = place_replicas(job, plan.executor, plan.key, alone=True)
        port = find_port(plan.executor.port, plan.key)
        config = str(write_config(plan, folder))
        launcher = command(config, module, folder, rank=0, address=job.addresses[0], port=port)
        task = leave_token(folder, needs, SEEN_S) | {"place": plan.key, "launcher": launcher}
        threads = max(1, part.cpus // plan.per_machine)
        self._step = SlurmStep(
            [sys.executable, "-m", MODULE, json.dumps(task)],
            job=job,
            nodes=[job.nodes[place] for place in places],
            part=part,
            environment=os.environ | SAFE | {"OMP_NUM_THREADS": str(threads)},
            log=self._log,
        )

    def poll(self) -> int | None:
        """Return the exit status of srun, which is that of the first launcher that failed; None while they run."""
        status = self._step.poll()
        if status:
            self._pass_on()
        return status

    def stop(self) -> None:
        """End all processes, and return when they are gone."""
        self._step.stop()

    def _pass_on(self) -> None:
        """Leave the sentence of a node for `launch.fault`: one that does not see the folder can only print it."""
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            _, mark, sentence = line.partition(SAYS)
            if mark:
                left = {"kind": "EngineError", "sentence": sentence}
                (self._folder / "fault-node.json").write_text(json.dumps(left), encoding="utf-8")
                return


def find_port(wanted: int | None, place: str) -> int:
    """Return a port of this node at which nobody listens: the wanted one, or any.

    Raises:
        EngineError: somebody listens at the wanted one.
    """
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the launcher does
        try:
            found.bind(("", wanted or 0))
        except OSError as error:
            raise EngineError(
                f"the port {wanted} (`{place}.port`) cannot be used on {os.uname().nodename}: {error.strerror}; name "
                "another one, or leave it out for a free one"
            ) from None
        return int(found.getsockname()[1])
