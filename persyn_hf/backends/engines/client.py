"""Keep model servers busy: many requests in flight, answers in order of completion.

A thread of its own owns the sockets, so that a caller who is writing or grading keeps no server waiting. What may be
tried again is; a row that cannot be answered becomes its own error; what no row can get past ends the run.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persyn_hf.backends.answers import Answer, Request, Said, answer_to, refuse
from persyn_hf.backends.engines.bodies import Places, keeps_place
from persyn_hf.backends.engines.endpoint import Endpoint
from persyn_hf.backends.engines.lanes import Lane, Lanes, Limit, back_off
from persyn_hf.backends.engines.replies import Fault, lost
from persyn_hf.errors import EngineError


class Client:
    """The client of one model's urls. `answers` may be called from several threads at once; they share the limits.

    `recover(url)` is called, once at a time, when a url is away, instead of waiting `patience_s` for it. It blocks
    until the server is back; what it raises ends the run.
    """

    def __init__(
        self,
        model: str,
        urls: Sequence[str],
        *,
        api_key: str | None,
        extra: Mapping[str, Any],
        concurrency: int,
        max_concurrency: int,
        timeout_s: float,
        attempts: int,
        patience_s: float,
        recover: Callable[[str], None] | None = None,
        key_hint: str = "check its API key",
        waits: Callable[[str | None], None] = lambda reason: None,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        self._timeout_s, self._attempts = timeout_s, attempts
        self._places = Places()
        of_all: dict[str, Any] = {"api_key": api_key, "extra": extra, "key_hint": key_hint, "places": self._places}
        endpoints = [endpoint(model, url, connections=max_concurrency, **of_all) for url in urls]
        self._lanes = Lanes(
            [Lane(endpoint=endpoint, limit=Limit(concurrency, max_concurrency)) for endpoint in endpoints],
            patience_s=patience_s,
            recover=recover,
            end=self._end,
            waits=waits,
        )
        self._callers: set[_Caller] = set()
        self._lock = threading.Lock()  # of `_callers` and `_failure`
        self._failure: BaseException | None = None
        self._last = time.perf_counter()  # when the newest answer came
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="persyn-client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel what is in flight and end the thread."""
        self._end(EngineError("the connection to the server was closed while answers were awaited"))
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def answers(self, requests: Iterable[Request]) -> Iterator[list[Answer]]:
        """Answer every request; each list holds all that have come in since the last one.

        `requests` is read in this thread, and only as far as requests fit in flight.
        """
        caller = _Caller()
        self._enter(caller)
        waiting = iter(requests)
        try:
            while True:
                ready = self._fill(caller, waiting)
                ready += caller.collect(wait=not ready)
                if ready:
                    yield ready
                    self._taken(ready)
                elif caller.failure is not None:
                    raise caller.failure
                else:
                    return
        except KeyboardInterrupt:  # what has come in is paid for
            if ready := caller.collect(wait=False):
                yield ready
                self._taken(ready)
            raise
        finally:
            self._leave(caller)

    def _taken(self, answers: Sequence[Answer]) -> None:
        """Give the places of long answers back: the caller is done with them."""
        for answer in answers:
            if keeps_place(answer):
                self._post(self._places.leave)

    def _fill(self, caller: "_Caller", waiting: Iterator[Request]) -> list[Answer]:
        """Send requests while there is room, and return answers to those that cannot be asked."""
        refused: list[Answer] = []
        while caller.more and caller.failure is None and caller.outstanding + len(refused) < self._room():
            request = next(waiting, None)
            if request is None:
                caller.more = False
            elif request.prompt.refusal:
                refused.append(refuse(request))
            else:
                caller.outstanding += 1
                self._post(self._start, caller, request)
        return refused

    def _room(self) -> int:
        """Compute one caller's share of the slots."""
        return max(1, self._lanes.slots // max(1, len(self._callers)))

    def _enter(self, caller: "_Caller") -> None:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self._callers:
                self._last = time.perf_counter()
            self._callers.add(caller)

    def _leave(self, caller: "_Caller") -> None:
        with self._lock:
            self._callers.discard(caller)
        self._post(caller.cancel)

    def _post(self, callback: Callable[..., object], *args: object) -> None:
        """Call `callback` in the event loop's thread; do nothing where the client is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    def _end(self, failure: BaseException) -> None:
        """End the client: every caller gets what has been answered, then the failure."""
        with self._lock:
            self._failure = self._failure or failure
            for caller in self._callers:
                caller.queue.put(self._failure)

    # What follows runs in the thread of the event loop.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._shut())
        finally:
            self._loop.close()

    async def _shut(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lanes.close()

    def _start(self, caller: "_Caller", request: Request) -> None:
        task = self._loop.create_task(self._answer(request))
        caller.tasks.add(task)

        def done(task: "asyncio.Task[Answer]") -> None:
            caller.tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is not None:
                self._end(error)
            else:
                caller.queue.put(task.result())

        task.add_done_callback(done)

    async def _answer(self, request: Request) -> Answer:
        """Try until there is an answer, or until no attempt is left, which is an answer with an error.

        A request may kill the server, and its neighbours fail with it. Each request that was in flight when a url
        went away is a suspect and makes its last attempt alone on a url, so that only the killer ends as an error.
        """
        failures = refused = 0
        suspect = False
        while True:
            lane = await self._lanes.acquire(alone=suspect and 0 < failures == self._attempts - 1)
            sent_at = time.monotonic()
            try:
                found = await self._ask(lane, request)
                if isinstance(found, Said):
                    lane.works()
                    lane.limit.succeeded()
                    return self._finish(request, found)
                if found.kind == "end":
                    raise EngineError(found.reason)
                if found.kind == "rejected":
                    lane.works()
                    return self._finish(request, found)
                if found.kind == "busy":
                    refused += 1
                    self._lanes.pause(lane, sent_at, found)
                else:
                    failures += found.sent
                if found.kind == "away":
                    self._lanes.lose(lane, found.reason)
                if found.kind == "late":  # too much load shows like this, too
                    lane.limit.refused(sent_at, time.monotonic())
                wait = 0.0 if found.kind == "late" else back_off(refused if found.kind == "busy" else failures)
                if lane.alone and found.kind == "failed":  # the next in line must not meet the server while it dies
                    await asyncio.sleep(wait)
            finally:
                self._lanes.release(lane)
            if failures >= self._attempts:
                return self._finish(request, replace(found, reason=f"{found.reason} (attempts: {failures})"))
            suspect = suspect or lane.away
            await asyncio.sleep(wait)
            suspect = suspect or lane.away  # a dying server says 500 before it goes

    async def _ask(self, lane: Lane, request: Request) -> Said | Fault:
        """Send one request, and wait no longer than `timeout_s`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await lane.endpoint.ask(request)
        except TimeoutError:
            return Fault(kind="late", reason=f"no answer within {self._timeout_s:g} s")

    def _finish(self, request: Request, found: Said | Fault) -> Answer:
        """Make the answer, or the error, with its share of the wall time: the seconds since the newest one."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if isinstance(found, Said):
            return answer_to(request, found, seconds=seconds)
        return answer_to(request, lost(found), seconds=seconds)


@dataclass(eq=False)
class _Caller:
    """One call of `Client.answers`: what it has asked, and what has come in."""

    queue: "queue.SimpleQueue[Answer | BaseException]" = field(default_factory=queue.SimpleQueue)
    tasks: "set[asyncio.Task[Answer]]" = field(default_factory=set)  # of the event loop's thread only
    outstanding: int = 0
    more: bool = True  # requests are left
    failure: BaseException | None = None

    def collect(self, *, wait: bool) -> list[Answer]:
        """Take what has come in; with `wait`, wait for the first answer where any is outstanding."""
        arrived: list[Answer] = []
        block = wait and self.outstanding > 0 and self.failure is None
        while True:
            try:
                item = self.queue.get(block=block)
            except queue.Empty:
                return arrived
            block = False
            if isinstance(item, Answer):
                self.outstanding -= 1
                arrived.append(item)
            else:
                self.failure = item

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
