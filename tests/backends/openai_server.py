"""A small OpenAI-compatible server in threads, which does on demand what bad servers do, and its clients."""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from persyn_hf.backends.answers import Answer, Prepared, Request, Sampling
from persyn_hf.backends.engines.client import Client


def completion(text: str | None = "ok", finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


@dataclass(kw_only=True)
class Response:
    """What the server does with one request."""

    body: Any = field(default_factory=completion)  # JSON, or bytes as they are
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # before it answers
    cut: bool = False  # closes the connection instead of an answer
    length: int | None = None  # content-length, where it is not true


Behaviour = Callable[[str, int], Response]  # last message, how often it has come (from 1)


class OpenAIServer:
    """Started at once; a context manager. `stop` cuts all connections, `start` listens on the same port again."""

    def __init__(self, behaviour: Behaviour | None = None, *, models: tuple[str, ...] = ("m",), port: int = 0) -> None:
        self.behaviour: Behaviour = behaviour or (lambda text, times: Response(body=completion(f"you said {text}")))
        self.models = models
        self.port = port
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []  # of every request, /models included
        self.times: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = self.cut_by_client = 0
        self.arrivals: list[float] = []
        self.lock = threading.Lock()
        self._power = threading.Lock()  # as with a process: none starts before the last one has gone whole
        self._thread: threading.Thread | None = None
        self.start()

    def __enter__(self) -> "OpenAIServer":
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        with self._power:
            if self._thread is not None:
                return
            self._http = _Http(("127.0.0.1", self.port), _handler(self))
            self.port = self._http.server_address[1]
            self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        with self._power:
            if self._thread is None:
                return
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()
            self._thread = None
            for open_socket in list(self._http.sockets):
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, *args: Any) -> None:
        self.sockets: set[socket.socket] = set()  # of those let in, their threads running yet or not
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections cut on purpose need no traceback."""


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            with server.lock:
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self._send(Response(body={"data": [{"id": name} for name in server.models]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = body["messages"][-1]["content"]
            with server.lock:
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.bodies.append(body)
                server.arrivals.append(time.monotonic())
                server.times[text] += 1
                times = server.times[text]
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
            response = server.behaviour(text, times)
            gone = self._wait(response.seconds)
            with server.lock:
                server.in_flight -= 1
                server.cut_by_client += gone
            if gone or response.cut:
                self.close_connection = True
            elif self.path.partition("?")[0] == "/v1/chat/completions":
                self._send(response)
            else:
                self._send(Response(status=404, body={"detail": "Not Found"}))

        def _wait(self, seconds: float) -> bool:
            """Whether the client has gone meanwhile."""
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                try:
                    if self.connection.recv(1, socket.MSG_PEEK) == b"":
                        return True
                except TimeoutError:
                    pass
                except OSError:
                    return True
            self.connection.settimeout(None)
            return False

        def _send(self, response: Response) -> None:
            body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
            headers = {"content-type": "application/json", "content-length": str(response.length or len(body))}
            self.send_response(response.status)
            for name, value in (headers | response.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            if response.length is not None:
                self.close_connection = True

    return Handler


def make_request(text: str, *, refusal: str | None = None, **sampling: Any) -> Request:
    drawn = {"temperature": 0.6, "top_p": 0.9, "top_k": 0, "max_tokens": 8, "seed": (1 << 63) - 1} | sampling
    return Request(
        prompt_id=text,
        model="m",
        engine="server",
        sample_index=0,
        prompt=Prepared(text=text, num_tokens=0, refusal=refusal, messages=({"role": "user", "content": text},)),
        sampling=Sampling(**drawn),
    )


def connect(*urls: str, **options: Any) -> Client:
    settings: dict[str, Any] = {
        "api_key": None,
        "extra": {},
        "concurrency": 16,
        "max_concurrency": 64,
        "timeout_s": 20,
        "attempts": 3,
        "patience_s": 10,
    }
    return Client("m", urls, **(settings | options))


def ask(client: Client, *texts: str) -> dict[str, Answer]:
    """Each prompt must be answered exactly once."""
    found = [answer for answers in client.answers(map(make_request, texts)) for answer in answers]
    assert sorted(answer.request.prompt_id for answer in found) == sorted(texts)
    return {answer.request.prompt_id: answer for answer in found}


def ask_once(server: OpenAIServer, *texts: str, **options: Any) -> dict[str, Answer]:
    client = connect(server.url, **options)
    try:
        return ask(client, *texts)
    finally:
        client.close()


def on(bad: str, *responses: Response) -> Behaviour:
    """Answers `bad` with the responses in turn, the last one for ever; all else is well."""

    def behave(text: str, times: int) -> Response:
        return responses[min(times, len(responses)) - 1] if text == bad else Response()

    return behave
