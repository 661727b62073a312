"""The vLLM engine: a teacher under a vLLM server of its own, which this process starts, watches and ends.

Every request carries its own seed and is sent by itself; numerics may vary with the server's load, so the promise is
the journal's: what has been answered never changes.
"""

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from persyn_hf.backends import chat, generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.answers import Answer, Batch, Messages, Prepared, Request, refuse
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines import local_prompts as rendered
from persyn_hf.backends.engines.client import Client
from persyn_hf.backends.engines.settings import ExecutorSettings, VllmSettings, value_of
from persyn_hf.backends.engines.slurm_servers import SlurmServers, fill_replica
from persyn_hf.backends.engines.tokens_endpoint import TokensEndpoint
from persyn_hf.backends.engines.vllm_server import VllmServer, check_arguments


# Weak models go on with blanks for ever where JSON may have them. vLLM knows this as a setting of the whole server,
# and of a backend that is named.
COMPACT = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})


class VllmEngine(Engine):
    """One teacher. The tokenizer is loaded at once, the server started at the first request that is to be sent.

    `response_format`, as in OpenAI's API, is the form that its answers are held to from their first token. With an
    `executor` (of kind slurm) there is a server per replica, on the nodes of the Slurm job.
    """

    fixed_batches = False

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        settings: VllmSettings,
        dtype: models.Dtype = "auto",
        system_prompt: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        executor: ExecutorSettings | None = None,
        log_dir: Path,
    ) -> None:
        check_arguments(settings.args, "generate")
        self._executor = executor
        self.model = models.identify(model, revision)
        self.tokenizer = models.load_tokenizer(model, revision)
        thoughts = ["thoughts"] if chat.special_thoughts(self.tokenizer) else []  # as in the transformers engine
        self._extra = {} if response_format is None else {"response_format": dict(response_format)}
        form = [json.dumps(self._extra, sort_keys=True, separators=(",", ":"))] if self._extra else []
        self.kind = " ".join((f"vllm/{dtype}", *settings.args, *thoughts, *form))
        self._source = (model, revision, dtype)
        self._settings = settings if executor is None else fill_replica(settings, executor, f"the teacher {model}")
        self._system_prompt = system_prompt
        self._template_kwargs = rendered.known_kwargs(self.tokenizer, model, template_kwargs or {})
        self._log = log_dir / f"vllm-{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('-')[-80:]}.log"
        self._lock = threading.Lock()  # actors call `generate` from several threads
        self._server: VllmServer | SlurmServers | None = None
        self._client: Client | None = None

    def close(self) -> None:
        """End the server; when this returns, its GPUs are free."""
        client, server = self._client, self._server
        self._client = self._server = None
        try:
            if client is not None:
                client.close()
        finally:
            if server is not None:
                server.stop()

    @property
    def gpus(self) -> int:
        """The number of GPUs that the server holds."""
        return self._settings.gpus

    @cached_property
    def context_length(self) -> int:
        """The number of positions for prompt and answer together."""
        given = value_of(self._settings.args, "--max-model-len")
        return int(given) if given else rendered.context_length(*self._source[:2])

    @cached_property
    def params_b(self) -> float | None:
        """The number of parameters in billions; None for a Hub model, whose files may not be here."""
        return rendered.params_b(self._source[0])

    def prepare(self, messages: Messages) -> Prepared:
        """Render a conversation; the teacher's system prompt goes in front of one that has none of its own."""
        return rendered.prepare(
            self.tokenizer, messages, self._system_prompt, self.context_length, self._template_kwargs
        )

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Answer every request, in order of completion."""
        requests = chain.from_iterable(batches)
        for request in requests:
            if not request.prompt.refusal:
                yield from self._send(chain([request], requests))
            else:
                yield [refuse(request)]

    def _send(self, requests: Iterable[Request]) -> Iterator[list[Answer]]:
        """Have requests answered, none with more tokens than the context has left: vLLM would refuse it."""
        asked: dict[str, Request] = {}

        def fit(request: Request) -> Request:
            limit = rendered.new_tokens(request, self.context_length)
            if request.prompt.refusal or limit == request.sampling.max_tokens:
                return request
            fitting = replace(request, sampling=replace(request.sampling, max_tokens=limit))
            asked[fitting.key] = request
            return fitting

        for answers in self._ready().answers(map(fit, requests)):
            yield [replace(a, request=asked.pop(a.request.key, a.request)) if asked else a for a in answers]

    def _ready(self) -> Client:
        """Return the client of the running server, which is started first where it is not."""
        with self._lock:
            if self._client is None:
                options: dict[str, Any] = {
                    "stage": "generate",
                    "log": self._log,
                    "start_timeout_s": self._settings.start_timeout_s,
                    "max_restarts": self._settings.max_restarts,
                }
                if self._executor is None:
                    self._server = VllmServer(self._source[0], self._arguments(), **options)
                else:
                    self._server = SlurmServers(self._executor, self._source[0], self._arguments(), **options)
                self._server.start()
                in_flight = self._settings.concurrency * self._settings.data_parallel_size
                self._client = Client(
                    self.model,
                    self._server.urls,
                    api_key=self._server.key,
                    extra=self._extra,
                    concurrency=in_flight,
                    max_concurrency=in_flight,
                    timeout_s=self._settings.timeout_s,
                    attempts=self._settings.attempts,
                    patience_s=0,
                    recover=self._server.recover,
                    endpoint=partial(TokensEndpoint, self.tokenizer, self._ends()),
                )
            return self._client

    def _ends(self) -> list[int]:
        """Return the tokens that end an answer."""
        model, revision, _ = self._source
        return generation.end_tokens(model, revision, self.tokenizer, *chat.ends_of_answers(self.tokenizer))

    def _arguments(self) -> list[str]:
        """Make the arguments of `vllm serve`."""
        model, revision, dtype = self._source
        given = self._settings.args
        arguments = {
            "--model": model,
            "--served-model-name": self.model,  # a stranger on the port would not know it
            "--dtype": dtype,
            **generation.VLLM_ARGUMENTS,
            **self._settings.layout,
        }
        if revision is not None:
            arguments |= {"--revision": revision, "--tokenizer-revision": revision}
        if self._extra:
            arguments["--structured-outputs-config"] = COMPACT
        if self.context_length < 1 << 30:
            arguments["--max-model-len"] = str(self.context_length)
        ours = [part for name, value in arguments.items() if value_of(given, name) is None for part in (name, value)]
        return [*ours, *given]
