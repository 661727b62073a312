"""Two nodes of Slurm on this host, to run scripts on: the real one where it is installed, and stand-ins elsewhere."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol


DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CPUS, GPUS = 8, 2  # of a node, by what Slurm is told
CONFIG = """\
ClusterName=test
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
KillWait=5
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus}
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus}
PartitionName=p Nodes=n1,n2 Default=YES State=UP
"""


class Done(NamedTuple):
    """How a script ended."""

    code: int
    output: str


class Cluster(Protocol):
    """Two nodes, n1 and n2, of 8 CPU cores and 2 GPUs each that nobody has."""

    name: str

    def submit(self, script: str, folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a batch script on both nodes; its output goes to the file `output` of the folder."""

    def close(self) -> None:
        """End all."""


def run(cluster: Cluster, script: str, folder: Path, **environment: str) -> Done:
    """Run a batch script to its end."""
    code = cluster.submit(script, folder, **environment).wait(200)
    return Done(code, (folder / "output").read_text())


def free_ports(count: int) -> list[int]:
    found = [socket.socket() for _ in range(count)]
    for one in found:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in found]
    for one in found:
        one.close()
    return ports


def why_not() -> str:
    """Say why the real Slurm cannot be started here; empty where it can."""
    missing = [name for name in DAEMONS if shutil.which(name, path=path()) is None]
    if missing:
        return f"{missing[0]} is not installed (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd runs as root only"


def path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin"])


class RealSlurm:
    """munged, slurmctld and two slurmd, with files in a folder of their own."""

    name = "slurm"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for the name of a socket
        ctl, n1, n2 = free_ports(3)
        user = pwd.getpwuid(os.getuid()).pw_name
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        values = {"folder": self.folder, "user": user, "port": ctl, "n1": n1, "n2": n2, "cpus": CPUS, "gpus": GPUS}
        (self.folder / "slurm.conf").write_text(CONFIG.format(**values))
        for number in range(GPUS):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.folder.chmod(0o755)
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path()}
        files = [f"--{word}-file={self.folder}/munge.{word}" for word in ("key", "pid", "log", "seed")]
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start("munged", "--force", "--foreground", f"--socket={self.folder}/munge.socket", *files)
            until(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            for node in ("n1", "n2"):
                self._start("slurmd", "-D", "-N", node)
            until(lambda: self._ask("sinfo", "--noheader", "--format", "%t %D").split() == ["idle", "2"])
        except BaseException:
            self.close()
            raise

    def _start(self, *command: str) -> None:
        quiet = subprocess.DEVNULL
        self._daemons.append(subprocess.Popen(command, env=self.environment, stdin=quiet, stdout=quiet, stderr=quiet))

    def _ask(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def submit(self, script: str, folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
        (folder / "job.sh").write_text(script)
        nodes = ["--nodes", "2", "--ntasks-per-node", "1", "--gres", f"gpu:{GPUS}", "--exclusive"]
        command = ["sbatch", "--wait", *nodes, "--chdir", str(folder), "--output", str(folder / "output"), "job.sh"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=folder, env=self.environment | environment, stdout=quiet, stderr=quiet)

    def close(self) -> None:
        self._ask("scancel", "--quiet", "--user", pwd.getpwuid(os.getuid()).pw_name)
        until(lambda: not self._ask("squeue", "--noheader"))
        for daemon in reversed(self._daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class StandIn:
    """Scripts that start the processes of a step here, and the variables that a job has."""

    name = "stand-in"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "steps").mkdir()
        program = Path(__file__).with_name("slurm_stand_in.py")
        for name in ("srun", "squeue", "scancel", "scontrol"):
            command = folder / "bin" / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} {program} {name} "$@"\n')
            command.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SLURM_STAND_IN": str(folder),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURMD_NODENAME": "n1",
            "SLURM_CPUS_ON_NODE": str(CPUS),
            "SLURM_GPUS_ON_NODE": str(GPUS),
            "SLURM_NTASKS_PER_NODE": "1",
        }

    def submit(self, script: str, folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
        (folder / "job.sh").write_text(script)
        with (folder / "output").open("wb") as output:
            own = self.environment | environment
            return subprocess.Popen(["bash", "job.sh"], cwd=folder, env=own, stdout=output, stderr=output)

    def close(self) -> None:
        return


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a condition, a function, holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
