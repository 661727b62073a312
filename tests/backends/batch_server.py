"""A small server with a batch API like OpenAI's, in threads, which does on demand what bad ones do."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai_server import completion


Line = dict[str, Any]
Outcome = Callable[[Line, int], Line | None]  # a request's line and how often it was sent -> a line of results


def answered(line: Line, times: int) -> Line:
    text = line["body"]["messages"][-1]["content"]
    body = completion(f"you said {text}")
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


@dataclass
class Stored:
    file: str
    status: str
    metadata: dict[str, str]
    looks: int = 0
    output: str | None = None


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections cut on purpose need no traceback."""


@dataclass
class Reply:
    """What the server answers instead of what it should."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class BatchServer:
    """Started at once; a context manager.

    looks: times that a batch is looked at before it is over. outcome: None leaves a request without a result, as in a
    batch that expires. error: of batches that fail. before, after: called with the number of a request of HTTP, from
    1, and its path, before it is dealt with, and before its reply is sent.
    """

    outcome: Outcome = answered
    looks: int = 1
    status: Callable[[int], str] = lambda number: "completed"  # of the n-th batch, from 1
    error: dict[str, Any] = field(default_factory=lambda: {"message": "no such model"})
    before: Callable[[int, str], "int | Reply | None"] = lambda number, path: None  # what to answer with, or none
    after: Callable[[int, str], None] = lambda number, path: None
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Stored] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)  # custom_id -> batches that held it
    keys: list[str | None] = field(default_factory=list)  # authorization, of every request
    paths: list[str] = field(default_factory=list)  # of every request, with its query
    number: int = 0
    at_once: int = 0  # chat completions that were answered without a batch

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.http = _Http(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> "BatchServer":
        return self

    def __exit__(self, *args: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> "dict[str, Any] | Reply":
        if path == "/v1/batches":
            return self.create(json.loads(body))
        if path == "/v1/chat/completions":
            self.at_once += 1
            line = self.outcome({"custom_id": "", "body": json.loads(body)}, 1)
            return {} if line is None else line["response"]["body"]
        head = b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n"
        for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
            if part.get_filename():
                name = f"file_{len(self.files) + 1}"
                self.files[name] = part.get_payload(decode=True)
                return {"id": name, "object": "file", "purpose": "batch"}
        return {}

    def get(self, path: str, query: str, headers: Mapping[str, str]) -> "bytes | dict[str, Any] | Reply":
        parts = path.split("/")[2:]
        if parts[0] == "files":
            return self.files[parts[1]]
        if parts[0] == "models":
            return {"data": [{"id": "m"}]}
        if len(parts) == 2:
            return self.show(parts[1])
        return self.listed(query)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{len(self.batches) + 1}"
        status = self.status(len(self.batches) + 1)
        self.batches[name] = Stored(body["input_file_id"], status, body.get("metadata") or {})
        if status != "failed":
            self.sent.update(line["custom_id"] for line in self.lines(body["input_file_id"]))
        return self.show(name)

    def listed(self, query: str) -> dict[str, Any]:
        return {"data": [self.show(name) for name in reversed(self.batches)], "has_more": False}

    def lines(self, file: str) -> list[Line]:
        return [json.loads(line) for line in self.files[file].splitlines()]

    def show(self, name: str) -> dict[str, Any]:
        batch, requests = self.batches[name], self.lines(self.batches[name].file)
        over = batch.looks > self.looks
        batch.looks += 1
        counts = {"total": len(requests), "completed": len(requests) if over else 0, "failed": 0}
        found: dict[str, Any] = {"id": name, "object": "batch", "metadata": batch.metadata, "request_counts": counts}
        if batch.status == "failed":
            return {**found, "status": "failed", "errors": {"data": [self.error]}}
        if not over:
            return {**found, "status": "in_progress"}
        if batch.output is None:
            results = [self.outcome(line, self.sent[line["custom_id"]]) for line in requests]
            batch.output = f"file_of_{name}"
            written = [json.dumps(result) for result in reversed(results) if result is not None]
            self.files[batch.output] = "\n".join(written).encode()
        return {**found, "status": batch.status, "output_file_id": batch.output, "error_file_id": None}


def _handler(server: BatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["content-length"]))
            self.deal(lambda path, query: server.post(path, self.headers, body))

        def do_GET(self) -> None:  # noqa: N802
            self.deal(lambda path, query: server.get(path, query, self.headers))

        def deal(self, act: Callable[[str, str], bytes | dict[str, Any] | Reply]) -> None:
            path, _, query = self.path.partition("?")
            with server.lock:
                server.number += 1
                number = server.number
                server.keys.append(self.headers.get("authorization") or self.headers.get("x-api-key"))
                server.paths.append(self.path)
            wanted = server.before(number, path)
            reply = Reply(wanted) if isinstance(wanted, int) else wanted
            if reply is None:
                with server.lock:
                    found = act(path, query)
                reply = found if isinstance(found, Reply) else Reply(200)
            if reply.status != 200:
                found = {"error": {"message": "not now"}}
            server.after(number, path)
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler
