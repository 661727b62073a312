"""Start the processes of a plan on nodes of the Slurm job that this process runs in: `srun`, a launcher on each node.

On every node srun runs `slurm_task`, which looks whether the node sees this folder, and becomes `accelerate launch`.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persyn_hf.backends.engines.slurm import Job, Part, SlurmStep, find_job, place_replicas
from persyn_hf.backends.launching.command import LOG, SAFE, command
from persyn_hf.backends.launching.node_look import task_of
from persyn_hf.backends.launching.plan import Plan, write_config
from persyn_hf.backends.launching.settings import Executor
from persyn_hf.backends.launching.slurm_task import MODULE, SAYS
from persyn_hf.errors import EngineError


POLL_S = 0.2
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
        task = task_of(plan.stage, folder, needs, SEEN_S) | {"place": plan.key, "launcher": launcher}
        threads = max(1, part.cpus // plan.per_machine)
        nodes = [job.nodes[place] for place in places]
        self._step = _start(task, job, nodes, part, self._log, {"OMP_NUM_THREADS": str(threads)})

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
        if sentence := _said(self._log):
            left = {"kind": "EngineError", "sentence": sentence}
            (self._folder / "fault-node.json").write_text(json.dumps(left), encoding="utf-8")


def look_at_job(executor: Executor, stage: str, folder: Path) -> None:
    """Refuse nodes of the job on which the processes of a stage could not work.

    folder: of the driver, which all nodes must see. Raises `EngineError`, also for fewer nodes or GPUs than asked.
    """
    key, log = f"{stage}.executor", folder / LOG
    job = find_job(key)
    places, part = place_replicas(job, executor, key, alone=True)
    find_port(executor.port, key)
    task = task_of(stage, folder, (), SEEN_S) | {"place": key, "launcher": []}
    step = _start(task, job, [job.nodes[place] for place in places], part, log, {})
    try:
        while (status := step.poll()) is None:
            time.sleep(POLL_S)
    finally:
        step.stop()
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"status {status}"]
        raise EngineError(
            _said(log)
            or f"the nodes of the Slurm job {job.number} (`{key}`) could not be looked at by srun; mend what it says: "
            f"{lines[-1]}"
        )


def _start(
    task: dict[str, Any], job: Job, nodes: Sequence[str], part: Part, log: Path, environment: dict[str, str]
) -> SlurmStep:
    """Run `slurm_task` on each of the nodes."""
    line = [sys.executable, "-m", MODULE, json.dumps(task)]
    return SlurmStep(line, job=job, nodes=nodes, part=part, environment=os.environ | SAFE | environment, log=log)


def _said(log: Path) -> str | None:
    """Return the sentence of a node in the log of srun."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        _, mark, sentence = line.partition(SAYS)
        if mark:
            return sentence
    return None


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
