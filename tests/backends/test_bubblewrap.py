"""Hostile code in a sandbox of bubblewrap: nothing but the sandbox is touched."""

import ast
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hostile import ADD, BOUNDS, graded

from persyn_hf.backends.grading import bubblewrap, sandbox
from persyn_hf.backends.grading.settings import ENVIRONMENT, SandboxSettings
from persyn_hf.backends.grading.syscalls import FAMILIES, MACHINES, REFUSED, SOCKET, seccomp_filter
from persyn_hf.backends.grading.tested import CodeGrader
from persyn_hf.errors import EngineError, InputError


SETTINGS = SandboxSettings(**BOUNDS)


@pytest.fixture(scope="module", autouse=True)
def bwrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt install bubblewrap)")


def seen(code: str) -> str:
    """Run a program in the sandbox, and return what it prints."""
    ran, _ = sandbox.run_inside(SETTINGS, {"kind": "program", "code": code, "input": ""}, 5, threading.Event())
    assert ran.status == 0, ran.words
    return ran.output.decode().removeprefix("started\n")


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path} {path.lstat().st_mode} {path.lstat().st_mtime_ns}".encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def test_the_host_is_neither_read_nor_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "kept").write_text("secret")
    before = digest(tmp_path), digest(root / "persyn_hf" / "backends" / "grading")
    places = [
        str(tmp_path),
        str(root),
        str(Path.home()),
        "/etc",
        "/usr",
        "/usr/bin",
        "/var/tmp",
        "/dev",
        "/",
        "/proc/sys/kernel",
    ]
    files = [str(tmp_path / "kept"), "/etc/passwd", "/etc/shadow", str(Path.home() / ".bashrc")]
    code = f"""
import glob, os, sys
def tried(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return type(error).__name__
def write(place):
    with open(place + "/persyn_was_here", "w") as file: file.write("x")
    return "written"
print([tried(write, place) for place in {places!r}])
print([tried(open, path) for path in {files!r}])
print(sorted(os.environ))
print(sorted(os.listdir("/home") if os.path.exists("/home") else []), os.path.exists({str(tmp_path)!r}))
print([tried(os.kill, pid, 0) for pid in ({os.getpid()}, {os.getppid()})], len(glob.glob("/proc/[0-9]*")) < 5)
print([tried(open, f"/proc/{{name}}", "a") for name in ("sys/kernel/core_pattern", "sys/vm/swappiness")])
print([tried(open, f"/proc/{{name}}", "a") for name in ("sysrq-trigger", "self/oom_score_adj", "1/mem")])
print([tried(os.mkdir, "/tmp/a"), tried(os.chroot, "/tmp"), tried(os.setuid, 0), tried(os.nice, -5)])
print(os.getuid(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")])
"""
    said = seen(code).splitlines()
    tried = dict(zip(places, ast.literal_eval(said[0]), strict=True))
    assert not [place for place in places if (Path(place) / "persyn_was_here").exists()], "the host has none of it"
    # A repository below /tmp lies where the sandbox has a /tmp of its own.
    assert not [place for place, found in tried.items() if found == "written" and not place.startswith("/tmp/")]
    assert said[1] == str(["FileNotFoundError"] * 4)
    assert said[2] == str(sorted([*ENVIRONMENT, "PWD"]))
    assert said[3].endswith("False") and "hf_secret" not in "".join(said)
    assert said[4] == "['ProcessLookupError', 'ProcessLookupError'] True"
    assert said[5] == str(["OSError"] * 2)  # EROFS
    assert set(ast.literal_eval(said.pop(6))) <= {"OSError", "FileNotFoundError", "PermissionError"}
    assert said[6] == "[None, 'PermissionError', 'OSError', 'PermissionError']"  # there is no user 0
    assert said[7] == "65534 ['0000000000000000']"
    assert (digest(tmp_path), digest(root / "persyn_hf" / "backends" / "grading")) == before


def test_there_is_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        code = f"""
import socket
for place in (("127.0.0.1", {port}), ("1.1.1.1", 53), ("8.8.8.8", 443)):
    try:
        socket.create_connection(place, timeout=2)
        print("connected")
    except OSError as error:
        print(type(error).__name__)
print([name for _, name in socket.if_nameindex()])
"""
        assert seen(code).split("\n")[:4] == ["ConnectionRefusedError", "OSError", "OSError", "['lo']"]


def test_what_namespaces_leave_open_is_refused_by_the_filter() -> None:
    code = (
        f"REFUSED = {[*REFUSED.values()]}"
        + """
import ctypes, os, socket
call = ctypes.CDLL(None, use_errno=True).syscall
def errno_of(*numbers):
    ctypes.set_errno(0)
    return ctypes.get_errno() if call(*numbers) == -1 else 0
machine = os.uname().machine == "aarch64"
print([errno_of(numbers[machine], 0, 0, 0, 0, 0) for numbers in REFUSED])
for family in (40, socket.AF_INET, socket.AF_UNIX):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        print("open")
    except OSError as error:
        print(error.errno)
"""
    )
    assert seen(code).splitlines() == [str([1] * len(REFUSED)), "97", "open", "open"]


def decide(program: bytes, machine: int, number: int, argument: int = 0) -> int:
    """What the kernel does with a filter, after its documentation."""
    shown, value, at = {0: number, 4: machine, 16: argument}, 0, 0
    while True:
        kind, yes, no, operand = struct.unpack_from("HBBI", program, 8 * at)
        at += 1
        match kind:
            case 0x20:
                value = shown[operand]
            case 0x15:
                at += yes if value == operand else no
            case 0x35:
                at += yes if value >= operand else no
            case 0x06:
                return operand


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_all_else(machine: str) -> None:
    program, column, name = seccomp_filter(machine), [*MACHINES].index(machine), MACHINES[machine]
    assert program is not None
    allow, permission, family = 0x7FFF0000, 0x50001, 0x50061
    refused = {numbers[column] for numbers in REFUSED.values()}
    for number in range(500):
        if number != SOCKET[column]:
            assert decide(program, name, number) == (permission if number in refused else allow), number
    for number in range(50):
        assert decide(program, name, SOCKET[column], number) == (allow if number in FAMILIES else family)
    assert decide(program, name, 0x40000000) == decide(program, name + 1, 0) == permission
    assert seccomp_filter("riscv64") is None


def test_nothing_outlives_its_run() -> None:
    name = f"persyn-{os.getpid()}"
    code = (
        "import os, sys, time\n"
        f"if os.fork() == 0:\n    os.setsid()\n    os.execv('/usr/bin/sleep', ['{name}', '600'])\ntime.sleep(0.2)"
    )
    seen(code)
    end = time.monotonic() + 30
    while is_running(name):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(name: str) -> bool:
    """Say whether a process goes by the name; one that ends meanwhile does not."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(name.encode()):
                return True
        except OSError:
            continue
    return False


def test_a_program_that_is_killed_leaves_no_sandbox(tmp_path: Path) -> None:
    name = f"persyn-orphan-{os.getpid()}"
    answer = f"import os\\nos.execv('/usr/bin/sleep', ['{name}', '600'])"
    program = (
        "from persyn_hf.backends.grading.settings import SandboxSettings\n"
        "from persyn_hf.backends.grading.tested import CodeGrader\n"
        "from persyn_hf.backends.grading.verdicts import Row\n"
        f'CodeGrader(SandboxSettings(), 600).grade([Row({ADD!r}, "{answer}")])\n'
    )
    parent = subprocess.Popen([sys.executable, "-c", program])

    try:
        wait_until(lambda: is_running(name))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_running(name))


def wait_until(happened: Any) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    answer = f"open({str(mark)!r}, 'w')"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"`bwrap` is not installed; install it .* without it nothing is run"):
        graded(CodeGrader(SETTINGS, 1), [answer])
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(EngineError, match=r"makes none here \(bwrap: No permissions to create new namespace\); take"):
        graded(CodeGrader(SETTINGS, 1), [answer])
    assert not mark.exists()


def test_a_home_is_no_part_of_the_sandbox_whatever_python_lies_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    shown = bubblewrap._prefixes(SandboxSettings(python=str(python)))
    assert str(tmp_path) not in shown and str(tmp_path / "bin") in shown
    python.unlink()
    python.touch()  # a Python that is no link, in a folder of the home
    assert bubblewrap._prefixes(SandboxSettings(python=str(python))) == []


def test_another_python_runs_answers_and_one_that_does_not_is_named(tmp_path: Path) -> None:
    other = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), None)
    if other is not None and Path(other).resolve().name >= "python3.11":
        assert graded(CodeGrader(SandboxSettings(python=other), 5), ["    return a + b"]) == [True]
    (tmp_path / "base").symlink_to(sys.base_prefix)  # as uv has it: a link to a link to a folder
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    linked = tmp_path / "venv" / "bin" / "python"
    linked.symlink_to(f"../../base/bin/{Path(sys.executable).resolve().name}")
    assert graded(CodeGrader(SandboxSettings(python=str(linked)), 5), ["    return a + b"]) == [True]
    with pytest.raises(
        InputError, match=r"the Python /usr/bin/true does not run in the sandbox .* by `sandbox.python`"
    ):
        sandbox.try_sandbox(SandboxSettings(python="/usr/bin/true"), 1)
    with pytest.raises(InputError, match=r"`sandbox.python` must be the whole path of a Python, got python3"):
        sandbox.try_sandbox(SandboxSettings(python="python3"), 1)
