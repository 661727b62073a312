"""A server that speaks Piston's API as its documentation and its source have it, and runs the code in bubblewrap.

Bounds are refused, bodies limited and outputs cut as there; `limits` are the server's own, of which Piston's defaults
are `DEFAULTS`.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from persyn_hf.backends.grading.watched import Bounds, run_watched


DEFAULTS = {"run_timeout": 3000, "run_cpu_time": 3000, "run_memory_limit": -1, "output_max_size": 1024}
ROOMY = {"run_timeout": 600_000, "run_cpu_time": 600_000, "run_memory_limit": -1, "output_max_size": 1 << 22}
BODY = 100 * 1024  # bytes, as Express's `body-parser` takes by default
STARTING = 10  # times the time by the clock: what it takes to start the sandbox on a busy machine


@dataclass
class Piston:
    """A server: its address, what it was asked, and replies that it is to give instead of its own."""

    url: str
    limits: Mapping[str, int]
    version: str = "3.11.0"
    network: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    instead: list[tuple[int, bytes]] = field(default_factory=list)


@contextmanager
def serve_piston(limits: Mapping[str, int] = ROOMY) -> Iterator[Piston]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.piston = piston = Piston(f"http://127.0.0.1:{server.server_address[1]}", limits)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield piston
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        piston: Piston = self.server.piston  # type: ignore[attr-defined]
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if piston.instead:
            self.reply(*piston.instead.pop(0))
        elif length > BODY:
            self.reply(400, json.dumps({"stack": "PayloadTooLargeError: request entity too large"}).encode())
        elif self.path != "/api/v2/execute":
            self.reply(404, json.dumps({"message": "Not Found"}).encode())
        elif not self.headers["Content-Type"].startswith("application/json"):
            self.reply(415, json.dumps({"message": "requests must be of type application/json"}).encode())
        else:
            asked = json.loads(body)
            piston.asked.append(asked)
            fault = refusal(asked, piston)
            said = {"message": fault} if fault else {"run": execute(asked, piston), "language": "python"}
            self.reply(400 if fault else 200, json.dumps(said).encode())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None: ...


def refusal(asked: Mapping[str, Any], piston: Piston) -> str:
    """Say what is wrong with a request, in Piston's words; empty where nothing is."""
    least = [int(part) for part in asked["version"].removeprefix(">=").split(".")]
    if asked["language"] != "python" or [*map(int, piston.version.split("."))] < least:
        return f"{asked['language']}-{asked['version']} runtime is unknown"
    for name in ("run_memory_limit", "run_timeout", "run_cpu_time"):
        most = piston.limits[name]
        if 0 < most < asked[name]:
            return f"{name} cannot exceed the configured limit of {most}"
    return ""


def execute(asked: Mapping[str, Any], piston: Piston) -> dict[str, Any]:
    """Run the first file, with the input that ends in a newline, in a sandbox of its own."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for file in asked["files"]:
            Path(folder, file["name"]).write_text(file["content"])
        command = [*bwrap(folder, share_net=piston.network), sys.executable, asked["files"][0]["name"]]
        given = asked["stdin"] if asked["stdin"].endswith("\n") else f"{asked['stdin']}\n"
        seconds, most = asked["run_timeout"] / 1000, piston.limits["output_max_size"]
        memory = asked["run_memory_limit"]
        bounds = Bounds(seconds=seconds, memory=memory if memory > 0 else None, processes=64 + 2, output=most)
        ran = run_watched(command, given.encode(), bounds, environment={"HOME": "/tmp", "PATH": os.environ["PATH"]})
    status = {"time": "TO", "output": "OL", "memory": "SG", "processes": "SG"}.get(ran.passed or "")
    killed = status is not None or ran.status < 0 or ran.status > 128
    return {
        "stdout": ran.output[:most].decode(errors="replace"),
        "stderr": ran.words[:most],
        "output": ran.output[:most].decode(errors="replace") + ran.words[:most],
        "code": None if killed else ran.status,
        "signal": "SIGKILL" if killed else None,
        "message": None,
        "status": status or ("SG" if killed else "RE" if ran.status else None),
        "cpu_time": None,
        "wall_time": int(1000 * (time.monotonic() - begun)),
        "memory": None,
    }


def bwrap(folder: str, *, share_net: bool) -> list[str]:
    """Return the command that makes a sandbox, with the parts that Isolate's has."""
    options = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "1001", "--gid", "1001", "--cap-drop", "ALL"]
    options += ["--share-net"] if share_net else []
    options += ["--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    options += ["--size", str(10_000_000), "--tmpfs", "/tmp"]
    for prefix in {sys.prefix, sys.base_prefix}:
        options += ["--ro-bind", prefix, prefix]  # it may lie below /tmp, which is empty now
    return [*options, "--ro-bind", folder, "/mnt", "--chdir", "/mnt"]
