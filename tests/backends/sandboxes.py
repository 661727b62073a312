"""What makes sandboxes: bubblewrap, Docker, Podman, a server that speaks Piston's API; tests of what is not here skip.

Nothing is downloaded: the image holds the Python that runs the tests, its standard library and `sleep`.
"""

import glob
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from piston_server import serve_piston


HYBRID = '[engine]\nruntime = "runc"\n'  # crun does not run where cgroups are of both versions
LEFT_OUT = re.compile(
    r"/(site-packages|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|config-[^/]*|__pycache__)(/|$)"
)


@contextmanager
def sandbox_of(engine: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings of an engine that runs; the variables of the environment that it needs are set."""
    with pytest.MonkeyPatch.context() as patch:
        if engine == "piston":
            need("bwrap")
            with serve_piston() as server:
                yield {"engine": engine, "url": server.url}
            return
        need("bwrap" if engine == "bubblewrap" else engine)
        if engine == "bubblewrap":
            yield {}
            return
        started = docker_daemon(folder, patch) if engine == "docker" else None
        image = f"persyn-test-{uuid.uuid4().hex[:8]}:latest"
        try:
            said = subprocess.run([engine, "import", "-", image], input=archive(), capture_output=True)
            if said.returncode != 0:
                pytest.skip(f"{engine} does not work here: {said.stderr.decode()}")
            if engine == "podman":
                choose_runtime(image, folder, patch)
            yield {"engine": engine, "image": image}
        finally:
            subprocess.run([engine, "rmi", "--force", image], capture_output=True)
            if started is not None:
                started.terminate()
                started.wait()


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (apt install {'bubblewrap' if program == 'bwrap' else program})")


def docker_daemon(folder: Path, patch: pytest.MonkeyPatch) -> subprocess.Popen[bytes] | None:
    """Start a daemon of our own where none answers."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return None
    if shutil.which("dockerd") is None or os.getuid() != 0:
        pytest.skip("no daemon of Docker answers, and none can be started")
    address = f"unix://{folder}/socket"
    command = ["dockerd", "--host", address, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/pid", "--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen([*command, "--oom-score-adjust", "0"], stdout=log, stderr=log)
    patch.setenv("DOCKER_HOST", address)
    end = time.monotonic() + 60
    while subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        if started.poll() is not None or time.monotonic() > end:
            started.kill()
            pytest.skip(f"dockerd does not start here: {(folder / 'log').read_text()[-500:]}")
        time.sleep(0.2)
    return started


def choose_runtime(image: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have Podman take the other runtime where its first does not work."""
    trial = ["podman", "run", "--rm", "--network", "none", "--ulimit", "nofile=64:64", "--ulimit", "nproc=999:999"]
    for _ in range(2):
        said = subprocess.run([*trial, image, "python3", "-c", "print(1)"], capture_output=True, text=True)
        if said.stdout == "1\n":
            return
        (folder / "containers.conf").write_text(HYBRID)
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
    pytest.skip(f"podman runs no container here: {said.stderr}")


def archive() -> bytes:
    """Pack the file system of an image."""
    python, library = os.path.realpath(sys.executable), sysconfig.get_path("stdlib")
    sleep = str(shutil.which("sleep"))
    programs = [python, sleep, *glob.glob(f"{library}/lib-dynload/*.so")]
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder, mode in (("tmp", 0o1777), ("etc", 0o755), ("proc", 0o755), ("dev", 0o755), ("sys", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, python
        tar.addfile(link)
        for path in {python, sleep, *re.findall(r"(/\S+) \(0x", listed)}:
            entry = tar.gettarinfo(os.path.realpath(path), arcname=path)
            with open(path, "rb") as file:
                tar.addfile(entry, file)
        tar.add(library, filter=lambda entry: None if LEFT_OUT.search(entry.name) else entry)
    return packed.getvalue()


def running(engine: str) -> list[str]:
    """Return the names of persyn's containers."""
    command = [engine, "ps", "--all", "--filter", "label=persyn", "--format", "{{.Names}}"]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.split()
    return []
