"""Sandboxes that are containers: what they leave open, what ends them, and what is said where there are none."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import ADD, BOUNDS, graded
from sandboxes import running, sandbox_of

from persyn_hf.backends.grading import containers, guard, sandbox
from persyn_hf.backends.grading.settings import ENVIRONMENT, SandboxSettings
from persyn_hf.backends.grading.tested import CodeGrader
from persyn_hf.backends.grading.verdicts import Ungraded
from persyn_hf.backends.grading.watched import Ran
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.strict import read_section


RIGHT = "def add(a, b): return a + b"


@pytest.fixture(scope="module", params=["docker", "podman"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxSettings]:
    with sandbox_of(request.param, tmp_path_factory.mktemp(request.param)) as own:
        yield SandboxSettings(**BOUNDS, **own)


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_the_host_is_neither_seen_nor_reached(
    settings: SandboxSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://name:hf_secret@127.0.0.1:9")
    (tmp_path / "kept").write_text("secret")
    code = f"""
import glob, os, socket
def tried(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return type(error).__name__
def write(place):
    with open(place + "/persyn_was_here", "w") as file: file.write("x")
    return "written"
def connect(place):
    socket.create_connection(place, timeout=2)
    return "connected"
print([str(tried(open, path)) for path in ({str(tmp_path / "kept")!r}, "/etc/shadow", "/proc/1/mem", "/proc/1/fd/1")])
print([tried(write, place) for place in ("/", "/etc", "/usr", "/var", "/dev", "/proc/sys/kernel", "/sys/fs/cgroup")])
print(dict(os.environ))
print([tried(connect, place) for place in (("1.1.1.1", 53), ("8.8.8.8", 443), ("127.0.0.1", 2375))])
print(glob.glob("/run/*.sock") + glob.glob("/var/run/*.sock") + glob.glob("/run/*/*.sock"))
kept = ("CapEff", "CapBnd", "NoNewPrivs")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(kept)])
print([tried(os.kill, pid, 0) for pid in ({os.getpid()}, {os.getppid()})])
print([tried(os.setuid, 0), tried(os.chroot, "/tmp")])
"""
    ran, _ = sandbox.run_inside(settings, {"kind": "program", "code": code, "input": ""}, 5, threading.Event())
    assert ran.status == 0, ran.words
    said = ran.output.decode().removeprefix("started\n").splitlines()
    assert "hf_secret" not in ran.output.decode()
    assert set(ast.literal_eval(said[0])) <= {"FileNotFoundError", "PermissionError"}
    assert "written" not in said[1]
    own = {"PATH", "HOSTNAME", "TERM", "container", "PWD", "LC_CTYPE"} | set(ENVIRONMENT)
    proxies = {name for one in containers.PROXIES for name in (one, one.upper())}
    assert {name for name in ast.literal_eval(said[2]) if name not in proxies} <= own
    assert {ast.literal_eval(said[2]).get(name, "") for name in proxies} == {""}
    assert "'connected'" not in said[3] and said[4] == "[]"
    assert said[5] == "['0000000000000000', '0000000000000000', '1']"
    assert said[6:] == [str(["ProcessLookupError"] * 2), str(["PermissionError"] * 2)]


@pytest.mark.slow
def test_a_container_ends_with_its_run_when_stopped_and_when_its_output_is_too_long(settings: SandboxSettings) -> None:
    sleeping = {"kind": "program", "code": "import time\ntime.sleep(600)", "input": ""}
    stop = threading.Event()
    threading.Timer(3, stop.set).start()
    ran, _ = sandbox.run_inside(settings, sleeping, 60, stop)
    assert ran.passed == "stopped"
    wait_until(lambda: not running(settings.engine))
    loud = {"kind": "program", "code": "while True: print('x' * 10**5)", "input": ""}
    ran, _ = sandbox.run_inside(settings, loud, 60, threading.Event())
    assert ran.passed == "output"
    wait_until(lambda: not running(settings.engine))


@pytest.mark.slow
def test_a_container_ends_in_its_time_where_persyn_was_killed(settings: SandboxSettings) -> None:
    program = (
        "from persyn_hf.backends.grading.settings import SandboxSettings\n"
        "from persyn_hf.backends.grading.tested import CodeGrader\n"
        "from persyn_hf.backends.grading.verdicts import Row\n"
        f"settings = SandboxSettings.model_validate({settings.model_dump()!r})\n"
        f"CodeGrader(settings, 2).grade([Row({ADD!r}, 'import time; time.sleep(600)')])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_until(lambda: len(running(settings.engine)) > 0)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not running(settings.engine))


@pytest.mark.slow
def test_an_image_that_is_missing_is_named_and_nothing_is_run(settings: SandboxSettings) -> None:
    away = settings.model_copy(update={"image": "persyn-no-such-image:1"})
    begin = f"tests of code are to run in containers, and {away.engine} runs none of the image persyn-no-such-image:1"
    with pytest.raises(
        EngineError, match=rf"^{begin} \(.*(?:[Nn]o such image|image not known).*\); see that .* nothing is run$"
    ):
        sandbox.try_sandbox(away, 1)
    grader = CodeGrader(away, 1)
    with pytest.raises(EngineError, match=rf"^{begin}"):
        graded(grader, [RIGHT])
    grader._is_tried = True  # as if the image was removed meanwhile
    assert graded(grader, [RIGHT]) == [Ungraded("no_sandbox")]
    with pytest.raises(EngineError, match=rf"runs none of the image {settings.image} \(.*no/such/python.*\)"):
        sandbox.try_sandbox(settings.model_copy(update={"python": "/no/such/python"}), 1)


def test_an_engine_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for engine in ("docker", "podman"):
        with pytest.raises(EngineError, match=f"the command `{engine}` is not installed; install it, or set another"):
            graded(CodeGrader(SandboxSettings(engine=engine, image="python:3.12-slim"), 1), [RIGHT])


def test_bounds_that_an_engine_does_not_keep_are_refused() -> None:
    settings = SandboxSettings(engine="podman", image="python:3.12-slim", memory_mb=64, processes=4)
    kept = "user 65534\nmemory 67108864\nprocesses 5\nroutes 0\n"
    assert containers.fault(settings, kept, Ran(output=b"", words="", status=0, passed=None)) is None
    for word, other in (
        ("memory 67108864", "memory max"),
        ("processes 5", "processes None"),
        ("routes 0", "routes 2"),
    ):
        fault = containers.fault(settings, kept.replace(word, other), Ran(output=b"", words="", status=0, passed=None))
        assert f"(found {other} for {word.split()[1]}); use cgroups v2" in str(fault)


def test_what_belongs_to_an_engine_is_asked_for_and_refused_elsewhere() -> None:
    for values, message in (
        ({"engine": "docker"}, "`engine: docker` needs `image`; give it"),
        ({"engine": "piston"}, "`engine: piston` needs `url`; give it"),
        ({"image": "python:3.12"}, "`engine: bubblewrap` knows no `image`, `docker` does; leave it out"),
        ({"engine": "podman", "image": "a", "url": "http://a"}, "`engine: podman` knows no `url`, `piston` does"),
        ({"engine": "piston", "url": "http://a", "python": "/a"}, "`engine: piston` knows no `python`"),
        ({"engine": "docker", "image": "--privileged"}, "image: string should match pattern"),
        ({"engine": "piston", "url": "http://me:secret@host"}, "url: string should match pattern"),
        ({"engine": "dokcer"}, "did you mean `docker`?"),
    ):
        with pytest.raises(RecipeError) as caught:
            read_section(SandboxSettings, values, "generate.sandbox")
        assert message in str(caught.value)


def test_an_engine_that_is_not_named_changes_no_name_of_a_verdict() -> None:
    names = {
        CodeGrader(SandboxSettings(**own), 5).name
        for own in ({}, {"engine": "docker", "image": "a:1"}, {"engine": "docker", "image": "a:2"})
    }
    assert len(names) == 3
    bounds = '{"python":null,"memory_mb":1024,"disk_mb":64,"processes":32}'
    assert any(name.endswith(bounds) for name in names)
    here, there = (SandboxSettings(engine="piston", url=url) for url in ("http://here", "http://there"))
    assert CodeGrader(here, 5).name == CodeGrader(there, 5).name


def guarded(seconds: float, program: str) -> int:
    """Run a guard as the first process of its namespace."""
    command = ["bwrap", "--unshare-pid", "--as-pid-1", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc"]
    command += [sys.executable, "-c", Path(guard.__file__).read_text(), str(seconds), program]
    return subprocess.run(command, capture_output=True).returncode


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt install bubblewrap)")
def test_a_guard_ends_as_its_program_does_or_in_its_time() -> None:
    assert guarded(600, "raise SystemExit(3)") == 3
    assert guarded(600, "print('ready')") == 0
    assert guarded(600, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == 128 + signal.SIGKILL
    assert guarded(600, "import os, time\nif os.fork() == 0: time.sleep(600)") == 0, "what is left ends with it"
    assert guarded(600, "import os\nif os.fork() == 0: os._exit(5)") == 0
    assert guarded(0.1, "import time; time.sleep(600)") == guard.LATE
