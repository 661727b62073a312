"""HTTP for the local Hub: requests in, answers out, in pieces, whole or broken off."""

import contextlib
import json
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from hub_faults import MESSAGES, Fault, Seen
from hub_repos import Refusal, Token


if TYPE_CHECKING:
    from hub_server import HubServer


CHUNK = 1 << 20  # bytes


@dataclass
class Call:
    """One request."""

    method: str
    segments: list[str]  # of the path, without their quotes
    query: dict[str, list[str]]
    token: Token | None
    chunks: Callable[[], Iterator[bytes]]  # of the body
    authorization: str | None = None
    range: str | None = None

    def body(self) -> bytes:
        return b"".join(self.chunks())


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None  # sent instead of the body


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))


class HubHttp(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, hub: "HubServer") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections cut on purpose need no traceback."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    server: HubHttp

    def setup(self) -> None:
        super().setup()
        self.hub = self.server.hub
        with self.hub.lock:
            self.hub.sockets.add(self.request)

    def finish(self) -> None:
        with self.hub.lock:
            self.hub.sockets.discard(self.request)
        super().finish()

    def log_message(self, *args: object) -> None:
        pass

    def handle_request(self) -> None:
        try:
            self._handle(urlsplit(self.path))
        except ConnectionError:
            raise
        except Exception:
            self.hub.crashes.append(f"{self.command} {self.path}\n{traceback.format_exc()}")
            self._drop()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _handle(self, url: SplitResult) -> None:
        self.plain_path, self.unread = unquote(url.path), True
        self.user = self.hub.api_state.accounts.user_of(self.headers.get("Authorization"))
        fault = self.hub.take_fault(self.command, self.plain_path)
        if fault and fault.cut is not None and not fault.after and self._has_body():
            self._cut_upload(fault)
            return
        if fault is None:
            reply = self._answer(url)
        elif fault.after:
            reply = self._answer(url)
            self.hub.closing.wait(fault.delay_s)
            reply = _failure(fault) if fault.status else reply
        else:
            self.hub.closing.wait(fault.delay_s)
            reply = _failure(fault) if fault.status else self._answer(url)
        for _ in self._chunks():  # what was not read would be taken for the next request
            pass
        self._send(reply, cut=fault.cut if fault else None)

    def _answer(self, url: SplitResult) -> Reply:
        segments = [unquote(segment) for segment in url.path.strip("/").split("/")]
        query = parse_qs(url.query, keep_blank_values=True)
        try:
            token = self.hub.api_state.accounts.identify(self.headers.get("Authorization"))
            told = (self.headers.get("Authorization"), self.headers.get("Range"))
            return self.hub.api_state.answer(Call(self.command, segments, query, token, self._chunks, *told))
        except Refusal as refusal:
            return _refused(refusal)

    # The body

    def _has_body(self) -> bool:
        return self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers

    def _chunks(self) -> Iterator[bytes]:
        """Of the body, at most once."""
        if not self.unread:
            return
        self.unread = False
        if "Transfer-Encoding" not in self.headers:
            yield from self._read(int(self.headers.get("Content-Length", "0")))
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield from self._read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _read(self, left: int) -> Iterator[bytes]:
        while left:
            if not (chunk := self.rfile.read(min(left, CHUNK))):
                self._note(None)
                raise ConnectionError("the client has gone in the middle of its request")
            left -= len(chunk)
            yield chunk

    def _cut_upload(self, fault: Fault) -> None:
        self.hub.closing.wait(fault.delay_s)
        left = fault.cut or 0
        for chunk in self._read(min(left, int(self.headers.get("Content-Length", left)))):
            left -= len(chunk)
        self._hang_up()

    # The answer

    def _note(self, status: int | None) -> None:
        with self.hub.lock:
            self.hub.requests.append(Seen(self.command, self.plain_path, status, self.user))

    def _hang_up(self) -> None:
        self._note(None)
        self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, reply: Reply, cut: int | None) -> None:
        if cut == 0:
            self._hang_up()
            return
        size = reply.file.stat().st_size if reply.file else len(reply.body)
        start, end = 0, size
        if reply.file and (wanted := self.headers.get("Range")):
            start, end = _range(wanted, size)
            if start >= end:
                reply, start, end = Reply(status=416, headers={"Content-Range": f"bytes */{size}"}), 0, 0
            else:
                reply.status = 206
                reply.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._note(reply.status if cut is None else None)
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(end - start)} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = end if cut is None else min(end, start + cut)
        if reply.file:
            with reply.file.open("rb") as file:
                file.seek(start)
                while start < end:
                    start += self.wfile.write(file.read(min(CHUNK, end - start)))
        else:
            self.wfile.write(reply.body[start:end])
        if cut is not None:
            self._drop()


def _range(header: str, size: int) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    assert found and (found[1] or found[2]), header
    if not found[1]:
        return max(size - int(found[2]), 0), size
    return int(found[1]), min(int(found[2]) + 1, size) if found[2] else size


def _failure(fault: Fault) -> Reply:
    assert fault.status is not None
    reply = _refused(Refusal(fault.status, fault.message or MESSAGES.get(fault.status, "Fault")))
    if fault.retry_after is not None:
        reply.headers["Retry-After"] = str(fault.retry_after)
    reply.headers |= fault.headers
    return reply


def _refused(refusal: Refusal) -> Reply:
    body = json.dumps({"error": refusal.message} | refusal.body).encode()
    headers = {"Content-Type": "application/json", "X-Error-Message": refusal.message} | refusal.headers
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return Reply(body, refusal.status, headers)
