"""Take in the body of a reply within bounds: what is unpacked counts, and so does what others hold meanwhile."""

import threading
import zlib
from typing import TYPE_CHECKING

from persyn_hf.backends.engines.replies import Fault


if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 8 * 2**20  # of one body: 100,000 tokens of reasoning, whatever their script, are below 2 MiB
ALL_BYTES = 256 * 2**20  # of all that are on their way in at once


class _Held:
    """The number of bytes that bodies on their way in hold, in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0

    def add(self, number: int) -> bool:
        """Add so many, and tell whether there was room for them."""
        with self._lock:
            fits = self._bytes + number <= ALL_BYTES
            self._bytes += number if fits else 0
        return fits

    def drop(self, number: int) -> None:
        """Take so many away."""
        with self._lock:
            self._bytes -= number


_held = _Held()


async def take(response: "httpx2.Response") -> bytes | Fault:
    """Read a body to its end, or say why not. Nothing packed was asked for; gzip is unpacked all the same."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
        return Fault(
            kind="rejected", reason=f"the server's answer is packed as {packing[:20]!r}, which was not asked for"
        )
    unpack = None if packing in ("identity", "") else zlib.decompressobj(47)  # 47: gzip or zlib, as it says itself
    parts: list[bytes] = []
    size = 0
    try:
        async for raw in response.aiter_raw():
            try:
                part = raw if unpack is None else unpack.decompress(raw, MOST_BYTES - size + 1)
            except zlib.error:
                return Fault(kind="failed", reason="the server's answer cannot be unpacked")
            if size + len(part) > MOST_BYTES:
                return Fault(kind="rejected", reason=f"the server's answer is longer than {MOST_BYTES >> 20} MiB")
            if not _held.add(len(part)):
                return Fault(kind="failed", reason="too many long answers came in at once")
            size += len(part)
            parts.append(part)
        return b"".join(parts)
    finally:
        _held.drop(size)
