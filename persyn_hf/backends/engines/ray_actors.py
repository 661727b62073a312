"""Run copies of an engine as actors of a Ray cluster, fed and journalled by the driver (`generate.executor`).

The actors are a pool of Ray Data. Its dataset has no fixed length: the driver hands a row of requests to `Feed` when
an answered one comes back, so that work in flight is bounded, a budget may end the run early, and the actors load
their models once. (A dataset per wave of requests would start them anew for each.) One row is one task of an actor and
one block of answers: what dies with an actor is asked again by Ray, row by row.
"""

import asyncio
import itertools
import pickle
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from persyn_hf.backends.answers import Answer, Batch, Messages, Prepared, Requests
from persyn_hf.backends.engines import Engine, ray_cluster
from persyn_hf.backends.engines.counting import Counter
from persyn_hf.backends.engines.settings import ExecutorSettings
from persyn_hf.errors import EngineError, PersynError, reason


KEY = "generate.executor"
AHEAD = 2  # fixed batches an actor holds: one at work, one waiting, so that it does not idle for the driver's answer
THREADS = 64  # of an actor whose engine takes requests one by one, with GROUP batches each: more than an engine has
GROUP = 8  # in flight, so that a row that waits for its last answer leaves no gap
ATTEMPTS = 4  # at a row whose actor dies; a row that kills every actor must not be asked for ever


class RayEngine(Engine):
    """One teacher on `replicas` actors, each with an engine made by `build`, which is pickled and called there.

    `local` prepares and plans in the driver and loads no weights there.
    """

    def __init__(self, local: Engine, build: Callable[[], Engine], settings: ExecutorSettings) -> None:
        self._local, self._build, self._settings = local, build, settings
        self.kind = local.kind
        self.model = local.model
        self.fixed_batches = local.fixed_batches
        self._per_actor = AHEAD if local.fixed_batches else THREADS  # rows
        self._pool: tuple[Any, Generator[dict[str, Any], None, None]] | None = None  # feed, rows of results

    @property
    def params_b(self) -> float | None:
        return self._local.params_b

    @property
    def counter(self) -> Counter | None:
        return self._local.counter

    def prepare(self, messages: Messages) -> Prepared:
        return self._local.prepare(messages)

    def plan(self, requests: Requests) -> Iterator[Batch]:
        return self._local.plan(requests)

    def close(self) -> None:
        """End the actors. A cluster that was started here serves the next teacher and ends with the process."""
        self._local.close()
        if self._pool is not None:
            feed, results = self._pool
            feed.end.remote()
            with suppress(Exception):  # every answer is here; a cluster that has gone meanwhile is no fault
                for _ in results:  # none: Ray then lets the actors end by themselves, and they close their engines
                    pass
            self._drop()

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Answer every request; the next batches are pulled once the caller has taken the answers to earlier ones.

        Raises:
            EngineError: no cluster, no node that an actor fits on, or a fault in an actor.
        """
        rows = self._rows(batches)
        first = list(itertools.islice(rows, self._settings.replicas * self._per_actor))
        if not first:
            return
        feed, results = self._pool = self._pool or self._start()
        try:
            feed.put.remote(first)
            in_flight = len(first)
            while in_flight:
                answered = next(results)
                yield from _read_result(answered["result"])
                following = list(itertools.islice(rows, 1))
                feed.put.remote(following, answered["index"])
                in_flight += len(following) - 1
        except BaseException as error:  # what is in flight would come out of the next call
            self._drop()
            import ray

            if isinstance(error, ray.exceptions.RayError):
                cause = getattr(error, "cause", None) or error
                raise EngineError(
                    f"Ray gave up on the teacher `{self.model}`: {reason(cause)}; see Ray's logs on the node of the "
                    "actor (/tmp/ray/session_latest/logs), then run again: every answer that came in is kept"
                ) from None
            raise

    def _rows(self, batches: Iterable[Batch]) -> Iterator[bytes]:
        """Yield rows for the actors: a row is one batch or, where a batch is a single request, `GROUP` of them."""
        remaining = iter(batches)
        while row := list(itertools.islice(remaining, 1 if self.fixed_batches else GROUP)):
            yield pickle.dumps(row)

    def _start(self) -> tuple[Any, Generator[dict[str, Any], None, None]]:
        """Start the pool, which lives until `close` however often `generate` is called."""
        ray = ray_cluster.connect(self._settings.address, KEY)
        ray_cluster.check_room(ray, self._settings, KEY)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        feed = ray.remote(num_cpus=0, scheduling_strategy=here)(Feed).remote()
        return feed, _results(ray, self._dataset(ray, feed))

    def _drop(self) -> None:
        """Let go of the pool, whatever it is doing."""
        if self._pool is not None:
            import ray

            feed, results = self._pool
            self._pool = None
            results.close()
            ray.kill(feed)

    def _dataset(self, ray: Any, feed: Any) -> Any:
        """Make the lazy dataset: one task that reads the feed, and the pool of actors."""
        threads = 1 if self.fixed_batches else THREADS
        replicas = self._settings.replicas
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # byte, that is to say: no row waits for another one to fill its block
        context._max_num_blocks_in_streaming_gen_buffer = replicas * self._per_actor  # 2 is twenty rows per second
        context.execution_no_progress_timeout_s = -1  # a large model may load, or think, for longer
        with ray.data.DataContext.current(context):
            source = ray.data.from_items([0]).map_batches(_read, fn_kwargs={"feed": feed}, batch_size=None, num_cpus=0)
            return source.map(
                Worker,
                fn_constructor_args=(self._build, feed),
                compute=ray.data.ActorPoolStrategy(
                    size=replicas,
                    max_tasks_in_flight_per_actor=self._per_actor,
                    max_concurrent_calls_per_actor=threads,
                    enable_true_multi_threading=threads > 1,
                ),
                num_cpus=self._settings.cpus_per_replica,
                num_gpus=self._settings.gpus_per_replica or None,
            )


class Feed:
    """The actor on the driver's node that holds the rows that are not answered yet, by number.

    A row stays until its answers are here: should Ray read the feed again after a loss, it reads the same rows.
    """

    def __init__(self) -> None:
        self._rows: dict[int, bytes] = {}
        self._begun: dict[int, int] = {}  # how often
        self._count = 0  # rows that have come in
        self._ended = False
        self._changed = asyncio.Condition()

    async def put(self, rows: Sequence[bytes], answered: int | None = None) -> None:
        """Take in the next rows, and drop the one that was answered."""
        async with self._changed:
            if answered is not None:
                self._rows.pop(answered, None)
                self._begun.pop(answered, None)
            self._rows.update(enumerate(rows, start=self._count))
            self._count += len(rows)
            self._changed.notify_all()

    async def end(self) -> None:
        """Note that no more rows will come."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def take(self, index: int) -> bytes | None:
        """Return the row of that number, once it has come in; None after the last."""
        async with self._changed:
            await self._changed.wait_for(lambda: index < self._count or self._ended)
        if index >= self._count:
            return None
        return self._rows.get(index, pickle.dumps([]))

    async def begin(self, index: int) -> int:
        """Note that an actor begins a row, and return how many did before it. Ray itself would restart without end."""
        before = self._begun.get(index, 0)
        self._begun[index] = before + 1
        return before


class Worker:
    """An engine in its actor. Faults go back as values: Ray would log, and perhaps retry, what is raised."""

    def __init__(self, build: Callable[[], Engine], feed: Any) -> None:
        self._feed = feed
        self._engine: Engine | PersynError
        try:
            self._engine = build()
        except PersynError as error:
            self._engine = error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        result: list[list[Answer]] | PersynError
        try:
            result = self._answer(row["index"], pickle.loads(row["batches"]))
        except PersynError as error:
            result = error
        except Exception as error:  # noqa: BLE001  # Ray's own report of it is a page of two tracebacks
            result = EngineError(f"the engine failed in a Ray actor on {socket.gethostname()}: {reason(error)}")
        return {"index": row["index"], "result": pickle.dumps(result)}

    def _answer(self, index: int, batches: list[Batch]) -> list[list[Answer]]:
        import ray

        if isinstance(self._engine, PersynError):
            raise self._engine
        if ray.get(self._feed.begin.remote(index)) >= ATTEMPTS:
            raise EngineError(
                f"{ATTEMPTS} Ray actors died one after another at the same {sum(map(len, batches))} requests (out of "
                "memory?); see Ray's logs on their nodes (/tmp/ray/session_latest/logs), give each replica more "
                "memory or less work at a time, and run again: every answer that came in is kept"
            )
        return list(self._engine.generate(batches))

    def __del__(self) -> None:
        """Close the engine when Ray drops the worker at the end of its dataset: it may own a server."""
        if not isinstance(self._engine, PersynError):
            with suppress(Exception):
                self._engine.close()


def _read(_: Mapping[str, Any], feed: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of the feed, one block each."""
    import ray

    for index in itertools.count():
        batches = ray.get(feed.take.remote(index))
        if batches is None:
            return
        yield {"index": [index], "batches": [batches]}


def _results(ray: Any, dataset: Any) -> Generator[dict[str, Any], None, None]:
    """Yield what the actors return, each row as soon as it is done: iter_batches would hold it back for the next."""
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield from ray.get(entry.ref).to_pylist()


def _read_result(pickled: bytes) -> Iterator[list[Answer]]:
    result: list[list[Answer]] | PersynError = pickle.loads(pickled)
    if isinstance(result, PersynError):
        raise result
    yield from result
