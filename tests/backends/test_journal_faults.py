"""The journal under kills, damage, full disks, other processes and files of other versions."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from journal_samples import answer, request

from persyn_hf.backends.journal import Journal, read_spent
from persyn_hf.errors import StoreError


# Mounts a folder read-only for one command: as root, or as root of a namespace of its own.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'
REQUESTS = "import sys; from pathlib import Path; from persyn_hf.backends.journal import read_spent; "
REQUESTS += "print(read_spent(Path(sys.argv[1]), 'local/a')['t'].requests)"
GROUP = 8
PAGE = 1024

WRITE = f"""
import signal, sys
from pathlib import Path
from journal_samples import answer, request
from persyn_hf.backends.journal import Journal
from persyn_hf.errors import StoreError

signal.signal(signal.SIGINT, signal.SIG_IGN)
with Journal(Path(sys.argv[1]), recipe="local/killed") as journal:
    first = len(journal.answered(request(str(number)).key for number in range(20000)))
    for number in range(first, 20000, {GROUP}):
        group = [answer(request(str(number + each)), "x" * 1000) for each in range({GROUP})]
        try:
            journal.write(group, teacher="t")
        except StoreError as error:
            sys.exit(str(error))
        print(number + {GROUP}, flush=True)
"""


def child(script: str, *args: object, **options: object) -> "subprocess.Popen[str]":
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": here}
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)  # type: ignore


def told(path: Path) -> int:
    """How many answers the journal holds; all of them whole and in groups."""
    keys = [request(str(number)).key for number in range(20000)]
    with Journal(path) as journal:
        found = journal.read(keys)
        assert list(found) == keys[: len(found)] or set(found) == set(keys[: len(found)])
        assert all(entry.text == "x" * 1000 and entry.attempt == 0 for entry in found.values())
        assert len(found) % GROUP == 0
        spent = journal.spent("local/killed")
        assert (spent["t"].requests if spent else 0) == len(found)
    return len(found)


@pytest.mark.heavy
def test_a_kill_loses_no_answer_and_doubles_none(tmp_path: Path) -> None:
    path, draw, last = tmp_path / "j.sqlite", random.Random(0), 0
    for _ in range(4):
        writer = child(WRITE, path)
        assert writer.stdout is not None
        for _ in range(draw.randint(1, 60)):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split())])
        writer.wait()
        writer.stdout.close()
        assert last <= told(path) <= last + GROUP  # the newest group may be written and not yet said
    assert last > 0


def test_a_disk_that_takes_no_more_is_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    """The limit is the process's own: files may not grow beyond 400 KB."""
    path = tmp_path / "j.sqlite"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n{WRITE}"
    writer = child(limited, path, stderr=subprocess.PIPE)
    said, fault = writer.communicate(timeout=60)
    assert writer.returncode == 1
    assert fault == (f"the journal {path} cannot be read or written: disk I/O error; look at the disk and run again\n")
    assert told(path) == int(said.split()[-1])


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.write([answer(request("kept"))], teacher="t")
        journal._db.execute("PRAGMA max_page_count = 100")
        with pytest.raises(StoreError) as caught:
            journal.write([answer(request(str(i)), "x" * 9000) for i in range(50)], teacher="t")
    assert str(caught.value) == (
        f"the journal {path} cannot grow: database or disk is full; free some space and run again "
        "(every answer written so far is kept)"
    )
    with Journal(path) as journal:
        assert len(journal.answered([request("kept").key, *(request(str(i)).key for i in range(50))])) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "j.sqlite"
    with pytest.raises(StoreError) as caught:
        Journal(path)
    assert str(caught.value) == f"the journal {path} cannot be written (Not a directory); make it writable"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path):
        second = child(WRITE, path, stderr=subprocess.PIPE)
        _, said = second.communicate(timeout=60)
    assert said.splitlines()[-1] == (
        "persyn_hf.errors.StoreError: "
        f"the journal {path} is in use by another run; wait until that run has ended, or stop it"
    )
    Journal(path).close()


READ = """
import json, sys
from pathlib import Path
from persyn_hf.backends.journal import read_spent

for _ in sys.stdin:
    print(json.dumps({name: spent.requests for name, spent in read_spent(Path(sys.argv[1]), "local/a").items()}))
    sys.stdout.flush()
"""


def test_another_process_reads_what_was_spent_while_a_run_writes(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    reader = child(READ, path, stdin=subprocess.PIPE)
    assert reader.stdin is not None and reader.stdout is not None

    def ask() -> dict[str, int]:
        reader.stdin.write("\n")
        reader.stdin.flush()
        return json.loads(reader.stdout.readline())

    assert ask() == {}
    assert not path.exists()  # to look changes nothing
    with Journal(path, recipe="local/a") as journal:
        assert ask() == {}
        for number in range(0, 400, GROUP):
            group = [answer(request(str(number + each))) for each in range(GROUP)]
            assert journal.write(group, teacher="t") == GROUP
            assert ask() == {"t": number + GROUP}
    assert ask() == {"t": 400}
    reader.communicate(timeout=60)
    assert reader.returncode == 0


def test_what_was_spent_is_read_after_a_kill_without_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    writer = child(WRITE, path)
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    writer.kill()
    last = max([5 * GROUP, *map(int, writer.stdout.read().split())])
    writer.wait()
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir() if not each.name.endswith("-shm")}
    assert before["j.sqlite-wal"]
    assert last <= read_spent(path, "local/killed")["t"].requests <= last + GROUP
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if not each.name.endswith("-shm")} == before


def test_what_was_spent_in_a_file_that_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(b"")
    assert read_spent(path, "local/a") == {}
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"is damaged \(file is not a database\); it was left as it is"):
        read_spent(path, "local/a")


@pytest.mark.parametrize(("found", "age"), [(0, "an older"), (1, "an older"), (3, "a newer")])
def test_another_format_is_refused_and_left_as_it_is(tmp_path: Path, found: int, age: str) -> None:
    path = tmp_path / "j.sqlite"
    Journal(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {found}")
    db.close()
    before = path.read_bytes()
    for use in (Journal, lambda path: read_spent(path, "local/a")):
        with pytest.raises(StoreError) as caught:
            use(path)
        assert str(caught.value) == (
            f"the journal {path} is of format {found}, written by {age} version of persyn-hf; this version reads and "
            "writes format 2: use the version that wrote it, or name another journal (nothing was changed)"
        )
    assert path.read_bytes() == before


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (a)")
    db.close()
    for use in (Journal, lambda path: read_spent(path, "local/a")):
        with pytest.raises(StoreError) as caught:
            use(path)
        assert str(caught.value) == f"{path} is an sqlite file but no persyn-hf journal; name another journal"


DAMAGED = r"is damaged \(.+\); it was left as it is: put back a copy of it, or save"


@pytest.mark.parametrize("fault", ["garbage", "stub", "half"])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.write([answer(request(str(i)), "x" * 3000) for i in range(50)], teacher="t")
    whole = path.read_bytes()
    broken = {
        "garbage": b"no database" * 1000,
        "stub": whole[:100],
        "half": whole[: len(whole) // 2 // PAGE * PAGE],
    }[fault]
    path.write_bytes(broken)
    with pytest.raises(StoreError, match=DAMAGED):
        Journal(path)
    assert path.read_bytes() == broken


@pytest.mark.parametrize("size", [100, 800, 6000])  # several rows on a page, about one, one over many pages
@pytest.mark.parametrize("torn", ["page of zeros", "half a page of zeros", "a sector of another page", "bits"])
def test_a_torn_page_is_never_read_as_if_it_were_whole(tmp_path: Path, size: int, torn: str) -> None:
    """Each page in turn: what is read is what was written, or nothing, or a sentence."""
    path, draw = tmp_path / "j.sqlite", random.Random(size)
    asked = [request(str(number)) for number in range(24)]
    texts = {each.key: draw.randbytes(size // 2).hex() for each in asked}
    derived = {key: texts[key][:200] for key in texts}
    with Journal(path) as journal:
        journal.write([answer(each, texts[each.key]) for each in asked], teacher="t")
        journal.keep(derived)
        plan = list(journal.plan("step", lambda: [asked[:12], asked[12:]]))
    whole, faults, wrong = path.read_bytes(), 0, []
    for start in range(0, len(whole), PAGE):
        page, other = bytearray(whole[start : start + PAGE]), (start + 2 * PAGE) % len(whole)
        if torn == "page of zeros":
            page[:] = bytes(PAGE)
        elif torn == "half a page of zeros":
            page[PAGE // 2 :] = bytes(PAGE // 2)
        elif torn == "a sector of another page":
            page[512:] = whole[other + 512 : other + PAGE]
        else:
            for _ in range(20):
                page[draw.randrange(100 if start == 0 else 0, PAGE)] ^= 1 << draw.randrange(8)
        path.write_bytes(whole[:start] + page + whole[start + PAGE :])
        try:
            with Journal(path) as journal:
                for name, read in {
                    "answers": lambda: (
                        {key: entry.text for key, entry in journal.read(texts).items()}.items() <= texts.items()
                    ),
                    "derived": lambda: journal.recall(texts).items() <= derived.items(),
                    "plan": lambda: list(journal.plan("step", lambda: [])) in (plan, []),
                }.items():
                    try:
                        wrong += [] if read() else [(start, name)]
                    except StoreError:
                        faults += 1
        except StoreError:
            faults += 1
    assert wrong == []
    assert faults >= len(whole) // PAGE // 3  # no page is without a part that matters, but not all of it does


def on_a_read_only_disk(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    for flags in ("-m", "-rm"):
        start = ["unshare", flags, "sh", "-c", READ_ONLY, str(folder)]
        if subprocess.run([*start, "true"], capture_output=True).returncode == 0:
            return subprocess.run([*start, *command], capture_output=True, text=True)
    pytest.skip("nothing can be mounted here")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
def test_a_journal_on_a_read_only_disk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "j.sqlite"
    path.parent.mkdir()
    with Journal(path, recipe="local/a") as journal:
        journal.write([answer(request("1")), answer(request("2"))], teacher="t")
    assert [item.name for item in path.parent.iterdir() if item.name.endswith(("-wal", "-shm"))] == []
    read = on_a_read_only_disk(path.parent, sys.executable, "-c", REQUESTS, str(path))
    assert (read.stdout, read.returncode) == ("2\n", 0), read.stderr
    # A killed run leaves a log beside the file. Without it the file is not the whole journal, and that is said.
    path.with_name("j.sqlite-wal").write_bytes(b"x" * 100)
    read = on_a_read_only_disk(path.parent, sys.executable, "-c", REQUESTS, str(path))
    assert read.returncode == 1 and "cannot be read or written" in read.stderr
