"""Speak to a service's batch API in OpenAI's form: a file of requests goes up, a batch is made of it, files come down.

    POST /files                  the requests, as JSON lines with the purpose `batch`
    POST /batches                makes a batch of the file; `metadata` carries our mark, by which it is found again
    GET  /batches                lists batches, newest first
    GET  /batches/ID             says how far it is, and at last which files hold what came out
    GET  /files/ID/content       answers and errors, as JSON lines

OpenAI, Azure, Groq and others speak it; Mistral (/batch/jobs) and Together (another purpose, `{"job": ...}`) do not.
What a line or a status means is read here alone.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from persyn_hf.backends.answers import Request, Said, failed
from persyn_hf.backends.engines.addresses import addresses, shown
from persyn_hf.backends.engines.completions import read_chat
from persyn_hf.backends.engines.endpoint import CHAT, LOCAL, URLS_AT, chat_body
from persyn_hf.backends.engines.replies import Fault, parse, read_reply, words
from persyn_hf.errors import EngineError
from persyn_hf.text import first_line


MARK = "persyn"  # the key of `metadata` that holds our mark
LISTED = 100  # batches per page
PAGES = 50  # of batches that are looked through for a mark
# Any other word is of a batch that goes on: one that is given up too early is paid for again.
OVER = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})
# A line of an error file with one of these codes was not answered; OpenAI writes one of each request that expires.
UNDONE = frozenset({"batch_expired", "batch_cancelled", "request_timeout"})
PASSING = ("busy", "failed")  # faults of a line with a status of HTTP that another attempt may mend
FULL = "token_limit_exceeded"  # OpenAI: the enqueued tokens of a model and an organisation
LONGEST_LINE = 1 << 26  # bytes of an answer
TIMEOUT = httpx2.Timeout(600, connect=20)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FINAL = ("denied", "unpaid", "moved", "missing", "rejected", "end")  # faults that another attempt does not mend


class GoneError(EngineError):
    """The service does not know a batch, or what came out of it."""


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a batch is. Once it is over, `files` hold what came out, and `reason` says why something may lack."""

    is_over: bool
    done: int = 0
    total: int = 0
    files: tuple[str, ...] = ()
    reason: str = ""
    is_expired: bool = False
    is_full: bool = False  # the account has as many tokens under way as it may: the batch was not begun


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a batch says to the request of a key; `undone`: it was not answered, and may be sent anew."""

    key: str
    said: Said
    undone: bool = False


class BatchService:
    """The batch API behind one url. Faults that pass are waited for, `patience_s` at most each time."""

    def __init__(
        self, model: str, url: str, extra: Mapping[str, Any], *, key: str | None, key_hint: str, patience_s: float
    ) -> None:
        address, _ = addresses(url, CHAT, URLS_AT)
        self.model, self._extra = model, dict(extra)
        self._key, self._key_hint, self._patience_s = key, key_hint, patience_s
        self._base = httpx2.URL(address)
        self.name = shown(url)
        self.place = shown(address).removesuffix("/chat/completions")  # the same, however the url is written
        self.waits: Callable[[str | None], None] = lambda reason: None
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx2.Client(timeout=TIMEOUT, headers=headers, mounts={f"all://{host}": None for host in LOCAL})

    def close(self) -> None:
        """Close the connections; batches go on."""
        self._http.close()

    def line(self, request: Request) -> bytes:
        """Make the line of a request."""
        body = {name: value for name, value in chat_body(self.model, self._extra, request).items() if name != "stream"}
        line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def upload(self, lines: Path) -> str:
        """Upload a file of requests and return its id. Uploading costs nothing, so it may be done again."""
        with lines.open("rb") as file:
            found = self._json("POST", "files", data={"purpose": "batch"}, files={"file": (lines.name, file)})
        return self._id(found, "file")

    def create(self, file: str, mark: str, window: str) -> str:
        """Make a batch of an uploaded file and return its id. It is paid for, so one that is there is taken up.

        Where the reply is lost on its way, the batch may be there: it is looked for before another one is made.
        """
        body = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": window,
            "metadata": {MARK: mark},
        }
        lost: list[str] = []

        def look(reason: str) -> bool:
            lost.extend(filter(None, [self.find(mark, file)]))
            return bool(lost)

        found = self._json("POST", "batches", json=body, unless=look)
        return lost[0] if lost else self._id(found, "batch")

    def find(self, mark: str, file: str | None) -> str | None:
        """Return the id of the batch that bears a mark, or was made of a file; None: there is none."""
        after: dict[str, str] = {}
        for _ in range(PAGES):
            # `params` takes the place of a query in the address (Azure's api-version), so that goes with them.
            asked = {**self._base.params, "limit": str(LISTED), **after}
            found = self._json("GET", "batches", params=asked)
            page = found.get("data")
            page = [each for each in page if isinstance(each, Mapping)] if isinstance(page, list) else []
            for each in page:
                about = each.get("metadata")
                is_marked = isinstance(about, Mapping) and about.get(MARK) == mark
                if is_marked or (file is not None and each.get("input_file_id") == file):
                    return self._id(each, "batch")
            last = {"after": str(page[-1].get("id"))} if page else after
            if last == after or found.get("has_more") is False:  # Groq does not say whether there are more
                return None
            after = last
        return None

    def look(self, batch: str) -> State:
        """Say how far a batch is."""
        found = self._json("GET", f"batches/{batch}", what=f"batch {batch}")
        status = str(found.get("status", "")).lower()
        counts = found.get("request_counts")
        counts = counts if isinstance(counts, Mapping) else {}
        done, missed, total = (_whole(counts.get(name)) for name in ("completed", "failed", "total"))
        files = [found.get(name) for name in ("output_file_id", "error_file_id")]
        is_late = status == "completed" and done + missed > 0 and not any(files)  # its files are still to be named
        if "error" not in found and (status not in OVER or is_late):
            return State(is_over=False, done=done + missed, total=total, reason=first_line(status, 20))
        errors = found.get("errors")
        listed = errors.get("data") if isinstance(errors, Mapping) else None
        first = listed[0] if isinstance(listed, list) and listed else errors
        said = words(first) if first else ""
        return State(
            is_over=True,
            done=done + missed,
            total=total,
            files=tuple(str(file) for file in files if file),
            reason=f"the batch {first_line(status, 20) or 'ended'}{f': {said}' if said else ''}",
            is_expired=status == "expired",
            is_full=isinstance(first, Mapping) and first.get("code") == FULL,
        )

    def results(self, state: State, folder: Path) -> Iterator[Result]:
        """Yield what was said to every request that has a result."""
        for file in state.files:
            path = folder / "results.part"
            self._download(f"files/{file}/content", path)
            try:
                with path.open("rb") as stream:
                    while line := stream.readline(LONGEST_LINE):
                        found = _read_line(line, self._key)
                        if found is not None:
                            yield found
            finally:
                path.unlink(missing_ok=True)

    def _download(self, path: str, to: Path) -> None:
        def fetch() -> Fault | None:
            with self._http.stream("GET", self._address(path)) as response:
                if response.status_code != 200:
                    return self._fault(response.status_code, dict(response.headers), response.read())
                with to.open("wb") as file:
                    for part in response.iter_bytes():
                        file.write(part)
            return None

        self._patiently(fetch, lambda reason: False, what=path)

    def _json(
        self,
        method: str,
        path: str,
        unless: Callable[[str], bool] = lambda reason: False,
        what: str | None = None,
        **sent: Any,
    ) -> Mapping[str, Any]:
        """Send a request for `what` until it has a reply; `unless` is asked before each further attempt."""
        found: list[Mapping[str, Any]] = []

        def send() -> Fault | None:
            for file in sent.get("files", {}).values():
                file[1].seek(0)
            response = self._http.request(method, self._address(path), **sent)
            value = parse(response.content)
            if not 200 <= response.status_code < 300 or not isinstance(value, Mapping):
                return self._fault(response.status_code, dict(response.headers), response.content)
            found.append(value)
            return None

        self._patiently(send, unless, what)
        return found[0] if found else {}

    def _patiently(
        self, send: Callable[[], Fault | None], unless: Callable[[str], bool], what: str | None = None
    ) -> None:
        """Send until it succeeds.

        Raises:
            GoneError: `what` is not there.
            EngineError: another attempt would not help, or patience has run out.
        """
        end, pause = time.monotonic() + self._patience_s, FIRST_PAUSE_S
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
                raise EngineError(
                    f"{self.name} has not answered for {self._patience_s:g} s ({fault.reason}); batches that were "
                    "sent go on there, run again to collect them"
                )
            self.waits(f"{self.name}: {fault.reason}")
            time.sleep(min(max(pause, fault.pause), LONGEST_PAUSE_S, max(0.0, end - time.monotonic())))
            pause *= 2
            if unless(fault.reason):
                self.waits(None)
                return

    def _fault(self, status: int, headers: Mapping[str, str], body: bytes) -> Fault:
        found = read_reply(status, headers, body, read_chat, wanted="reply of a batch API", key=self._key)
        if isinstance(found, Fault):
            return found
        return Fault(kind="failed", reason=f"HTTP {status}: no reply of a batch API")

    def _address(self, path: str) -> httpx2.URL:
        """Return the address of a path that stands beside chat completions."""
        base = self._base.path.removesuffix("/chat/completions")
        return self._base.copy_with(path=f"{base}/{path}")

    def _id(self, found: Mapping[str, Any], what: str) -> str:
        name = found.get("id")
        if not isinstance(name, str) or not name:
            raise EngineError(
                f"{self.name} has made a {what} without an id; check that it has a batch API like OpenAI's"
            )
        return name


def _read_line(line: bytes, key: str | None) -> Result | None:
    """Read a line of a file of results; None where it names no request."""
    found = parse(line)
    if not isinstance(found, Mapping) or not isinstance(found.get("custom_id"), str):
        return None
    name, response, error = found["custom_id"], found.get("response"), found.get("error")
    if not isinstance(response, Mapping):
        undone = isinstance(error, Mapping) and error.get("code") in UNDONE
        said = failed(words(error) if error else "the batch gave no answer")
        return Result(key=name, said=said, undone=undone)
    status = response.get("status_code")
    status = status if isinstance(status, int) else 200
    body = json.dumps(response.get("body")).encode()
    read = read_reply(status, {}, body, read_chat, wanted="chat completion", key=key)
    if not isinstance(read, Fault):
        return Result(key=name, said=read)
    tokens, of_prompt = read.num_tokens, read.num_prompt_tokens
    lost = Said(text="", finish_reason="error", error=read.reason, num_tokens=tokens, num_prompt_tokens=of_prompt)
    return Result(key=name, said=lost, undone=status >= 400 and read.kind in PASSING)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


Lined = tuple[Request, bytes]  # a request with its line


def lines_of(requests: Iterable[Lined], most: int, largest: int) -> Iterator[list[Lined]]:
    """Cut requests with their lines into files of at most `most` requests and `largest` bytes."""
    part: list[Lined] = []
    size = 0
    for request, line in requests:
        if part and (len(part) >= most or size + len(line) > largest):
            yield part
            part, size = [], 0
        part.append((request, line))
        size += len(line)
    if part:
        yield part
