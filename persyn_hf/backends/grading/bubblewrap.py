"""Make sandboxes with bubblewrap (`bwrap`).

Each run has namespaces of its own for users, processes, network, mounts and IPC, no capability, and an environment of
six variables. It sees `/usr`, the Python that runs it and an empty `/tmp` in memory; all else is read-only. Memory and
processes of the whole sandbox are watched from outside (watched.py), and each process is bounded by the kernel
(inside.py). When the run ends, or persyn does, the kernel ends all that is in it.
"""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persyn_hf.backends.grading import inside
from persyn_hf.backends.grading.settings import ENVIRONMENT, MIB, OUTPUT, WALL, SandboxSettings
from persyn_hf.backends.grading.syscalls import seccomp_filter
from persyn_hf.backends.grading.watched import Bounds, Ran, run_watched
from persyn_hf.errors import EngineError, InputError, PersynError
from persyn_hf.text import first_line


BWRAP = 2  # processes of bwrap beside those of the answer
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/etc/ld.so.cache")
HARNESS = "/persyn_inside.py"
BOUNDS_PROCESSES = False
TRIAL = "print('ready')"


def run(settings: SandboxSettings, given: bytes, seconds: float, stop: threading.Event) -> Ran:
    """Run `inside.py` in a new sandbox with `given` as its input.

    Raises:
        EngineError: bubblewrap is not installed.
        InputError: the Python of the settings is not there.
    """
    if not (Path(_python(settings)).is_absolute() and Path(_python(settings)).is_file()):
        raise InputError(f"`sandbox.python` must be the whole path of a Python, got {settings.python}")
    limits = Bounds(
        seconds=WALL * seconds,
        memory=settings.memory_mb * MIB,
        processes=settings.processes + BWRAP,
        output=OUTPUT,
    )
    program = [_bwrap()]
    with _open_filter() as files:
        filtered = [word for file in files for word in ("--seccomp", str(file))]
        command = [*program, *filtered, *_options(settings)]
        return run_watched(command, given, limits, environment={}, inherited=files, stop=stop)


def fault(settings: SandboxSettings, said: str, ran: Ran) -> PersynError | None:
    """Say why a machine on which the trial ran so makes no sandbox, or why the Python does not run in it."""
    if said == "ready\n":
        return None
    words = first_line(ran.words) or f"it ended with status {ran.status}"
    if "bwrap" in words:
        return EngineError(
            f"tests of code need a sandbox, and bubblewrap makes none here ({words}); take bubblewrap 0.8 or "
            "newer and allow user namespaces (docs/graders.md), or grade on another machine: without a sandbox "
            "nothing is run"
        )
    return InputError(
        f"the Python {_python(settings)} does not run in the sandbox for tests of code ({words}); name another by "
        "`sandbox.python`"
    )


def _bwrap() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise EngineError(
            "tests of code run it in a sandbox of bubblewrap, and `bwrap` is not installed; install it (apt install "
            "bubblewrap; Linux only): without it nothing is run"
        )
    return found


@contextmanager
def _open_filter() -> Iterator[list[int]]:
    """Yield the number of an open file with the filter of system calls; none where no filter is known."""
    text = seccomp_filter()
    if text is None:
        yield []
        return
    file = os.memfd_create("seccomp")
    try:
        os.pwrite(file, text, 0)
        yield [file]
    finally:
        os.close(file)


def _options(settings: SandboxSettings) -> list[str]:
    """Return the options that make a sandbox and run `inside.py` in it."""
    python, size = _python(settings), str(settings.disk_mb * MIB)
    options = ["--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
    options += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        options += ["--setenv", name, value]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):
        options += ["--size", size, "--tmpfs", place]
    for place in SYSTEM:  # `/bin` may be a link to `/usr/bin`
        if Path(place).is_symlink():
            options += ["--symlink", os.readlink(place), place]
        elif Path(place).exists():
            options += ["--ro-bind", place, place]
    for place in (*_prefixes(settings), inside.__file__):
        options += ["--ro-bind", place, HARNESS if place == inside.__file__ else place]
    # As root, an answer could write to `/proc/sys` and `/proc/sysrq-trigger`, of which bwrap leaves some open.
    for place in ("/proc", "/dev", "/"):
        options += ["--remount-ro", place]
    return [*options, "--chdir", "/tmp", "--disable-userns", python, "-s", "-P", "-B", HARNESS]


def _python(settings: SandboxSettings) -> str:
    return settings.python or sys.executable


def _prefixes(settings: SandboxSettings) -> list[str]:
    """Return the folders that a Python needs, outer ones before those within them; never one that holds a home.

    A virtual environment links to the Python that it is of, by way of other links where uv has made it.
    """
    ours = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    found = {Path(prefix) for prefix in ours} if settings.python is None else set[Path]()
    python = Path(_python(settings))
    while True:
        prefix = python.parent.parent
        is_only_a_link = python.is_symlink() and not (prefix / "pyvenv.cfg").exists()
        found.add(python.parent if is_only_a_link else prefix)
        if not python.is_symlink():
            break
        python = Path(os.path.normpath(python.parent / os.readlink(python)))
    private = (Path.home(), Path("/home"), Path("/root"))
    needed = (place for place in found if not any(home.is_relative_to(place) for home in private))
    return sorted(str(place) for place in needed if not place.is_relative_to("/usr"))
