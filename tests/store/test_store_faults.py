"""Killed processes, two writers, and disks that refuse."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import scan_cache_dir
from store_samples import dataset_of, fields, rows_of

from persyn_hf.cli.main import main
from persyn_hf.errors import StoreError
from persyn_hf.schemas import PROMPTS, RESPONSES
from persyn_hf.store.lineage import verify
from persyn_hf.store.local import Store


HERE = Path(__file__).parent
PRELUDE = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(
    """
    import time
    from store_samples import *
    from persyn_hf.schemas import *
    from persyn_hf.store.local import Store
    store = Store(sys.argv[1])
    """
)


def child(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def put(store, rows=5, tag=None):
    data = dataset_of(PROMPTS, rows_of(PROMPTS, rows))
    return store.put(repo="me/x", schema=PROMPTS, data=data, fields=fields(), tag=tag)


PUT_FOR_EVER = """
    print("ready", flush=True)
    for number in range(100_000):
        data = dataset_of(RESPONSES, rows_of(RESPONSES, 200, seed=number))
        store.put(repo="me/killed", schema=RESPONSES, data=data, fields=fields(fingerprint=f"{number:064d}"))
"""


@pytest.mark.heavy
def test_killed_at_any_moment_nothing_partial_is_seen(store):
    draw = random.Random(0)
    for round_ in range(3):
        process = child(PUT_FOR_EVER, store.root)
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.02, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for item in store.artifacts():
            item.check()
            assert item.repo == "me/x" or sum(map(sum, map(dict.values, item.manifest.rows.values()))) == 200
        if store.root.exists():
            assert all(".persyn" in str(warning) for warning in scan_cache_dir(store.root).warnings)
        assert put(store, rows=round_).tag is not None
        assert list((store.state_dir / "incoming").iterdir()) == []
    blobs = {path.name for path in store.root.glob("*/blobs/*")}
    linked = {path.resolve().name for path in store.root.glob("*/snapshots/*/**/*") if path.is_symlink()}
    assert blobs == linked


KILL_AT = """
    # the process kills itself before the n-th call that changes the disk
    import os, signal
    left = int(sys.argv[2])
    def dying(function):
        def call(*arguments, **keywords):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)
        return call
    for name in ("replace", "rename", "symlink", "mkdir", "fsync", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    data = dataset_of(PROMPTS, rows_of(PROMPTS, 9))
    store.put(repo="me/x", schema=PROMPTS, data=data, fields=fields())
    print("done")
"""


@pytest.mark.heavy
def test_killed_before_each_single_change_of_the_disk(tmp_path):
    """One child per step is slow to start, so the parent forks the children from one process."""
    harness = """
    import os, signal, shutil
    code = open(sys.argv[2]).read()
    dataset_of(PROMPTS, rows_of(PROMPTS, 1))
    Store(sys.argv[1] + "-warm").put(
        repo="me/x", schema=PROMPTS, data=dataset_of(PROMPTS, rows_of(PROMPTS, 9)), fields=fields())
    for number in range(1, 500):
        root = f"{sys.argv[1]}-{number}"
        pid = os.fork()
        if pid == 0:
            store = Store(root)
            sys.argv = ["x", root, str(number)]
            exec(code, globals())
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            print(number)
            break
    """
    script = tmp_path / "kill_at.py"
    script.write_text(textwrap.dedent(KILL_AT))
    process = child(harness, tmp_path / "s", script)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    steps = int(out.split()[-1])
    assert steps > 20
    tagged = []
    for number in range(1, steps):
        store = Store(tmp_path / f"s-{number}")
        tagged.append(bool(store.artifacts()))
        for item in store.artifacts():
            verify(store, item.ref)
        if store.root.exists():
            assert all(".persyn" in str(warning) for warning in scan_cache_dir(store.root).warnings)
        if number % 3 and number < steps - 12:
            continue  # this half of the test costs most, and the last steps are the delicate ones
        stored = put(store, rows=9)
        assert stored.ref == "me/x@v1" and len(verify(store, "me/x@v1")) == 1
        assert list((store.state_dir / "incoming").iterdir()) == []
    assert tagged == sorted(tagged)  # no tag before the last steps, and then it stays


@pytest.mark.heavy
def test_two_processes_cannot_write_at_once(store):
    process = child(
        """
        with store.lock():
            print("held", flush=True)
            sys.stdin.readline()
        """,
        store.root,
        "--token=hf_secretsecret",
        stdin=subprocess.PIPE,
    )
    assert process.stdout.readline() == "held\n"
    message = rf"the store {store.root} is in use by process {process.pid} \(`.*`, since 20.*\); wait until it ends"
    with pytest.raises(StoreError, match=message) as error:
        put(store)
    assert "hf_secret" not in str(error.value)
    started = time.monotonic()
    threading.Timer(0.5, process.stdin.close).start()  # the other process ends when its input ends
    with store.lock(wait=True):
        assert time.monotonic() - started > 0.4
    process.wait()
    assert put(store).tag == "v1"


@pytest.mark.heavy
def test_a_killed_holder_frees_the_store(store):
    process = child("with store.lock():\n        print('held', flush=True); time.sleep(60)", store.root)
    process.stdout.readline()
    process.kill()
    process.communicate()
    assert put(store).tag == "v1"


def test_the_lock_is_re_entrant(store):
    with store.lock():
        assert put(store).tag == "v1"
        with store.lock(), pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            put(Store(store.root))


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="cannot be written .* a file stands where a folder is needed"):
            put(Store(root))
        assert Store(root).artifacts() == []


def mount(*arguments):
    if os.geteuid() or subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode:
        pytest.skip("this process may not mount")


def test_a_store_that_cannot_be_written_can_be_read(store):
    first = put(store)
    mount("--bind", store.root, store.root)
    try:
        mount("-o", "remount,ro,bind", store.root)
        assert store.find("me/x", "prompts", "f" * 64) == first
        assert len(store.read_dataset(store.get("me/x"))) == 5
        with pytest.raises(StoreError, match=r"cannot be written \(Read-only file system.*make that folder writable"):
            put(store, rows=6)
    finally:
        subprocess.run(["umount", store.root], check=True)
    assert [item.tag for item in store.artifacts()] == ["v1"]


def large(store):
    rows = [{**row, "response": os.urandom(50_000).hex()} for row in rows_of(RESPONSES, 40)]
    data = Dataset.from_list(rows, features=RESPONSES.features)
    return store.put(repo="me/big", schema=RESPONSES, data=data, fields=fields())


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    try:
        store = Store(folder / "store")
        first = put(store)
        with pytest.raises(StoreError, match=r"cannot be written \(No space left on device.*free some space") as error:
            large(store)
        assert "\n" not in str(error.value)
        assert [item.ref for item in store.artifacts()] == [first.ref]
        assert list((store.state_dir / "incoming").iterdir()) == []
        assert not (store.root / "datasets--me--big").exists()
        assert put(store, rows=6).tag == "v2"
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_a_stage_fills_is_one_sentence(tmp_path, root, capsys):
    """Neither the stage's own files nor the heartbeat of the run may end in a traceback."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    try:
        assert main(["run", str(root / "recipes" / "tiny" / "smoke.yaml"), "--store", str(folder / "store")]) == 2
    finally:
        subprocess.run(["umount", folder], check=True)
    shown = capsys.readouterr()
    assert "[1/85] prompts: " in shown.out and ": stored " not in shown.out
    assert "and the disk of " in shown.out, "it was warned of"
    assert shown.err == (
        f"error: the store {folder / 'store'} cannot be written (No space left on device); nothing was stored of this "
        "artifact: free some space there, or name another store with --store or PERSYN_STORE, then run again\n"
    )


@pytest.mark.heavy
def test_a_limit_on_file_sizes(store):
    process = child(
        """
        import os, resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        rows = [{**row, "response": os.urandom(50_000).hex()} for row in rows_of(RESPONSES, 40)]
        try:
            store.put(repo="me/big", schema=RESPONSES, data=dataset_of(RESPONSES, rows), fields=fields())
        except Exception as error:
            print(type(error).__name__, error)
        """,
        store.root,
    )
    out, err = process.communicate()
    assert out.startswith("StoreError the store") and "raise the limit on file sizes" in out, out + err
    assert store.artifacts() == []
