"""Take in the body of a reply within bounds: what is unpacked counts, and so does what others hold meanwhile.

A body may have `MOST_BYTES`, and only `LONG` of those beyond `SHORT` are in memory at once: the others wait on their
connections, so nothing that was paid for is lost. A long answer keeps its place until who asked for it has taken it
and comes back for more. docs/servers.md has what was measured with 256 requests in flight.
"""

import asyncio
import zlib
from typing import TYPE_CHECKING

from persyn_hf.backends.answers import Said
from persyn_hf.backends.engines.replies import Fault


if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 8 * 2**20  # of one body: 100,000 tokens of reasoning, whatever their script, are below 2 MiB
SHORT = 256 * 2**10  # bytes of a body that needs no place
LONG = 8  # places; as text with one emoji in it a body takes four times its bytes


class Places:
    """The places for long bodies of one client, used in the thread of its event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LONG)

    async def enter(self) -> None:
        """Wait for a place."""
        await self._free.acquire()

    def leave(self) -> None:
        """Give a place back."""
        self._free.release()


class Body:
    """A body that is read. Where it is long it has a place, until `leave`, or until its answer is taken."""

    def __init__(self, places: Places) -> None:
        self.bytes = b""
        self._places, self._is_long = places, False

    async def grow(self, size: int) -> None:
        """Wait for a place where the body is beyond `SHORT`."""
        if size > SHORT and not self._is_long:
            await self._places.enter()
            self._is_long = True

    def leave(self) -> None:
        """Give the place back, where there is one."""
        if self._is_long:
            self._places.leave()
            self._is_long = False


async def take(response: "httpx2.Response", places: Places) -> Body | Fault:
    """Read a body to its end, or say why not. Nothing packed was asked for; gzip is unpacked all the same."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
        return Fault(
            kind="rejected", reason=f"the server's answer is packed as {packing[:20]!r}, which was not asked for"
        )
    unpack = None if packing in ("identity", "") else zlib.decompressobj(47)  # 47: gzip or zlib, as it says itself
    body = Body(places)
    try:
        fault = await _read(response, unpack, body)
    except BaseException:
        body.leave()
        raise
    if fault is not None:
        body.leave()
        return fault
    return body


async def _read(response: "httpx2.Response", unpack: "zlib._Decompress | None", body: Body) -> Fault | None:
    """Read into `body`, and return why not all of it could be read."""
    parts: list[bytes] = []
    size = 0
    async for raw in response.aiter_raw():
        try:
            part = raw if unpack is None else unpack.decompress(raw, MOST_BYTES - size + 1)
        except zlib.error:
            return Fault(kind="failed", reason="the server's answer cannot be unpacked")
        size += len(part)
        if size > MOST_BYTES:
            return Fault(kind="rejected", reason=f"the server's answer is longer than {MOST_BYTES >> 20} MiB")
        parts.append(part)
        await body.grow(size)
    body.bytes = b"".join(parts)
    return None


def keeps_place(said: Said) -> bool:
    """Tell whether an answer is so long that its body had a place, which it keeps until it is taken."""
    return len(said.text) + len(said.reasoning or "") > SHORT
