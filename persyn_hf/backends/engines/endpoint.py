"""Ask one url of a model server: a request goes out, what was `Said` or one of the faults below comes back.

What is here asks for chat completions, and reads the faults of every kind of request. `AsyncInferenceClient` builds
the request and reads the answer. The connections are ours: its own number at most 100, refuse to work under
HF_HUB_OFFLINE (a server next door needs no Hub) and trip over error bodies of odd shape.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import InferenceTimeoutError

from persyn_hf.backends.answers import Request, Said, well_formed
from persyn_hf.errors import EngineError, RecipeError


CHAT = "/v1/chat/completions"
URLS_AT = "server.urls"  # where a recipe says them, under `generate` or a teacher
CONNECT_S = 20  # to open a connection; a machine that is off does not even refuse
TIMEOUT = httpx2.Timeout(None, connect=CONNECT_S)  # asyncio has the limit of the whole answer
IDLE_S = 2  # to keep one open for the next request; servers cut idle ones after 5 s, in the middle of it if unlucky
PROBE_S = 10
NO_KEY = "none"
LOCAL = ("localhost", "127.0.0.1", "[::1]")  # HTTP_PROXY of a cluster must not take these


class Busy(Exception):
    """The fault of a server that cannot take the request now; `pause` is the wait that it asks for, in seconds."""

    def __init__(self, reason: str, pause: float) -> None:
        super().__init__(reason)
        self.pause = pause


class Away(Exception):
    """The fault of no connection, or a cut one: then the server may have died of the request, which was `sent`."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Failed(Exception):
    """The fault of a server that broke, or sent what is no answer; another attempt may do."""


class Rejected(Exception):
    """The fault of a request that the server will not take, however often it is sent."""


class Endpoint:
    """One url, used from one event loop. Another kind of request overrides `send` and the names."""

    path = CHAT
    wanted = "chat completion"
    urls_at = URLS_AT
    model_at = "the teacher's `model`"
    check = "that the url ends where /chat/completions follows"

    def __init__(
        self, model: str, url: str, *, api_key: str | None, extra: Mapping[str, Any], connections: int, key_hint: str
    ) -> None:
        self.url = url
        self.name = _shown(url)
        self.address, self._models = _addresses(url, self.path, self.urls_at)
        self.model, self._key, self._extra, self._key_hint = model, api_key, dict(extra), key_hint
        self.http = httpx2.AsyncClient(
            event_hooks={"request": [self._drop_no_key], "response": [_check_status]},
            follow_redirects=True,
            timeout=TIMEOUT,
            limits=httpx2.Limits(
                max_connections=connections + 1, max_keepalive_connections=connections, keepalive_expiry=IDLE_S
            ),
            mounts={f"all://{host}": None for host in LOCAL},
        )
        self._client = _Client(
            base_url=self.address,
            api_key=api_key or NO_KEY,  # without one it would take the user's token of the Hub
            timeout=TIMEOUT,  # type: ignore[arg-type]  # handed on as it is
        )
        self._client.connections = self.http

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def ask(self, request: Request) -> Said:
        """Send one request. Raises one of the faults above, or `EngineError` where no request can succeed."""
        try:
            return await self.send(request)
        except _Status as status:
            response = status.response
        except (InferenceTimeoutError, httpx2.ConnectTimeout):  # nothing else of `TIMEOUT` ever ends
            raise Away(f"no connection within {CONNECT_S} s", sent=False) from None
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            raise Away(str(error) or "no connection", sent=False) from None
        except httpx2.TransportError as error:  # its text may hold a header
            raise Away(f"the connection was cut ({type(error).__name__})", sent=True) from None
        except UnicodeEncodeError:
            raise Rejected("the prompt is no valid Unicode text") from None
        except (ValueError, TypeError, AttributeError, LookupError, httpx2.RequestError) as error:
            raise Failed(f"the server's answer is no {self.wanted} ({type(error).__name__})") from None
        raise await self._fault(response)

    async def send(self, request: Request) -> Said:
        """Send one request and read what comes. Raises whatever the libraries raise."""
        completion = await self._client.chat_completion(
            [dict(message) for message in request.prompt.messages], model=self.model, extra_body=self._body(request)
        )
        return _said(completion)

    async def reachable(self) -> bool:
        """Tell whether the server itself answers: neither only its gateway, nor a server that is still loading."""
        try:
            await self.http.get(self._models, headers=self.headers(), timeout=PROBE_S)
        except _Status as status:
            return status.response.status_code not in (502, 503, 504)
        except httpx2.HTTPError:
            return False
        return True

    def headers(self) -> dict[str, str]:
        """Make the headers that carry the key, where there is one."""
        return {} if self._key is None else {"authorization": f"Bearer {self._key}"}

    async def _drop_no_key(self, request: httpx2.Request) -> None:
        if request.headers.get("authorization") == f"Bearer {NO_KEY}":
            del request.headers["authorization"]

    def _body(self, request: Request) -> dict[str, Any]:
        """Make the body's fields of the sampling, then of `extra`.

        A null in `extra` leaves a field out; `max_completion_tokens` there renames `max_tokens`.
        """
        sampling = request.sampling
        body: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
        if sampling.temperature > 0:
            body |= {"top_p": sampling.top_p, "seed": sampling.seed}
            if sampling.top_k > 0:
                body["top_k"] = sampling.top_k
        if "max_completion_tokens" in self._extra:
            body["max_completion_tokens"] = body.pop("max_tokens")
        return body | {key: value for key, value in self._extra.items() if key != "max_completion_tokens"}

    async def _fault(self, response: httpx2.Response) -> Exception:
        """Return the fault that an HTTP error stands for."""
        code, message = response.status_code, self._message(response)
        reason = f"HTTP {code}: {message}" if message else f"HTTP {code}"
        if code in (429, 503, 529):
            return Busy(reason, _pause(response.headers.get("retry-after")))
        if code in (401, 403):
            return EngineError(f"{self.name} refuses access ({reason}); {self._key_hint}")
        if code == 404 or "model_not_found" in response.text[:2000]:
            return EngineError(await self._not_found(reason))
        if code >= 500:
            return Failed(reason)
        return Rejected(reason)

    async def _not_found(self, reason: str) -> str:
        try:
            response = await self.http.get(self._models, headers=self.headers(), timeout=PROBE_S)
            names = [str(model["id"]) for model in response.json()["data"]]
        except (_Status, httpx2.HTTPError, ValueError, TypeError, KeyError):
            names = []
        if names and self.model not in names:
            shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
            return f"{self.name} has no model `{self.model}`; set {self.model_at} to one that it has: {shown}"
        return (
            f"{self.name} does not answer for the model `{self.model}` ({reason}); check {self.model_at}, and "
            f"{self.check}"
        )

    def _message(self, response: httpx2.Response) -> str:
        """Extract the first line of the server's own words, without the key that some servers repeat."""
        try:
            body = response.json()
            for key in ("error", "message", "detail"):
                if isinstance(body, dict) and body.get(key):
                    body = body[key]
            text = body if isinstance(body, str) else json.dumps(body)
        except ValueError:
            text = "" if "html" in response.headers.get("content-type", "") else response.text
        text = text.replace(self._key, "***") if self._key else text
        return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


class _Client(AsyncInferenceClient):
    connections: httpx2.AsyncClient

    async def _get_async_client(self) -> httpx2.AsyncClient:
        return self.connections


class _Status(Exception):
    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


async def _check_status(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        await response.aread()
        raise _Status(response)


def _shown(url: str) -> str:
    """Remove from a url what may be secret: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _addresses(url: str, path: str = CHAT, urls_at: str = URLS_AT) -> tuple[str, str]:
    """Return the addresses of `path` and of the list of models; a missing /v1 is added, as the Hub's clients do.

    Raises `RecipeError` where `url` is none; `urls_at` is the setting that holds it.
    """
    try:
        host = httpx2.URL(url).host
    except httpx2.InvalidURL:
        host = ""
    if not host:
        raise RecipeError(f"`{urls_at}`: found {url!r}, an address such as http://localhost:8000/v1 is needed")
    parts = urlsplit(url)
    given, end = parts.path.rstrip("/"), path.removeprefix("/v1")
    if given.endswith(end):
        address, base = given, given.removesuffix(end)
    else:
        root = given.removesuffix("/v1")
        address, base = root + path, root + "/v1"
    return urlunsplit(parts._replace(path=address)), urlunsplit(parts._replace(path=base + "/models"))


def _said(completion: Any) -> Said:
    """Read a chat completion. Raises `LookupError`, `TypeError` or the like where it is none."""
    choice = completion.choices[0]
    content = choice.message.content
    reasoning = choice.message.get("reasoning") or choice.message.get("reasoning_content")
    if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
        raise TypeError("no text")
    usage = completion.usage or {}
    return Said(
        text=well_formed(content or ""),
        reasoning=well_formed(reasoning) if reasoning else None,
        finish_reason=str(choice.finish_reason or "unknown"),
        num_tokens=int(usage.get("completion_tokens") or 0),
        num_prompt_tokens=None if usage.get("prompt_tokens") is None else int(usage["prompt_tokens"]),
    )


def _pause(header: str | None) -> float:
    """Read a Retry-After header, seconds or a date, as seconds from now; 0 where it says nothing."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
