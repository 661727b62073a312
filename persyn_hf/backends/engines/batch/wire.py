"""Speak HTTP with a batch API: what fails for a while is tried again, and what stays wrong ends the run."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2

from persyn_hf.backends.engines.addresses import shown
from persyn_hf.backends.engines.endpoint import HOPS, LOCAL
from persyn_hf.backends.engines.replies import Fault, parse, read_reply
from persyn_hf.errors import EngineError
from persyn_hf.text import first_line


TIMEOUT = httpx2.Timeout(600, connect=20)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LONGEST_LINE = 1 << 26  # bytes of an answer
FINAL = ("denied", "unpaid", "moved", "missing", "rejected", "end")  # faults that another attempt does not mend
REDIRECTS = (301, 302, 303, 307, 308)

Unless = Callable[[], bool]


class GoneError(EngineError):
    """The service does not know a batch, or what came out of it."""


class BusyError(EngineError):
    """The service has refused, as long as patience lasts, to take more."""


class Wire:
    """The connection to one service. Faults that pass are waited for, `patience_s` at most each time."""

    def __init__(
        self, url: str, address: str, end: str, headers: Mapping[str, str], *, key: str | None, **hints: Any
    ) -> None:
        """Prepare: `address` is that of a request without a batch, below which `end` is cut off."""
        self.name = shown(url)
        self.place = shown(address).removesuffix(end)
        self._base, self._end, self._headers, self._key = httpx2.URL(address), end, dict(headers), key
        self._key_hint: str = hints["key_hint"]
        self._patience_s: float = hints["patience_s"]
        self.params = dict(self._base.params)  # of a query in the address, such as Azure's api-version
        self.waits: Callable[[str | None], None] = lambda reason: None
        self._http = httpx2.Client(timeout=TIMEOUT, mounts={f"all://{host}": None for host in LOCAL})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(
        self,
        method: str,
        path: str,
        sent: Callable[[], dict[str, Any]] = dict,
        *,
        unless: Unless = lambda: False,
        what: str | None = None,
        pause_s: float = FIRST_PAUSE_S,
    ) -> Mapping[str, Any]:
        """Send until there is a reply, and return its JSON; nothing where `unless` came true before.

        Args:
            sent: makes the arguments of each attempt.
            unless: asked before each further attempt.
            what: of what is asked for, where it may be gone.
            pause_s: before the second attempt; it doubles.

        Raises:
            GoneError: `what` is not there.
            BusyError: the service cannot take the request now, and patience has run out.
            EngineError: another attempt would not help, or patience has run out.
        """
        found: list[Mapping[str, Any]] = []

        def send() -> Fault | None:
            arguments = sent()
            headers = {**self._headers, **arguments.pop("headers", {})}
            response = self._http.request(method, self._address(path), headers=headers, **arguments)
            value = parse(response.content)
            if not 200 <= response.status_code < 300 or not isinstance(value, Mapping):
                return self._fault(response.status_code, dict(response.headers), response.content)
            found.append(value)
            return None

        self._patiently(send, unless, what, pause_s)
        return found[0] if found else {}

    def lines(self, path: str, folder: Path) -> Iterator[bytes]:
        """Yield the lines of a file, once all of it has come to `folder`. Raises as `json`, the file being `what`."""
        to = folder / "results.part"

        def fetch() -> Fault | None:
            with self._follow(path) as response:
                if response.status_code != 200:
                    return self._fault(response.status_code, dict(response.headers), response.read())
                with to.open("wb") as file:
                    for part in response.iter_bytes():
                        file.write(part)
            return None

        try:
            self._patiently(fetch, lambda: False, path)
            with to.open("rb") as stream:
                while line := stream.readline(LONGEST_LINE):
                    yield line
        finally:
            to.unlink(missing_ok=True)

    def first_line(self, path: str) -> bytes:
        """Return the first line of a file that says anything, without fetching the rest; raises as `lines`."""
        found: list[bytes] = []

        def fetch() -> Fault | None:
            with self._follow(path) as response:
                if response.status_code != 200:
                    return self._fault(response.status_code, dict(response.headers), response.read())
                begun = b""
                for part in response.iter_bytes():
                    begun = (begun + part).lstrip()
                    if b"\n" in begun or len(begun) > LONGEST_LINE:
                        break
                found.append(begun.partition(b"\n")[0])
            return None

        self._patiently(fetch, lambda: False, path)
        return found[-1]

    @contextmanager
    def _follow(self, path: str) -> Iterator[httpx2.Response]:
        """Get a file, also where it is kept elsewhere, as behind a signed address: the key is not sent there."""
        home = self._address(path)
        address = home
        for _ in range(HOPS):
            is_home = (address.scheme, address.host, address.port) == (home.scheme, home.host, home.port)
            with self._http.stream("GET", address, headers=self._headers if is_home else {}) as response:
                further = _further(address, response)
                if further is None:
                    yield response
                    return
            address = further
        raise EngineError(f"{self.name} redirects {HOPS} times for {path}; it does not hand out its files")

    def _patiently(
        self, send: Callable[[], Fault | None], unless: Unless, what: str | None, pause: float = FIRST_PAUSE_S
    ) -> None:
        end = time.monotonic() + self._patience_s
        while True:
            try:
                fault = send()
            except httpx2.TransportError as error:
                fault = Fault(kind="away", reason=first_line(str(error)) or type(error).__name__)
            if fault is None:
                self.waits(None)
                return
            if fault.kind == "missing" and what is not None:
                raise GoneError(f"{self.name} does not know {what} ({fault.reason})")
            if fault.kind in FINAL:
                hint = f"; {self._key_hint}" if fault.kind == "denied" else ""
                raise EngineError(f"{self.name} takes no batch ({fault.reason}){hint}; see `generate.server`")
            if time.monotonic() >= end:
                raise (BusyError if fault.kind == "busy" else EngineError)(
                    f"{self.name} has not answered for {self._patience_s:g} s ({fault.reason}); batches that were "
                    "sent go on there, run again to collect them"
                )
            self.waits(f"{self.name}: {fault.reason}")
            time.sleep(min(max(pause, fault.pause), LONGEST_PAUSE_S, max(0.0, end - time.monotonic())))
            pause *= 2
            if unless():
                self.waits(None)
                return

    def _fault(self, status: int, headers: Mapping[str, str], body: bytes) -> Fault:
        nothing = Fault(kind="failed", reason=f"HTTP {status}: no reply of a batch API")
        found = read_reply(status, headers, body, lambda _: nothing, wanted="reply of a batch API", key=self._key)
        return found if isinstance(found, Fault) else nothing

    def _address(self, path: str) -> httpx2.URL:
        """Return the address of a path that stands beside that of requests without a batch."""
        return self._base.copy_with(path=f"{self._base.path.removesuffix(self._end)}/{path}")

    def id_of(self, found: Mapping[str, Any], what: str) -> str:
        """Return the id in a reply. Raises `EngineError` where it has none."""
        name = found.get("id")
        if not isinstance(name, str) or not name:
            raise EngineError(
                f"{self.name} has made a {what} without an id; check that it has a batch API of the form `server.api`"
            )
        return name


def _further(address: httpx2.URL, response: httpx2.Response) -> httpx2.URL | None:
    """Return where a redirect leads; None: it is none that may be followed, as one from https to http is."""
    location = response.headers.get("location")
    if response.status_code not in REDIRECTS or not location:
        return None
    try:
        further = httpx2.URL(urljoin(str(address), location))
    except (httpx2.InvalidURL, ValueError):
        return None
    safe = further.scheme == "https" or (further.scheme == "http" and address.scheme == "http")
    return further if safe and further.host else None


class Wired:
    """What services have in common that speak over a `Wire`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.name, self.place = wire.name, wire.place

    @property
    def waits(self) -> Callable[[str | None], None]:
        """The listener that is told why nothing goes on."""
        return self._wire.waits

    @waits.setter
    def waits(self, listener: Callable[[str | None], None]) -> None:
        self._wire.waits = listener

    def close(self) -> None:
        """Close the connections; batches go on."""
        self._wire.close()
