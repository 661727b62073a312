"""Stand-ins for srun, squeue, scancel and scontrol, where Slurm is not installed: they really start the processes.

Called as `python slurm_stand_in.py NAME arguments...`. The folder SLURM_STAND_IN has a file `steps/NUMBER` for every
step that runs (name and process groups), and the command lines of srun in `asked`. A node that SLURM_STAND_IN_BLIND
names sees another disk in place of the one that a launch works on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


STATE = Path(os.environ["SLURM_STAND_IN"])
FLAGS = ("--exact",)


def srun(arguments: list[str]) -> int:
    """Run a program once on each node; the first task that fails ends the others."""
    with (STATE / "asked").open("a") as asked:
        asked.write(json.dumps(arguments) + "\n")
    options, command = {}, list(arguments)
    while command[0].startswith("--"):
        name, _, value = command.pop(0).partition("=")
        options[name] = value or ("" if name in FLAGS else command.pop(0))
    nodes = options["--nodelist"].split(",")
    assert options["--nodes"] == options["--ntasks"] == str(len(nodes))
    number = len(list((STATE / "steps").iterdir()))
    tasks = [
        subprocess.Popen(
            blinded(command) if node == os.environ.get("SLURM_STAND_IN_BLIND") else command,
            env=os.environ
            | {"SLURM_PROCID": str(rank), "SLURMD_NODENAME": node, "SLURM_CPUS_PER_TASK": options["--cpus-per-task"]},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        for rank, node in enumerate(nodes)
    ]
    step = STATE / "steps" / str(number)
    step.write_text(json.dumps([options["--job-name"], [task.pid for task in tasks]]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        codes = [task.poll() for task in tasks]
        while None in codes and not any(codes):
            time.sleep(0.05)
            codes = [task.poll() for task in tasks]
        return next((code for code in codes if code), 0) % 256
    finally:
        end([task.pid for task in tasks])
        step.write_text("[]")


def blinded(command: list[str]) -> list[str]:
    task = json.loads(command[-1])
    return [*command[:-1], json.dumps({**task, "token": "of another disk"})]


def end(groups: list[int]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with suppress(OSError):
                os.killpg(group, sign)
        time.sleep(0.5)


def squeue(arguments: list[str]) -> int:
    for step in (STATE / "steps").iterdir():
        if found := json.loads(step.read_text()):
            sys.stdout.write(f"{os.environ['SLURM_JOB_ID']}.{step.name}|{found[0]}\n")
    return 0


def scancel(arguments: list[str]) -> int:
    step = STATE / "steps" / arguments[-1].partition(".")[2]
    end(json.loads(step.read_text())[1])
    step.write_text("[]")
    return 0


def scontrol(arguments: list[str]) -> int:
    if arguments[0] == "requeue":
        sys.stdout.write(f"{' '.join(arguments)}\n")
    elif arguments[:2] == ["show", "hostnames"]:
        first, last = arguments[2].strip("n[]").split("-")
        sys.stdout.writelines(f"n{number}\n" for number in range(int(first), int(last) + 1))
    else:
        for node in arguments[-1].split(","):
            sys.stdout.write(f"NodeName={node} Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName=localhost\n")
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
