import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from persyn_hf.backends.engines.supervised import Kept


# A server with a worker, and a worker of that in a session of its own; each writes its process id. `deaf`: no SIGTERM.
FAMILY = """
import os, pathlib, signal, sys, time
folder, deaf = pathlib.Path(sys.argv[1]), sys.argv[2] == "deaf"
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
name = "server"
if os.fork() == 0:
    name = "worker"
    if os.fork() == 0:
        name = "stray"
        os.setsid()
(folder / f"{name}.part").write_text(str(os.getpid()))
(folder / f"{name}.part").rename(folder / name)
os.write(1, f"{name} is there\\n".encode())
time.sleep(300)
"""
NAMES = ("server", "worker", "stray")
USER = """
import os, pathlib, signal, sys, time
from persyn_hf.backends.engines.supervised import Kept
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with it ignored
folder = pathlib.Path(sys.argv[1])
kept = Kept([sys.executable, "-c", sys.argv[2], str(folder), "plain"], environment=os.environ, log=folder / "log")
if sys.argv[3] == "fork" and os.fork() == 0:
    time.sleep(60)  # holds the keeper's input open
try:
    (folder / "ready").touch()
    time.sleep(300)
finally:
    kept.stop()
    (folder / "stopped").touch()
"""


def command(folder: Path, manner: str = "plain") -> list[str]:
    return [sys.executable, "-c", FAMILY, str(folder), manner]


def family(folder: Path) -> list[int]:
    return [int(wait_for(lambda name=name: (folder / name).read_text())) for name in NAMES]


def wait_for(read: Callable[[], str], seconds: float = 20) -> str:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return read()
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie that nobody collects is as good as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def expect(found: object, wanted: object) -> str:
    assert found == wanted
    return str(found)


def all_gone(pids: list[int]) -> str:
    assert not any(alive(pid) for pid in pids)
    return "gone"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(command(tmp_path), environment=os.environ, log=tmp_path / "log")
    yield found
    found.stop()


def test_stop_returns_when_every_child_is_gone(kept: Kept, tmp_path: Path) -> None:
    pids = family(tmp_path)
    assert kept.poll() is None
    assert kept.group == pids[0]
    started = time.monotonic()
    kept.stop()
    assert all_gone(pids)
    assert time.monotonic() - started < 5  # nobody waits for the stray, which SIGTERM to the group does not reach
    assert kept.poll() is not None
    kept.stop()
    assert set((tmp_path / "log").read_text().split("\n")) == {f"{n} is there" for n in NAMES} | {""}


def test_what_does_not_listen_to_sigterm_is_killed(tmp_path: Path) -> None:
    kept = Kept(command(tmp_path, "deaf"), environment=os.environ, log=tmp_path / "log", grace=0.5)
    pids = family(tmp_path)
    started = time.monotonic()
    kept.stop()
    assert all_gone(pids)
    assert 0.5 < time.monotonic() - started < 5


def test_the_end_of_the_command_ends_its_children_and_is_noticed(kept: Kept, tmp_path: Path) -> None:
    pids = family(tmp_path)
    os.kill(pids[0], signal.SIGKILL)
    wait_for(lambda: all_gone(pids))
    wait_for(lambda: expect(kept.poll(), 128 + signal.SIGKILL))


@pytest.mark.parametrize(("program", "status"), [("import sys; sys.exit(7)", 7), ("pass", 0)])
def test_the_exit_status_is_the_commands(tmp_path: Path, program: str, status: int) -> None:
    kept = Kept([sys.executable, "-c", program], environment=os.environ, log=tmp_path / "log")
    wait_for(lambda: expect(kept.poll(), status))
    kept.stop()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    kept = Kept(["/no/such"], environment=os.environ, log=tmp_path / "log")
    wait_for(lambda: expect(kept.poll(), 127))
    assert (tmp_path / "log").read_text() == "/no/such: No such file or directory\n"
    kept.stop()


def test_sigterm_to_the_keeper_ends_all(kept: Kept, tmp_path: Path) -> None:
    pids = family(tmp_path)
    kept._keeper.send_signal(signal.SIGTERM)
    wait_for(lambda: all_gone(pids))


def test_a_killed_keeper_is_noticed_and_its_group_killed(kept: Kept, tmp_path: Path) -> None:
    server, worker, stray = family(tmp_path)
    kept._keeper.kill()
    wait_for(lambda: expect(kept.poll(), 128 + signal.SIGKILL))
    assert all_gone([server, worker])
    os.kill(stray, signal.SIGKILL)  # it left the group, and who could find it is dead


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("fork", ["fork", "alone"])
def test_nothing_outlives_the_user(tmp_path: Path, end: signal.Signals, fork: str) -> None:
    user = subprocess.Popen([sys.executable, "-c", USER, str(tmp_path), FAMILY, fork], start_new_session=True)
    try:
        pids = family(tmp_path)
        wait_for((tmp_path / "ready").read_text)
        user.send_signal(end)
        user.wait(20)
        wait_for(lambda: all_gone(pids))
        assert (tmp_path / "stopped").exists() == (end == signal.SIGINT)
    finally:
        os.killpg(user.pid, signal.SIGKILL) if fork == "fork" else user.kill()


def test_ctrl_c_in_the_terminal_does_not_reach_the_command(tmp_path: Path) -> None:
    user = subprocess.Popen([sys.executable, "-c", USER, str(tmp_path), FAMILY, "alone"], start_new_session=True)
    server, worker, _ = pids = family(tmp_path)
    assert {os.getpgid(server), os.getpgid(worker)} == {server}
    wait_for((tmp_path / "ready").read_text)
    os.killpg(user.pid, signal.SIGINT)
    user.wait(20)
    assert (tmp_path / "stopped").exists()  # in order: by the user, not by the signal
    assert all_gone(pids)


def test_keeper_and_user_killed_at_once(tmp_path: Path) -> None:
    user = subprocess.Popen([sys.executable, "-c", USER, str(tmp_path), FAMILY, "alone"])
    server, worker, stray = family(tmp_path)
    keeper = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    user.kill()
    user.wait()
    wait_for(lambda: all_gone([server]))  # by Linux; vLLM's own children end with it
    for pid in (worker, stray):
        os.kill(pid, signal.SIGKILL)
