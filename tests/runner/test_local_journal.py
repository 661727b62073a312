"""The journal on a disk of the machine: the store has a whole copy, and nothing is lost, whoever is killed when."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from journal_samples import answer, request

from persyn_hf.backends.journal import Journal
from persyn_hf.errors import StoreError
from persyn_hf.runner import local_journal
from persyn_hf.runner.local_journal import keep_here
from persyn_hf.store.local import Store


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
# Answers `first`, then says so and waits to be killed.
RUN = """
import sys, time
from pathlib import Path
from journal_samples import answer, request
from persyn_hf.backends.journal import Journal
from persyn_hf.runner import local_journal
from persyn_hf.store.local import Store

store, disk, prompt, every, here = sys.argv[1:]
local_journal.EVERY_S, local_journal.SHARE = float(every), 0
store = Store(store)
with local_journal.keep_here(store, Path(disk) if here == "here" else None), store.lock():
    with Journal(store.journal, recipe="local/r") as journal:
        journal.write([answer(request(prompt))], teacher="t")
        print("written", flush=True)
        time.sleep(60)
"""


def write(path: Path, *prompts: str) -> None:
    with Journal(path, recipe="local/r") as journal:
        journal.write([answer(request(prompt)) for prompt in prompts], teacher="t")


def held(path: Path, prompts: Iterable[str] = "abcdef") -> str:
    """The prompts that are answered in a journal."""
    if not path.exists():
        return ""
    with Journal(path) as journal:
        found = journal.read([request(prompt).key for prompt in prompts])
    return "".join(prompt for prompt in prompts if request(prompt).key in found)


def begin(store: Store, disk: Path, prompt: str, every: float = 600, here: bool = True) -> "subprocess.Popen[bytes]":
    """Start a run that answers a prompt and goes on until it is killed."""
    command = [sys.executable, "-c", RUN, str(store.root), str(disk), prompt, str(every), "here" if here else "there"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    return process


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store" / ".persyn").mkdir(parents=True)
    return Store(tmp_path / "store")


def test_the_journal_comes_and_goes(store: Store, tmp_path: Path) -> None:
    home, disk = store.journal, tmp_path / "disk"
    for prompts, before in (("a", ""), ("bc", "a")):
        with keep_here(store, disk):
            assert store.journal != home
            assert held(store.journal) == before
            write(store.journal, *prompts)
            assert held(home) == before
            assert (store.journal.parent / "logs").resolve() == store.state_dir / "logs", "logs stay in the store"
            (store.journal.parent / "logs" / "x.log").write_text("said")
        assert store.journal == home
        assert held(home) == before + prompts
    assert not list(disk.iterdir())
    assert {path.name for path in store.state_dir.glob("journal*")} == {"journal.sqlite", "journal.sqlite.lock"}
    assert (store.state_dir / "logs" / "x.log").read_text() == "said"
    assert home.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_run_left_goes_on(heavy: None, store: Store, tmp_path: Path) -> None:
    write(store.journal, "a")
    kill(begin(store, tmp_path / "disk", "b"))
    assert held(store.journal) == "a", "it was killed before a copy was made"
    with keep_here(store, tmp_path / "disk"):
        assert held(store.journal) == "ab"
    assert held(store.journal) == "ab"


def test_a_copy_is_made_now_and_then(heavy: None, store: Store, tmp_path: Path) -> None:
    running = begin(store, tmp_path / "disk", "b", every=0.1)
    deadline = time.monotonic() + 60
    while not store.journal.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill(running)
    assert held(store.journal) == "b", "it is whole, though a run was writing"
    with keep_here(store, tmp_path / "another disk"):
        assert held(store.journal) == "b", "the disk of the node that died is not needed"


def test_what_was_left_is_added_to_what_came_since(heavy: None, store: Store, tmp_path: Path) -> None:
    kill(begin(store, tmp_path / "disk", "a"))
    with keep_here(store, tmp_path / "another disk"):  # a run on another node meanwhile
        write(store.journal, "b")
    with keep_here(store, tmp_path / "disk"):
        assert held(store.journal) == "ab"
    assert held(store.journal) == "ab"


def test_the_log_of_a_run_that_was_killed_in_the_store_comes_along(heavy: None, store: Store, tmp_path: Path) -> None:
    """Sqlite would apply a log that is left beside another file, and damage it."""
    kill(begin(store, tmp_path, "a", here=False))
    assert Path(f"{store.journal}-wal").stat().st_size > 0
    with keep_here(store, tmp_path / "disk"):
        assert held(store.journal) == "a"
        write(store.journal, *"bcde")
    assert not Path(f"{store.journal}-wal").exists()
    assert held(store.journal) == "abcde"


def test_a_copy_that_cannot_be_made_says_where_the_journal_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    disk = tmp_path / "disk"
    with pytest.raises(StoreError) as error, keep_here(store, disk):
        write(store.journal, "a")
        monkeypatch.setattr(local_journal.shutil, "copyfile", full)
    (kept,) = disk.iterdir()
    assert f"the journal could not be copied to {store.journal} (" in str(error.value)
    assert f"it is kept in {kept}: make room, and run again on this machine, or add it with:" in str(error.value)
    monkeypatch.undo()
    with keep_here(store, disk):
        assert held(store.journal) == "a"


def test_a_disk_that_takes_no_folder_is_named_with_its_option(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("a file")
    with pytest.raises(StoreError, match=r"the folder \S+/disk cannot be written \(.*name another with --journal"):
        with keep_here(store, tmp_path / "disk"):
            pass


def test_a_folder_of_another_user_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_journal.os, "getuid", lambda: 12345)
    with pytest.raises(StoreError, match=r"persyn-12345-\w+ belongs to another user; name another disk"):
        with keep_here(store, tmp_path / "disk"):
            pass
