"""Use the nodes of the Slurm job that this process runs in: what they have, and programs that run on them.

A program is a job step, started by `srun`. Three facts about steps decide how (Slurm 22.05):

- A step without room waits in silence for ever, so each is asked for with `--immediate`.
- SIGTERM makes srun end its step. A srun that is killed (-9) leaves its step running: that is cancelled by its name.
- The variables of the batch job (SLURM_NTASKS_PER_NODE, ...) count as options of srun, so it is not given them.
"""

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from persyn_hf.backends.engines.settings import ExecutorSettings
from persyn_hf.backends.engines.supervised import Kept
from persyn_hf.errors import EngineError


ROOM_S = 120  # until a step that gets no room ends with a sentence of srun's; the one before may still be going
GRACE_S = 60.0  # Slurm's own KillWait is 30 s
ANSWER_S = 60  # of the controller
OPTIONS = re.compile(
    r"(SLURM|SRUN)_(CPU|GPU|GRES|MEM|TRES|NTASKS|NPROCS|NNODES|DISTRIBUTION|EXACT|EXCLUSIVE|OVERLAP|WHOLE|STEP|HINT"
    r"|THREADS|CORE|IMMEDIATE|KILL_BAD_EXIT|TASKS_PER_NODE|EXPORT)"
)


class Job(NamedTuple):
    """The Slurm job of this process; what a node has is what this one, the first, has."""

    number: str
    nodes: tuple[str, ...]
    addresses: tuple[str, ...]  # of the nodes, as Slurm itself reaches them
    gpus: int  # of a node
    cpus: int  # of a node


class Part(NamedTuple):
    """The part of a node that one program gets."""

    gpus: int
    cpus: int


def find_job(place: str) -> Job:
    """Find the job that this process runs in; `place` is the setting that asks for it, such as `score.executor`.

    Raises:
        EngineError: there is none, this is not its first node, or Slurm does not answer.
    """
    number = os.environ.get("SLURM_JOB_ID", "")
    if not number:
        raise EngineError(
            f"`{place}` is of kind slurm, and this process runs in no Slurm job (SLURM_JOB_ID is not set); write a "
            "script with `persyn slurm RECIPE --nodes N`, and submit it with sbatch"
        )
    missing = [name for name in ("srun", "scontrol", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise EngineError(
            f"`{place}` is of kind slurm, and the command {missing[0]} is not on the PATH of {_here()}; add the "
            "folder of Slurm's commands to PATH"
        )
    nodes = tuple(_ask("scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")).split())
    if not nodes or os.environ.get("SLURMD_NODENAME") != nodes[0]:
        first = nodes[0] if nodes else "none"
        raise EngineError(
            f"`persyn run` must run on the first node of the Slurm job {number}, {first}, and runs on {_here()}; "
            f"submit it with sbatch, or within salloc write: srun --overlap --nodes 1 --ntasks 1 --nodelist {first} "
            "persyn run RECIPE"
        )
    shown = _ask("scontrol", "--oneliner", "show", "node", ",".join(nodes))
    reached = dict(re.findall(r"^NodeName=(\S+) .*?\bNodeAddr=(\S+)", shown, re.MULTILINE))
    gpus = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    cpus = os.environ.get("SLURM_CPUS_ON_NODE", "1")
    return Job(
        number,
        nodes,
        tuple(reached.get(node, node) for node in nodes),
        int(gpus) if gpus.isdecimal() else 0,
        int(cpus) if cpus.isdecimal() else 1,
    )


def place_replicas(job: Job, settings: ExecutorSettings, place: str, *, alone: bool) -> tuple[list[int], Part]:
    """Return the node of every replica, as its place in `job.nodes`, and the part of a node that each gets.

    alone: each replica has a node to itself, as launchers of accelerate do; else nodes are shared evenly.

    Raises:
        EngineError: the job has fewer nodes, GPUs or CPU cores than that.
    """
    per_node = 1 if alone else -(-settings.replicas // len(job.nodes))
    if settings.replicas > per_node * len(job.nodes):
        raise EngineError(
            f"`{place}` asks for {settings.replicas} replicas, each on a node of its own, and the Slurm job "
            f"{job.number} has {_count(len(job.nodes), 'node')} ({', '.join(job.nodes[:5])}); lower `replicas`, or "
            f"submit with --nodes {settings.replicas}"
        )
    gpus = int(settings.gpus_per_replica)
    if gpus * per_node > job.gpus:
        raise EngineError(
            f"`{place}` asks for {per_node} x {_count(gpus, 'GPU')} on a node (`replicas`, `gpus_per_replica`), and "
            f"the Slurm job {job.number} has {job.gpus} on each; ask for less, or submit with --gres "
            f"gpu:{gpus * per_node}"
        )
    given = "cpus_per_replica" in settings.model_fields_set
    cpus = int(settings.cpus_per_replica) if given else job.cpus // per_node
    if cpus * per_node > job.cpus or not cpus:
        raise EngineError(
            f"`{place}` asks for {per_node} x {_count(max(cpus, 1), 'CPU core')} on a node (`replicas`, "
            f"`cpus_per_replica`), and the Slurm job {job.number} has {job.cpus} on each; ask for less, or submit "
            f"with --cpus-per-task {max(cpus, 1) * per_node}"
        )
    return [number // per_node for number in range(settings.replicas)], Part(gpus, cpus)


def srun(name: str, nodes: Sequence[str], part: Part, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a program once on each of these nodes, as the step `name`."""
    options = {
        "--job-name": name,
        "--nodes": str(len(nodes)),
        "--ntasks": str(len(nodes)),
        "--ntasks-per-node": "1",
        "--nodelist": ",".join(nodes),
        "--cpus-per-task": str(part.cpus),
        **({"--gres": f"gpu:{part.gpus}"} if part.gpus else {}),
        "--mem": "0",  # what the job has, shared with its other steps
        "--input": "none",
        "--export": "ALL",
    }
    flags = ["--exact", "--kill-on-bad-exit=1", f"--immediate={ROOM_S}"]
    return ["srun", *(word for option in options.items() for word in option), *flags, *command]


class SlurmStep:
    """A program that runs on nodes of a job, with what `supervised.Kept` has: its output goes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        job: Job,
        nodes: Sequence[str],
        part: Part,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self._job, self._name = job, f"persyn-{secrets.token_hex(6)}"
        told = {name: value for name, value in environment.items() if not OPTIONS.match(name)}
        self._kept = Kept(srun(self._name, nodes, part, command), environment=told, log=log, grace=GRACE_S)
        self._left = True  # the step may be there

    @property
    def group(self) -> int:
        """The process group of srun."""
        return self._kept.group

    def poll(self) -> int | None:
        """Return the exit status of srun, which is that of the first task that failed; None while it runs."""
        status = self._kept.poll()
        if status is not None and status > 128:
            self._cancel()
        return status

    def stop(self) -> None:
        """End the step, and return when it is gone."""
        self._kept.stop()
        self._cancel()

    def _cancel(self) -> None:
        """Cancel the step where srun has left it behind."""
        if not self._left:
            return
        self._left = False
        with suppress(EngineError):  # Slurm is away: it ends its steps with the job
            shown = _ask("squeue", "--noheader", "--steps", "--jobs", self._job.number, "--format", "%i|%j")
            for line in shown.splitlines():
                step, _, name = line.strip().partition("|")
                if name == self._name:
                    _ask("scancel", step)


def _ask(*command: str) -> str:
    """Run one of Slurm's commands that only ask, and return what it says."""
    asked = " ".join(command[:3])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        raise EngineError(f"`{asked}` does not answer; look whether Slurm works on {_here()}") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise EngineError(f"`{asked}` failed; mend what it says: {said}")
    return done.stdout


def _here() -> str:
    return os.uname().nodename


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
