"""Generation killed at random moments: the run itself, the vLLM server, a Ray actor. Nothing paid for is lost."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml
from wide_heads import widen

from persyn_hf.backends.engines import unfinished
from persyn_hf.cli.main import main
from persyn_hf.schemas import RESPONSES
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy


Victim = Callable[[psutil.Process], bool]

DRIVER = """
import sys
from persyn_hf.backends.engines import ask

class Logged(ask._Affordable):
    def __iter__(self):
        for batch in super().__iter__():
            with open(sys.argv[1], "a") as log:
                log.write("".join(request.key + "\\n" for request in batch))
            yield batch

ask._Affordable = Logged
from persyn_hf.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


# Imported once, in the process that all starts of a mortal run are forked from.
PRELOADED = [
    "persyn_hf.cli.main",
    "persyn_hf.backends.engines.transformers",
    "datasets",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
]


def mortal(arguments: list[str], lifetime: int) -> None:
    """Run a command that keeps the state of a batch at every token, and kills itself after so many tokens."""
    left = [lifetime]
    call = unfinished._Keeper.__call__

    def live(keeper: unfinished._Keeper, *state: object) -> object:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return call(keeper, *state)

    unfinished.EVERY_S = unfinished.TIMES_A_WRITE = 0
    unfinished._Keeper.__call__ = live
    sys.exit(main(arguments))


def recipe(folder: Path, root: Path, teachers: tuple[Path, ...] = (), questions: int = 40, **generate: object) -> Path:
    """Two teachers of the zoo answer so many questions, 2 samples each."""
    zoo = root / "recipes" / "tiny" / "zoo"
    teachers = teachers or (zoo / "qwen-gen", zoo / "mistral-eq")
    values = {
        "name": "kills",
        "until": "score",
        "teachers": [{"name": model.name, "model": str(model)} for model in teachers],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {
            "path": str(root / "recipes" / "tiny" / "prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": questions - 10,
            "dev": 10,
            "pool": 10,
        },
        "generate": {"samples": 2, "max_tokens": 100, "dtype": "float32", **generate},
    }
    path = folder / "kills.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(path: Path, store: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", DRIVER, str(log), "run", str(path), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def journalled(store: Path) -> dict[str, tuple[str, str | None]]:
    """What is in the journal: key -> text, error."""
    path = store / ".persyn" / "journal.sqlite"
    if not path.exists():
        return {}
    db = sqlite3.connect(path)
    try:
        rows = db.execute("SELECT lower(hex(key)), text, error FROM answers").fetchall()
    except sqlite3.OperationalError:  # killed while it was founded
        rows = []
    finally:
        db.close()
    found = {key: (text, error) for key, text, error in rows}
    assert len(found) == len(rows), "a key was answered twice"
    return found


def kill_child(process: "subprocess.Popen[bytes]", is_victim: Victim) -> bool:
    """SIGKILL one child that is a victim; False: there is none (yet)."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    for child in children:
        try:
            if is_victim(child):
                child.kill()
                return True
        except psutil.Error:
            continue
    return False


def is_vllm(child: psutil.Process) -> bool:
    return "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline())


def is_actor(child: psutil.Process) -> bool:
    return " ".join(child.cmdline()).startswith(("ray::MapWorker", "ray::Map"))


def disturb(
    path: Path, store: Path, kills: int, is_victim: Victim, seconds: float, rng: random.Random
) -> dict[str, tuple[str, str | None]]:
    """Kill the run, or a child of it that is a victim, `kills` times, then let it finish.

    Every fourth kill comes at any moment of the start, the others some time after a new answer, at most `seconds`.
    Returns what was journalled before the last start. No request that is in the journal is ever sent again.
    """
    attempt, done = 0, 0
    while True:
        before = journalled(store)
        log = store.parent / f"sent-{attempt}"
        process = start(path, store, log)
        attempt += 1
        killed_at_its_start = False
        while done < kills and process.poll() is None:
            early = done % 4 == 0
            known = len(journalled(store))
            until = time.monotonic() + rng.uniform(0, 15 if early else 120)
            while process.poll() is None and time.monotonic() < until and (early or len(journalled(store)) == known):
                time.sleep(0.05)
            time.sleep(0 if early else rng.uniform(0, seconds))
            if process.poll() is not None:
                break
            if rng.random() < 0.5 and kill_child(process, is_victim):
                killed_at_its_start = len(journalled(store)) == len(before)
            else:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            done += 1
        _, errors = process.communicate()
        sent = [key[:32] for key in log.read_text().split()] if log.exists() else []  # the journal keeps half a sha256
        assert not set(sent) & before.keys(), "a journalled request was sent again"
        assert before.items() <= journalled(store).items(), "an answer was lost or changed"
        if process.returncode == 0:
            assert done == kills, "the run was over before all kills"
            return before
        assert process.returncode == -signal.SIGKILL or (  # a first start is not tried again
            killed_at_its_start and b"before it was ready" in errors
        ), errors.decode()


def digest(store: Path) -> str:
    return Store(store).get("local/kills-responses@v1").digest


@pytest.mark.parametrize(
    ("kills", "questions", "seed"),
    [
        pytest.param(3, 30, 59, marks=pytest.mark.ci),  # the run as it starts, the run at work, an actor
        pytest.param(20, 400, 20, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_with_ray_the_digest_is_that_of_an_undisturbed_run_without(
    tmp_path: Path, root: Path, kills: int, questions: int, seed: int
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    size = {"questions": questions, "batch_tokens": 300}  # small batches: the run must last
    assert main(["run", str(recipe(plain, root, **size)), "--store", str(plain / "store")]) == 0
    path = recipe(tmp_path, root, **size, executor={"kind": "ray", "replicas": 2, "cpus_per_replica": 0.5})
    disturb(path, tmp_path / "store", kills, is_actor, 2, random.Random(seed))
    assert digest(tmp_path / "store") == digest(plain / "store")


@pytest.mark.ci
@pytest.mark.timeout(1200)
def test_a_run_killed_more_often_than_a_batch_takes_gets_on_to_the_same_digest(tmp_path: Path, root: Path) -> None:
    """Each start lives for so many tokens, fewer than the batch of either teacher has, and keeps its state at each."""
    zoo = root / "recipes" / "tiny" / "zoo"
    size = {"teachers": (zoo / "llama-long", zoo / "qwen-gen"), "questions": 20}  # a batch each
    lifetime = 6
    plain = tmp_path / "plain"
    plain.mkdir()
    assert main(["run", str(recipe(plain, root, **size)), "--store", str(plain / "store")]) == 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    arguments = ["run", str(recipe(tmp_path, root, **size)), "--store", str(tmp_path / "store")]
    killed = 0
    while True:
        before = journalled(tmp_path / "store")
        run = context.Process(target=mortal, args=(arguments, lifetime))
        run.start()
        run.join()
        assert before.items() <= journalled(tmp_path / "store").items(), "an answer was lost or changed"
        if run.exitcode == 0:
            break
        assert run.exitcode == -signal.SIGKILL
        killed += 1
        assert killed < 100, "the run does not get on"
    assert killed >= 20
    with closing(sqlite3.connect(tmp_path / "store" / ".persyn" / "journal.sqlite")) as db:
        longest = [tokens for (tokens,) in db.execute("SELECT max(num_tokens) FROM answers GROUP BY teacher")]
    assert len(longest) == 2
    assert min(longest) > lifetime
    assert digest(tmp_path / "store") == digest(plain / "store")
    assert list((tmp_path / "store" / ".persyn" / "unfinished").iterdir()) == []


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_with_vllm_every_key_is_there_once_and_what_was_journalled_stays(
    tmp_path: Path, root: Path, kills: int
) -> None:
    args = ["--enforce-eager", "--no-enable-chunked-prefill", "--max-model-len", "256"]
    zoo = root / "recipes" / "tiny" / "zoo"
    teachers = (zoo / "llama-long", widen(zoo / "mistral-eq", tmp_path / "mistral-eq"))
    path = recipe(tmp_path, root, teachers, engine="vllm", vllm={"concurrency": 2, "args": args})
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    before = disturb(path, tmp_path / "store", kills, is_vllm, 1, random.Random(0))
    store = Store(tmp_path / "store")
    rows = store.read_dataset(store.get("local/kills-responses@v1"))
    RESPONSES.check(rows, "responses")
    cells = {(row["prompt_id"], row["teacher"], row["sample_index"]) for row in rows}
    assert len(cells) == len(rows) == 2 * 40 * 2
    assert set(rows["status"]) == {"ok"}
    texts = sorted(rows["response"])
    for text, _ in before.values():
        texts.remove(text)  # each is in the artifact as it was journalled
    assert len(before) > 0
