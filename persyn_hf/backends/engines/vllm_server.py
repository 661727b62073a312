"""Run one vLLM server as a child process: start it, watch it, restart it after a crash, and end it for certain.

Each teacher has a process of its own, for only its end frees the GPU whatever happened in it.
"""

import contextlib
import http.client
import importlib.util
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from persyn_hf.backends.engines.settings import value_of
from persyn_hf.backends.engines.supervised import Kept, Process
from persyn_hf.errors import EngineError, RecipeError


HEALTH_S = 30  # a server with much to do is slow to say that it is well
HERE = "127.0.0.1"
PORTS = range(20_000, 32_000)  # on another machine, of which nobody here knows the free ones; below those of clients
STARTS = 3  # on other ports, where somebody was quicker to take the free one
QUOTED = 15  # lines of the log
PREFIX = re.compile(r"^\(\S+ pid=\d+\) ")
LEVEL = re.compile(r"^(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d \[[^]]*\] ")
OURS = {  # arguments of `vllm serve` that have their own place
    "--model": "the {model}'s `model`",
    "--revision": "the {model}'s `revision`",
    "--dtype": "`{stage}.dtype`",
    "--tensor-parallel-size": "`{stage}.vllm.tensor_parallel_size`",
    "-tp": "`{stage}.vllm.tensor_parallel_size`",
    "--data-parallel-size": "`{stage}.vllm.data_parallel_size`",
    "-dp": "`{stage}.vllm.data_parallel_size`",
}
NOT_GIVEN = ("--host", "--port", "--served-model-name", "--api-key", "--uds")
TEMPLATES = ("--chat-template", "--default-chat-template-kwargs", "--chat-template-content-format")
GREEDY = ("--generation-config", "--override-generation-config")
NOISE = re.compile(r"^(Traceback|INFO:|WARNING:|nanobind:|See https://nanobind|Loading |Triton |usage:|$)|Warning: ")


class VllmServer:
    """A server of the model `name` with these arguments of `vllm serve`; its output is appended to `log`.

    `stage` is the stage whose `vllm` section the user has set, for sentences that name a setting. On another machine,
    `host` is its address, `begin` starts a process there as `Kept` does here, and `key` keeps strangers out.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        stage: Literal["generate", "evaluate"],
        log: Path,
        start_timeout_s: float,
        max_restarts: int,
        host: str = HERE,
        key: str | None = None,
        begin: Callable[..., Process] = Kept,
    ) -> None:
        self._name, self._arguments, self._section, self._log = name, arguments, f"{stage}.vllm", log
        self._host, self.key, self._start_process = host, key, begin
        self._start_timeout_s, self._max_restarts = start_timeout_s, max_restarts
        self._restarts = self._port = 0
        self._kept: Process | None = None
        self._begin = 0  # where in the log the newest start is
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # no start after `stop`

    @property
    def url(self) -> str:
        """The url of the OpenAI-compatible API."""
        return f"http://{self._host}:{self._port}/v1"

    @property
    def urls(self) -> list[str]:
        """The url, as a list of one."""
        return [self.url]

    def start(self) -> None:
        """Start on a free port, and return once the server answers. Raises `EngineError` where it never does."""
        if importlib.util.find_spec("vllm") is None:
            raise EngineError(
                "the engine `vllm` needs the package `vllm`, which is not installed: pip install 'persyn-hf[vllm]'"
            )
        self._log.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(STARTS)):
            self._port = _free_port() if self._host == HERE else random.choice(PORTS)
            try:
                return self._launch()
            except EngineError as error:
                if not left or "ddress already in use" not in str(error):
                    raise

    def recover(self, url: str) -> None:
        """Start again on the same port, where the server has died. Raises `EngineError` after `max_restarts` times."""
        while not self._is_up():
            if self._restarts >= self._max_restarts:
                raise EngineError(
                    self._sentence(f"died and `{self._section}.max_restarts` ({self._max_restarts}) is used up")
                )
            self._restarts += 1
            with contextlib.suppress(EngineError):  # what died may die again as it starts: it counts as one time more
                self._launch()

    def stop(self) -> None:
        """End the server with all of its children, and return when they are gone."""
        self._stopped.set()
        with self._lock:
            if self._kept is not None:
                self._kept.stop()

    def _launch(self) -> None:
        with self._lock:
            if self._kept is not None:
                self._kept.stop()
            if self._stopped.is_set():
                raise EngineError("the engine was closed while its server was about to start")
            self._begin = self._log.stat().st_size if self._log.exists() else 0
            program = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"]  # -P: not from where we are
            listens = HERE if self._host == HERE else "0.0.0.0"
            key = {} if self.key is None else {"VLLM_API_KEY": self.key}
            self._kept = self._start_process(
                [*program, *self._arguments, "--host", listens, "--port", str(self._port)],
                environment=os.environ | {"VLLM_NO_USAGE_STATS": "1"} | key,
                log=self._log,
            )
        deadline = time.monotonic() + self._start_timeout_s
        while not self._is_up():
            status = self._kept.poll()
            if status is not None:
                raise EngineError(self._sentence(f"ended with status {status} before it was ready"))
            if time.monotonic() > deadline:
                limit = f"`{self._section}.start_timeout_s`: {self._start_timeout_s:g}"
                sentence = self._sentence(f"was not ready in time ({limit})")
                self._kept.stop()
                raise EngineError(sentence)
            if self._stopped.wait(0.5):
                raise EngineError("the engine was closed while its server was starting")

    def _is_up(self) -> bool:
        if self._kept is None or self._kept.poll() is not None:
            return False
        connection = http.client.HTTPConnection(self._host, self._port, timeout=HEALTH_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _sentence(self, what: str) -> str:
        with self._log.open("rb") as file:
            file.seek(self._begin)
            lines = telling_lines(file.read().decode(errors="replace"))
        quote = "".join(f"\n    {line}" for line in lines)
        return f"the vLLM server of `{self._name}` {what}; mend what its log {self._log} says:{quote}"


def check_arguments(args: Sequence[str], stage: Literal["generate", "evaluate"]) -> None:
    """Refuse in `args` of the stage's `vllm` section what has another place, and sizes that are no number."""
    holder = "teacher" if stage == "generate" else "student"
    for argument in args:
        name = argument.partition("=")[0].replace("_", "-")
        if name in OURS:
            place = OURS[name].format(model=holder, stage=stage)
            raise RecipeError(f"`{stage}.vllm.args` holds {argument!r}; set {place} instead")
        if name in TEMPLATES:
            raise RecipeError(
                f"`{stage}.vllm.args` holds {argument!r}, but the {holder}'s own template is applied before vLLM is "
                "asked; take it out, and change the template in the model's folder"
            )
        if name in GREEDY and stage == "evaluate":
            raise RecipeError(f"`evaluate.vllm.args` holds {argument!r}, but evaluation is greedy; take it out")
        if name in NOT_GIVEN:
            raise RecipeError(f"`{stage}.vllm.args` holds {argument!r}, which the engine sets itself; take it out")
    for names in (("--max-model-len",), ("--pipeline-parallel-size", "-pp")):
        value = value_of(args, *names)
        if value is not None and not value.isdecimal():
            raise RecipeError(f"`{stage}.vllm.args`: {names[0]} must be a plain number such as 4096, got {value!r}")


def telling_lines(log: str) -> list[str]:
    """Extract from a log the last lines that say what went wrong: errors, each once, without frames of tracebacks."""
    telling: dict[str, None] = {}
    kept = False
    for line in log.splitlines():
        line = PREFIX.sub("", line)
        level = LEVEL.match(line)
        line = line[level.end() :] if level else line
        if not line.startswith(" "):  # an indented line goes with the one before it
            kept = not NOISE.search(line) and (level is None or level["level"] not in ("INFO", "WARNING", "DEBUG"))
        if kept:
            telling[line.strip()[:300]] = None
    return list(telling)[-QUOTED:] or [line[:300] for line in log.splitlines()[-QUOTED:]]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
