"""The server engine: a teacher behind one or more urls that speak OpenAI's chat completions, or Anthropic's messages.

Every request carries its own seed. What a server makes of it may still vary with its load and its version, so the
promise is the journal's: an answer that is there never changes.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain

from persyn_hf.backends.answers import EMPTY, Answer, Batch, Messages, Prepared, conversation
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines import messages as messages_api
from persyn_hf.backends.engines.client import Client
from persyn_hf.backends.engines.counting import Counter, open_counter
from persyn_hf.backends.engines.endpoint import Endpoint
from persyn_hf.backends.engines.settings import ServerSettings
from persyn_hf.errors import RecipeError


APIS: dict[str, type[Endpoint]] = {"openai": Endpoint, "anthropic": messages_api.MessagesEndpoint}
NEVER_EXTRA = ("model", "messages", "n", "stream")
ONLY_NULL = ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed")  # the recipe sets them


class ServerEngine(Engine):
    """One teacher. Nothing is sent before the first answer is asked for."""

    fixed_batches = False
    params_b = None

    def __init__(
        self,
        model: str,
        settings: ServerSettings,
        *,
        revision: str | None = None,
        system_prompt: str | None = None,
    ) -> None:
        if not settings.urls:
            raise RecipeError(
                f"the teacher model `{model}` has no server; set `generate.server.urls`, or the teacher's "
                "`server: {urls: [...]}`, e.g. to http://localhost:8000/v1"
            )
        _check_extra(settings)
        extra = json.dumps(settings.extra, sort_keys=True, separators=(",", ":"))
        form = "server" if settings.api == "openai" else settings.api  # one model may answer otherwise through another
        self.kind = f"{form}/{extra}" if settings.extra else form
        self.model = model if revision is None else f"{model}@{revision}"
        self._name = model
        self._settings = settings
        self._system_prompt = system_prompt
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._waits: Callable[[str | None], None] = lambda reason: None

    def when_waiting(self, listener: Callable[[str | None], None]) -> None:
        """Have `listener` told that all servers of the teacher are away, and None when one is back."""
        self._waits = listener

    @cached_property
    def counter(self) -> Counter | None:
        """The tokenizer that the settings name, else that of a model which is a folder here."""
        return open_counter(self._name, self._settings.tokenizer)

    def close(self) -> None:
        """Cancel what is in flight."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def prepare(self, messages: Messages) -> Prepared:
        """Prepare a conversation as it is sent; the system prompt goes in front of one that has none of its own."""
        turns = conversation(messages, self._system_prompt)
        if not turns:
            return EMPTY
        refusal = None
        try:
            json.dumps(turns, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            refusal = "the prompt is no valid Unicode text"
        if self._settings.api == "anthropic":
            refusal = refusal or messages_api.refusal(turns)
        text = json.dumps(turns, sort_keys=True, separators=(",", ":"))
        return Prepared(text=text, num_tokens=0, refusal=refusal, messages=tuple(turns))

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Answer every request, in order of completion."""
        requests = (request for batch in batches for request in batch)
        first = next(requests, None)
        if self._settings.tokenizer is not None:
            _ = self.counter  # refused before the first request, where it cannot be loaded
        if first is not None:
            yield from self._connect().answers(chain([first], requests))

    def _connect(self) -> Client:
        settings = self._settings
        with self._lock:
            if self._client is None:
                self._client = Client(
                    self._name,
                    settings.urls,
                    extra=settings.extra,
                    waits=self._waits,
                    endpoint=APIS[settings.api],
                    **settings.options(),
                )
            return self._client


def _check_extra(settings: ServerSettings) -> None:
    """Refuse in `extra` what the recipe sets elsewhere, or the journal would note a sampling that was not used."""
    for key, value in settings.extra.items():
        if key in NEVER_EXTRA:
            raise RecipeError(f"`generate.server.extra` must not hold `{key}`, which the engine sets; take it out")
        if key in ONLY_NULL and value is not None:
            raise RecipeError(
                f"`generate.server.extra` holds `{key}`: {value!r}, which `generate` sets; only null is allowed here "
                "(the field is not sent; `max_completion_tokens: null` sends `max_tokens` under that name)"
            )
