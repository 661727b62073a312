"""Choose the url that gets the next request, and adapt how many requests each url may have in flight.

No server says how much load suits it, so each url has a limit that is found by trying, as in TCP: it rises by addition
while answers come, and falls by multiplication when the server refuses (HTTP 429, 503) or does not answer in time. An
example, with `concurrency: 16`:

    16 answers come while the url is kept full      each adds 1, so the limit doubles: 32
    8 of the 32 in flight are refused               the first lowers it to 0.75 x 32 = 24; the other 7 were sent
                                                    before that, so they say nothing about 24 and change nothing
    24 answers come while the url is kept full      each adds 1/limit from now on: 25
    20 answers come while 5 are in flight           nothing: 25 was never tried

A url that is away, or has asked for a pause (Retry-After), gets nothing, and the others take its load. It is given up
after `patience_s` without success: when it is still away then, or when it refuses a request that is alone in flight.
Pauses that it asked for are not counted, but one longer than `patience_s` ends the patience at once. When every url
has been given up, the run ends.
"""

import asyncio
import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from persyn_hf.backends.engines.endpoint import Endpoint
from persyn_hf.backends.engines.replies import Fault
from persyn_hf.errors import EngineError


logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5  # doubled with every further trouble
LONGEST_WAIT_S = 30.0
DECREASE = 0.75


class Limit:
    """The limit on the requests that one url may have in flight. Times are seconds of a monotonic clock.

    Until the server first refuses, every success adds one, which doubles the limit per window; after that a whole
    window of successes adds one.
    """

    def __init__(self, start: int, most: int) -> None:
        self.value = float(min(start, most))
        self.in_flight = 0
        self._most = most
        self._decreased_at = -math.inf

    def free(self) -> int:
        """Return the number of further requests that may be sent."""
        return int(self.value) - self.in_flight

    def succeeded(self) -> None:
        """Raise the limit after a success, where more than half of it is in use (the rest may have just come in)."""
        if 2 * self.in_flight > self.value:
            step = 1.0 if self._decreased_at == -math.inf else 1 / self.value
            self.value = min(self.value + step, float(self._most))

    def refused(self, sent_at: float, now: float) -> None:
        """Lower the limit, once per round trip: what was sent before the last decrease says nothing of the new one."""
        if sent_at >= self._decreased_at:
            self.value = max(1.0, DECREASE * min(self.value, self.in_flight))
            self._decreased_at = now


@dataclass(eq=False)
class Lane:
    """One url and its state."""

    endpoint: Endpoint
    limit: Limit
    alone: bool = False  # the one request in flight wants no company
    away: bool = False
    paused_until: float = 0.0
    troubled_at: float = math.inf  # since when nothing has succeeded
    deadline: float = math.inf  # when the patience with it ends
    dropped: str | None = None  # why, when it has ended

    def free(self, alone: bool) -> int:
        """Return the number of free slots; for a request that must be `alone`, 1 if nothing is in flight, else 0."""
        if self.away or self.alone or time.monotonic() < self.paused_until:
            return 0
        return int(self.limit.in_flight == 0) if alone else self.limit.free()

    def works(self) -> None:
        """Note that the server has answered: all trouble is over."""
        self.troubled_at = self.deadline = math.inf
        self.dropped = None


class Lanes:
    """The urls of a model, used in the thread of its event loop only. `end` ends the run."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        patience_s: float,
        recover: Callable[[str], None] | None,
        end: Callable[[BaseException], None],
        waits: Callable[[str | None], None],
    ) -> None:
        self._lanes, self._patience_s, self._recover, self._end = lanes, patience_s, recover, end
        self._waits = waits  # is told why nothing can be sent, and None when it can
        self._changed = asyncio.Event()  # a slot may be free; a new one each time
        self._loners = 0  # requests that wait for a url of their own
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def slots(self) -> int:
        """The requests that all urls together may have in flight."""
        return sum(int(lane.limit.value) for lane in self._lanes)

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.endpoint.close()

    async def acquire(self, *, alone: bool) -> Lane:
        """Wait for a slot on the url with the most free ones; requests that must be `alone` go first."""
        self._loners += alone
        try:
            while True:
                lane = max(self._lanes, key=lambda lane: lane.free(alone))
                if lane.free(alone) > 0 and (alone or not self._loners):
                    lane.limit.in_flight += 1
                    lane.alone = alone
                    return lane
                await self._changed.wait()
        finally:
            if alone:
                self._loners -= 1
                self._wake()

    def release(self, lane: Lane) -> None:
        """Give a slot back."""
        lane.limit.in_flight -= 1
        lane.alone = False
        self._wake()

    def pause(self, lane: Lane, sent_at: float, fault: Fault) -> None:
        """Note that the server refused a request: send it less, and nothing for as long as it asks."""
        now = time.monotonic()
        lane.limit.refused(sent_at, now)
        hopeless = lane.limit.in_flight == 1 and sent_at >= lane.troubled_at and now >= lane.deadline
        self._begin_trouble(lane, now)
        until = now + fault.pause
        if until > lane.paused_until:
            lane.deadline += until - max(now, lane.paused_until)
            lane.paused_until = until
            asyncio.get_running_loop().call_later(fault.pause, self._wake)
        if fault.pause > self._patience_s:
            self._drop(lane, f"{fault.reason}; it asks to wait for {fault.pause:g} s")
        elif hopeless:
            self._drop(lane, fault.reason)

    def lose(self, lane: Lane, reason: str) -> None:
        """Note that the url is away: send it nothing until it is back."""
        if lane.away:
            return
        lane.away = True
        self._begin_trouble(lane, time.monotonic())
        if all(other.away for other in self._lanes):
            names = ", ".join(other.endpoint.name for other in self._lanes)
            self._waits(f"{names} is away ({reason}); it is waited for up to {self._patience_s:g} s")
        task = asyncio.get_running_loop().create_task(self._wait_for(lane, reason))
        self._chores.add(task)
        task.add_done_callback(self._chore_done)

    def _begin_trouble(self, lane: Lane, now: float) -> None:
        if lane.troubled_at == math.inf:
            lane.troubled_at, lane.deadline = now, now + self._patience_s

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _chore_done(self, task: "asyncio.Task[None]") -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    async def _wait_for(self, lane: Lane, reason: str) -> None:
        tries = 0
        while not await lane.endpoint.reachable():
            tries += 1
            if self._recover is not None:
                await _call_in_thread(self._recover, lane.endpoint.url)
                continue
            if tries == 1:
                logger.warning(
                    "%s is away (%s); waiting up to %g s for it", lane.endpoint.name, reason, self._patience_s
                )
            left = lane.deadline - time.monotonic()
            if left <= 0:
                self._drop(lane, reason)
            wait = back_off(tries)
            await asyncio.sleep(min(wait, left) if left > 0 else wait)
        lane.away = False
        self._waits(None)
        self._wake()

    def _drop(self, lane: Lane, reason: str) -> None:
        """Give a url up, though it is still tried; end the run when no other is left."""
        lane.dropped = f"{lane.endpoint.name} ({reason})"
        if all(lane.dropped for lane in self._lanes):
            self._end(
                EngineError(
                    f"no answers from {', '.join(str(lane.dropped) for lane in self._lanes)} within "
                    f"`patience_s` = {self._patience_s:g} s; start the server or mend its url, then run again: "
                    "what has been answered is kept"
                )
            )


async def _call_in_thread(function: Callable[[str], None], url: str) -> None:
    """Call `function(url)` in a thread that the end of the program does not wait for.

    A server may take half an hour to start; Ctrl-C may not. Raises what the function raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            function(url)
        except BaseException as raised:  # noqa: BLE001  # raised again where the answers are awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the client has been closed meanwhile
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name="persyn-recover", daemon=True).start()
    if (error := await done) is not None:
        raise error


def back_off(times: int) -> float:
    """Compute the seconds to wait after `times` troubles in a row, with jitter, so that not all come back at once."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(max(times, 1) - 1, 16)) * random.uniform(0.5, 1.5)
