"""A real Ray cluster of two CPUs, one for the whole file; models of the tiny zoo."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persyn_hf.backends.answers import Answer, Batch, Listed, Messages, Prepared, Request, Requests, Sampling
from persyn_hf.backends.engines import Engine, ray_actors, ray_cluster
from persyn_hf.backends.engines.ray_actors import RayEngine
from persyn_hf.backends.engines.settings import ExecutorSettings
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.errors import EngineError, InputError


ray = pytest.importorskip("ray")

SAMPLING = Sampling(temperature=0.6, top_p=1.0, top_k=0, max_tokens=24, seed=11)
ONE = ExecutorSettings(kind="ray")
TWO = ExecutorSettings(kind="ray", replicas=2)


@pytest.fixture(scope="module")
def cluster(heavy: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ray_cluster.QUIET, "PYTHONPATH": str(Path(__file__).parent)}.items():  # this module
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def prompts(root: Path) -> list[str]:
    with (root / "recipes" / "tiny" / "prompts.jsonl").open() as file:
        return [json.loads(line)["question"] for line, _ in zip(file, range(50), strict=False)]


class Noting:
    """Writes each batch down as it begins; `what` then says what comes of it."""

    kind, model, params_b, fixed_batches = "noting", "m", None, True

    def __init__(self, notes: Path, *, what: str = "answer", pause_s: float = 0.0) -> None:
        self.notes, self.what, self.pause_s = notes, what, pause_s

    def note(self, text: str) -> None:
        with self.notes.open("a") as file:
            file.write(f"{os.getpid()} {text}\n")

    def prepare(self, messages: Messages) -> Prepared:
        return Prepared(text=messages[0]["content"], num_tokens=1)

    def plan(self, requests: Requests) -> Iterator[Batch]:
        return ([request] for request in requests.take(np.arange(len(requests))))

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        for batch in batches:
            self.note(batch[0].key)
            time.sleep(self.pause_s)
            if self.what == "memory":
                raise EngineError("the teacher `m` ran out of memory; lower `generate.batch_tokens` and run again")
            if self.what == "bug":
                raise KeyError("oops")
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            yield [
                Answer(request=request, text=request.prompt.text, finish_reason="stop", num_tokens=1, seconds=0.0)
                for request in batch
            ]

    def close(self) -> None:
        self.note("closed")


class OneByOne(Noting):
    """As a server's engine: an answer depends on no batch, and many threads may ask at a time."""

    fixed_batches = False


class Slow(TransformersEngine):
    """Takes its time for each batch, so that it can be killed in the middle of one."""

    def __init__(self, notes: Path, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.noting = Noting(notes)

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        for batch in batches:
            self.noting.note(batch[0].key)
            time.sleep(0.3)
            yield from super().generate([batch])


def ask(engine: Engine, prompts: list[str], samples: int) -> list[Request]:
    return [
        Request(
            prompt_id=f"p{number}",
            model=engine.model,
            engine=engine.kind,
            sample_index=index,
            prompt=engine.prepare([{"role": "user", "content": prompt}]),
            sampling=SAMPLING,
        )
        for number, prompt in enumerate(prompts)
        for index in range(samples)
    ]


def said(answers: Iterable[Answer]) -> Counter[tuple[str, str, str, int]]:
    return Counter((a.request.key, a.text, a.finish_reason, a.num_tokens) for a in answers)


def flat(batches: Iterable[list[Answer]]) -> list[Answer]:
    return [answer for batch in batches for answer in batch]


def noted(notes: Path) -> list[tuple[int, str]]:
    """Process and key of each batch that was begun."""
    lines = [line.split() for line in notes.read_text().splitlines()]
    return [(int(pid), text) for pid, text in lines if text != "closed"]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_answers_are_the_same_with_and_without_ray_and_a_killed_actor_costs_what_is_in_flight(
    cluster: None, zoo: Path, prompts: list[str], tmp_path: Path
) -> None:
    options = {"model": str(zoo / "qwen-gen"), "batch_tokens": 1000, "dtype": "float32", "device": "cpu"}
    notes = tmp_path / "notes"
    with (
        TransformersEngine(**options) as alone,
        RayEngine(TransformersEngine(**options), partial(Slow, notes, **options), TWO) as spread,
    ):
        assert (spread.kind, spread.model, spread.fixed_batches) == (alone.kind, alone.model, True)
        assert spread.params_b == alone.params_b
        plan = list(spread.plan(Listed(ask(spread, prompts, samples=4))))
        assert len(plan) > 8
        answers: list[Answer] = []
        killed = None
        for batch in spread.generate(plan):
            answers += batch
            if len(answers) > 40 and killed is None:
                killed = noted(notes)[-1][0]
                os.kill(killed, signal.SIGKILL)
        assert len(answers) == 200
        assert said(answers) == said(flat(alone.generate(plan)))
        assert {answer.request.key: answer.request for answer in answers} == {
            request.key: request for batch in plan for request in batch
        }
    begun = Counter(key for _, key in noted(notes))
    assert set(begun) == {batch[0].key for batch in plan}
    assert 1 <= sum(times > 1 for times in begun.values()) <= ray_actors.AHEAD
    assert len({pid for pid, _ in noted(notes)}) == 3  # two actors, and one in the place of the dead


def test_batches_come_one_by_one_and_are_pulled_as_answers_come(
    cluster: None, prompts: list[str], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    pulled: list[Batch] = []

    def affordable(plan: list[Batch]) -> Iterator[Batch]:
        for batch in plan[:9]:  # a budget allows no more
            pulled.append(batch)
            yield batch

    with RayEngine(Noting(notes), partial(Noting, notes, pause_s=0.4), ONE) as engine:
        plan = list(engine.plan(Listed(ask(engine, prompts, samples=1))))
        arrived, taken = [], []
        for answers in engine.generate(affordable(plan)):
            arrived.append(time.monotonic())
            taken.append(len(pulled))
            assert len(answers) == 1
        assert {key for _, key in noted(notes)} == {batch[0].key for batch in plan[:9]}
        assert {answer.request.key for answer in flat(engine.generate(plan[9:11]))} == {b[0].key for b in plan[9:11]}
        assert len({pid for pid, _ in noted(notes)}) == 1  # the actor, and its model, live on
    actor = noted(notes)[0][0]
    wait_for(lambda: f"{actor} closed" in notes.read_text())  # so that a server there would end
    assert taken == [2, 3, 4, 5, 6, 7, 8, 9, 9]
    gaps = sorted(later - earlier for earlier, later in zip(arrived, arrived[1:], strict=False))
    assert gaps[len(gaps) // 2] > 0.3  # each as it is done, not all at the end


def test_requests_of_a_server_are_many_at_a_time(cluster: None, prompts: list[str], tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with RayEngine(OneByOne(notes), partial(OneByOne, notes, pause_s=0.2), ONE) as engine:
        requests = ask(engine, prompts, samples=8)
        answers: list[Answer] = []
        started = 0.0
        for batch in engine.generate(engine.plan(Listed(requests))):
            started = started or time.monotonic()
            answers += batch
        seconds = time.monotonic() - started
    assert Counter(answer.request.key for answer in answers) == Counter(request.key for request in requests)
    assert {answer.text for answer in answers} == set(prompts)
    assert seconds < 0.2 * len(requests) / 4  # one after another takes 80 s


def test_faults_are_one_sentence(cluster: None, prompts: list[str], tmp_path: Path) -> None:
    local = Noting(tmp_path / "local")

    def fail(build: Callable[[], Engine]) -> list[Answer]:
        engine = RayEngine(local, build, ONE)
        return flat(engine.generate(engine.plan(Listed(ask(engine, prompts, samples=1)))))

    with pytest.raises(EngineError, match="^the teacher `m` ran out of memory; lower `generate.batch_tokens` and run"):
        fail(partial(Noting, tmp_path / "memory", what="memory"))
    assert set(Counter(noted(tmp_path / "memory")).values()) == {1}  # none is retried
    assert len(noted(tmp_path / "memory")) <= 2 * ray_actors.AHEAD  # and the rest is not asked
    with pytest.raises(EngineError, match="^the engine failed in a Ray actor on [^ ]+: KeyError: 'oops'$"):
        fail(partial(Noting, tmp_path / "bug", what="bug"))
    with pytest.raises(InputError, match="^the model folder /not/on/this/node does not exist; give a folder"):
        fail(partial(TransformersEngine, "/not/on/this/node", batch_tokens=9))
    with pytest.raises(EngineError) as caught:
        fail(no_such_package)
    assert str(caught.value).startswith("Ray gave up on the teacher `m`: ")
    assert str(caught.value).endswith("then run again: every answer that came in is kept")


def no_such_package() -> Engine:
    raise ModuleNotFoundError("No module named 'torch'")


def test_a_batch_that_kills_every_actor_is_given_up(cluster: None, prompts: list[str], tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    engine = RayEngine(Noting(notes), partial(Noting, notes, what="kill"), ONE)
    with pytest.raises(EngineError) as caught:
        flat(engine.generate([ask(engine, prompts[:7], samples=1)]))
    assert str(caught.value) == (
        f"{ray_actors.ATTEMPTS} Ray actors died one after another at the same 7 requests (out of memory?); see Ray's "
        "logs on their nodes (/tmp/ray/session_latest/logs), give each replica more memory or less work at a time, "
        "and run again: every answer that came in is kept"
    )
    assert len(noted(notes)) == ray_actors.ATTEMPTS


def test_actors_that_fit_nowhere_are_not_waited_for(cluster: None, prompts: list[str], tmp_path: Path) -> None:
    local = Noting(tmp_path / "notes")
    engine = RayEngine(local, partial(Noting, tmp_path / "notes"), ExecutorSettings(kind="ray", gpus_per_replica=1))
    with pytest.raises(EngineError) as caught:
        flat(engine.generate([ask(engine, prompts[:1], samples=1)]))
    assert str(caught.value) == (
        "no node of the Ray cluster has the 1 CPUs and 1 GPUs that `generate.executor` asks for each replica "
        "(found: 2 CPUs and 0 GPUs); ask for less, or add a node"
    )
    assert list(engine.generate([])) == []


ALONE = """
import sys
from functools import partial
from pathlib import Path
from test_ray_actors import Noting, ask
from persyn_hf.backends.engines.ray_actors import RayEngine
from persyn_hf.backends.engines.settings import ExecutorSettings
from persyn_hf.errors import PersynError

notes = Path(sys.argv[1])
for address in sys.argv[2:] or [None]:
    with RayEngine(Noting(notes), partial(Noting, notes), ExecutorSettings(kind="ray", address=address)) as engine:
        try:
            print(len(list(engine.generate([ask(engine, ["2 + 2?"], 1)] * 3))), flush=True)
        except PersynError as error:
            print(error)
        sys.stdin.readline()
"""


def run_alone(notes: Path, *addresses: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, str(notes), *addresses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )


def children(pid: int) -> set[int]:
    """All processes under `pid`, itself left out."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.heavy
@pytest.mark.parametrize(
    "end", [pytest.param("close", marks=pytest.mark.slow), pytest.param("kill", marks=pytest.mark.ci)]
)
def test_a_cluster_of_its_own_ends_with_the_run_and_says_nothing(tmp_path: Path, end: str) -> None:
    process = run_alone(tmp_path / "notes")
    assert process.stdout is not None
    said = process.stdout.readline()
    started = children(process.pid)
    agents = {pid for pid in started if end == "kill" and b"Agent" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    if end == "kill":
        process.kill()
    out, err = process.communicate("\n", timeout=30)
    assert (said, out, err) == ("3\n", "", "")
    assert len(started) > 2  # control store, raylet, workers
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started - agents))
    for pid in agents:  # Ray's own two, which end by themselves after a minute or so
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.heavy
def test_no_cluster_there(tmp_path: Path) -> None:
    out, err = run_alone(tmp_path / "notes", "127.0.0.1:9", "ray://head:10001").communicate("\n", timeout=30)
    assert err == ""
    assert out.splitlines() == [
        "there is no Ray cluster at 127.0.0.1:9 (`generate.executor.address`): ConnectionRefusedError: [Errno 111] "
        "Connection refused; start one with `ray start --head`, or leave `address` out to start one for this run",
        "`generate.executor.address` must be auto or HOST:PORT of the cluster's head node, found 'ray://head:10001'; "
        "run on a node of the cluster (Ray Client, ray://, is not supported)",
    ]
