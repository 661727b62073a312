"""Make sandboxes that are containers of Docker or Podman, from an image that is there already.

A container has no network, no capability, no files of this machine, a root that it cannot write to, and `/tmp` in
memory. Memory, processes and processor time are bounded by the engine and the kernel, time by the clock by `guard.py`
within.
"""

import contextlib
import os
import resource
import secrets
import subprocess
import threading
from pathlib import Path

from persyn_hf.backends.grading import guard, inside
from persyn_hf.backends.grading.settings import ENVIRONMENT, MIB, OUTPUT, WALL, SandboxSettings
from persyn_hf.backends.grading.watched import Bounds, Ran, reason_of, run_watched
from persyn_hf.errors import EngineError, PersynError


BOUNDS_PROCESSES = True
START_S = 60  # by the clock, until a container has started
END_S = 60
USER = 65534
MOST_OF_USER = min(1 << 15, resource.getrlimit(resource.RLIMIT_NPROC)[1] % (1 << 63))  # processes; -1 is no bound
# Docker's client hands on the proxies of its configuration, with their passwords; a variable that is there it leaves.
PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "ftp", "no", "all")]
OWN = {
    "docker": [word for name in PROXIES for one in (name, name.upper()) for word in ("--env", f"{one}=")],
    # By default Podman asks for more processes per user than it may give without CAP_SYS_RESOURCE.
    "podman": ["--http-proxy=false", "--read-only-tmpfs=false", "--ulimit", f"nproc={MOST_OF_USER}:{MOST_OF_USER}"],
}
REMOVE = {"docker": ["rm", "--force"], "podman": ["rm", "--force", "--time", "0"]}

# What an engine was asked for and what it gives are not the same where cgroups are not its own to set.
TRIAL = """
import os
def first(*names):
    for name in names:
        try:
            with open("/sys/fs/cgroup/" + name) as file:
                return file.read().strip()
        except OSError:
            continue
print("user", os.getuid())
print("memory", first("memory.max", "memory/memory.limit_in_bytes"))
print("processes", first("pids.max", "pids/pids.max"))
with open("/proc/net/route") as file:
    print("routes", len(file.readlines()) - 1)
"""


def run(settings: SandboxSettings, given: bytes, seconds: float, stop: threading.Event) -> Ran:
    """Run `inside.py` in a new container with `given` as its input; where none was started the output is empty.

    Raises:
        EngineError: the command of the engine is not installed.
    """
    name = f"persyn-{secrets.token_hex(8)}"
    # The guard ends a container in time; only one that does not start, or says too much, is ended from outside.
    limits = Bounds(seconds=START_S + 2 * WALL * seconds, output=OUTPUT)
    command = [settings.engine, "run", "--name", name, *_options(settings, WALL * seconds)]
    try:
        ran = run_watched(command, given, limits, environment=os.environ, stop=stop)
    except FileNotFoundError:
        raise EngineError(
            f"tests of code are to run in containers of {settings.engine}, and the command `{settings.engine}` is not "
            "installed; install it, or set another `sandbox.engine`: without a sandbox nothing is run"
        ) from None
    except BaseException:
        _remove(settings.engine, name)
        raise
    if ran.passed is not None:
        _remove(settings.engine, name)
    return ran


def fault(settings: SandboxSettings, said: str, ran: Ran) -> PersynError | None:
    """Say why an engine on which the trial ran so makes no sandbox."""
    needed = {
        "user": str(USER),
        "memory": str(settings.memory_mb * MIB),
        "processes": str(_processes(settings)),
        "routes": "0",
    }
    if said == "".join(f"{name} {value}\n" for name, value in needed.items()):
        return None
    engine, image = settings.engine, settings.image
    if not said:
        return EngineError(
            f"tests of code are to run in containers, and {engine} runs none of the image {image} ({reason_of(ran)}); "
            f"see that {engine} works here, and that the image is there (`{engine} pull {image}`) and has Python 3.11 "
            "or newer: without a sandbox nothing is run"
        )
    found = dict(line.partition(" ")[::2] for line in said.splitlines())
    unlike = [f"{name} {found.get(name)} for {value}" for name, value in needed.items() if found.get(name) != value]
    return EngineError(
        f"containers of {engine} do not keep the bounds of the sandbox here (found {', '.join(unlike)}); use cgroups "
        "v2 with the controllers for memory and pids, or run the engine as root: without its bounds nothing is run"
    )


def _options(settings: SandboxSettings, seconds: float) -> list[str]:
    """Return the options that make a container and run `inside.py` in it."""
    memory, disk = settings.memory_mb * MIB, settings.disk_mb * MIB
    options = ["--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--label", "persyn"]
    options += ["--network", "none", "--hostname", "sandbox", "--cap-drop", "ALL"]
    options += ["--security-opt", "no-new-privileges", "--user", f"{USER}:{USER}"]
    options += ["--read-only", "--tmpfs", f"/tmp:rw,exec,nosuid,nodev,mode=1777,size={disk}", "--shm-size", str(disk)]
    options += ["--memory", str(memory), "--memory-swap", str(memory), "--cpus", "1"]
    options += ["--pids-limit", str(_processes(settings)), "--ulimit", f"nofile={inside.FILES}:{inside.FILES}"]
    options += ["--ulimit", "core=0:0", "--workdir", "/tmp", *OWN[settings.engine]]
    for name, value in ENVIRONMENT.items():
        if name != "PATH":  # an image has its Python where it likes
            options += ["--env", f"{name}={value}"]
    options += ["--entrypoint", settings.python or "python3", str(settings.image), "-s", "-P", "-B"]
    sources = [Path(file).read_text(encoding="utf-8") for file in (guard.__file__, inside.__file__)]
    return [*options, "-c", sources[0], str(seconds), sources[1]]


def _processes(settings: SandboxSettings) -> int:
    return settings.processes + 1  # the guard


def _remove(engine: str, name: str) -> None:
    """End a container whose client was killed; one that never was is no fault."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([engine, *REMOVE[engine], name], capture_output=True, timeout=END_S, start_new_session=True)
