"""Have code run by a server of Piston (https://github.com/engineer-man/piston), which makes the sandboxes.

Its API is `POST /api/v2/execute`. The server isolates (processes, files, network) and bounds time and memory; whoever
runs it answers for that.
"""

import json
import threading
from pathlib import Path
from typing import Any

from persyn_hf.backends.grading import inside
from persyn_hf.backends.grading.settings import MIB, OUTPUT, WALL, SandboxSettings
from persyn_hf.backends.grading.watched import Passed, Ran, reason_of
from persyn_hf.errors import EngineError, PersynError
from persyn_hf.text import first_line


BOUNDS_PROCESSES = False
CONNECT_S, QUEUE_S = 10, 120
REPLY = 16 * OUTPUT  # bytes: it holds the output twice, and JSON may write six for one
PASSED: dict[str, Passed] = {"TO": "time", "OL": "output", "EL": "output"}
FAILED = "XX"  # the status of a sandbox that failed by itself
PRINTED = OUTPUT - MIB

# Unless it is set up for more, a server cuts output at 1024 characters. Where there is no route there is no network.
TRIAL = f"""
with open("/proc/net/route") as file:
    print("routes", len(file.readlines()) - 1, "x" * {PRINTED})
"""


def run(settings: SandboxSettings, given: bytes, seconds: float, stop: threading.Event) -> Ran:
    """Have the server run `inside.py` with `given` as its input; where it failed, the output is empty."""
    milliseconds = int(1000 * seconds)
    asked = {
        "language": "python",
        "version": ">=3.11.0",
        "files": [{"name": "inside.py", "content": Path(inside.__file__).read_text(encoding="utf-8")}],
        "stdin": given.decode(),
        "run_timeout": WALL * milliseconds,
        "run_cpu_time": milliseconds,
        "run_memory_limit": settings.memory_mb * MIB,
    }
    if stop.is_set():
        return Ran(output=b"", words="", status=-1, passed="stopped")
    try:
        return _read(_post(f"{(settings.url or '').rstrip('/')}/api/v2/execute", asked, WALL * seconds + QUEUE_S))
    except _NoReply as fault:
        return Ran(output=b"", words=str(fault), status=-1, passed=None)


def fault(settings: SandboxSettings, said: str, ran: Ran) -> PersynError | None:
    """Say why a server by which the trial ran so does not run tests of code."""
    begin, needed = f"tests of code are to run on Piston at {settings.url}", "without a sandbox nothing is run"
    if said == f"routes 0 {'x' * PRINTED}\n":
        return None
    if said.startswith("routes ") and not said.startswith("routes 0 "):
        return EngineError(f"{begin}, which lets code use its network; set PISTON_DISABLE_NETWORKING=true: {needed}")
    if ran.passed == "output":
        return EngineError(f"{begin}, which cuts output too soon; set PISTON_OUTPUT_MAX_SIZE={OUTPUT}: {needed}")
    return EngineError(
        f"{begin}, and it runs none ({reason_of(ran)}); it needs Python 3.11 or newer and bounds that allow "
        f"`verify_timeout_s`, {WALL} times that by the clock, and `sandbox.memory_mb` (docs/graders.md): {needed}"
    )


class _NoReply(Exception):
    """The server gave no reply that says how the run ended."""


def _post(url: str, asked: dict[str, Any], seconds: float) -> Any:
    """Return the JSON of a success."""
    import httpx2

    timeout = httpx2.Timeout(seconds, connect=CONNECT_S)
    try:
        with httpx2.stream("POST", url, json=asked, timeout=timeout) as response:
            received = bytearray()
            for part in response.iter_bytes():
                received += part
                if len(received) > REPLY:
                    raise _NoReply("its reply is too long")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _NoReply(f"it does not answer: {first_line(error) or type(error).__name__}") from None
    try:
        found = json.loads(received)
    except (ValueError, RecursionError):
        found = None
    if response.status_code != httpx2.codes.OK:
        said = found.get("message") if isinstance(found, dict) else None
        raise _NoReply(f"status {response.status_code}{f': {first_line(said)}' if said else ''}")
    return found


def _read(reply: Any) -> Ran:
    """Read how a run ended from a success of the server.

    The server decodes output in pieces, so a sign that fell on the border of two is lost; such output is none.
    """
    found = reply.get("run") if isinstance(reply, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("stdout"), str):
        raise _NoReply("its reply is none of Piston's")
    code, signal, status = found.get("code"), found.get("signal"), found.get("status")
    words = "\n".join(part for part in (found.get("stderr"), found.get("message")) if isinstance(part, str))
    if status == FAILED or "\ufffd" in found["stdout"]:
        raise _NoReply(first_line(words) or "its sandbox failed")
    return Ran(
        output=found["stdout"].encode(errors="replace"),
        words=words,
        status=code if isinstance(code, int) and signal is None else -1,
        passed=PASSED.get(status) if isinstance(status, str) else None,
    )
