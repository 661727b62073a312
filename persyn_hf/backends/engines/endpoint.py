"""Ask one url of a model server: a request goes out, what was `Said` or a `Fault` comes back.

What is here asks for chat completions; `replies` reads what comes. No library of the Hub is in between: a server next
door needs neither its token nor its settings.
"""

import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from persyn_hf.backends.answers import Request, Said
from persyn_hf.backends.engines.addresses import addresses, goes_on, shown
from persyn_hf.backends.engines.bodies import Body, Places, keeps_place, take
from persyn_hf.backends.engines.completions import read_chat
from persyn_hf.backends.engines.replies import Fault, parse, read_reply
from persyn_hf.text import first_line


CHAT = "/v1/chat/completions"
URLS_AT = "server.urls"  # where a recipe says them, under `generate` or a teacher
CONNECT_S = 20  # to open a connection; a machine that is off does not even refuse
TIMEOUT = httpx2.Timeout(None, connect=CONNECT_S)  # asyncio has the limit of the whole answer
IDLE_S = 2  # to keep one open for the next request; servers cut idle ones after 5 s, in the middle of it if unlucky
PROBE_S = 10
LOCAL = ("localhost", "127.0.0.1", "[::1]")  # HTTP_PROXY of a cluster must not take these
HOPS = 3  # redirects within one server
SEED_BITS = 31  # what all servers take: Gemini's seed is an int32
GONE = ("Server disconnected", "peer closed")  # what httpx says of a connection that was cut


def chat_body(model: str, extra: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Make the body of a chat completion: model and messages, the sampling, then `extra`.

    A null in `extra` leaves a field out; `max_completion_tokens` there renames `max_tokens`.
    """
    sampling = request.sampling
    fields: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    if sampling.temperature > 0:
        fields |= {"top_p": sampling.top_p, "seed": sampling.seed % 2**SEED_BITS}
        if sampling.top_k > 0:
            fields["top_k"] = sampling.top_k
    if "max_completion_tokens" in extra:
        fields["max_completion_tokens"] = fields.pop("max_tokens")
    fields |= {key: value for key, value in extra.items() if key != "max_completion_tokens"}
    messages = [dict(message) for message in request.prompt.messages]
    sent = {"model": model, "messages": messages, "stream": False, **fields}
    return {key: value for key, value in sent.items() if value is not None}


class Endpoint:
    """One url, used from one event loop. Another kind of request overrides `body`, `read` and the names."""

    path = CHAT
    wanted = "chat completion"
    urls_at = URLS_AT
    model_at = "the teacher's `model`"
    ours = False  # a server that was started for this run, which no HTTP_PROXY leads to
    check = "that the url ends where /chat/completions follows"

    def __init__(
        self,
        model: str,
        url: str,
        *,
        api_key: str | None,
        extra: Mapping[str, Any],
        connections: int,
        key_hint: str,
        places: Places,
    ) -> None:
        self.url = url
        self._places = places
        self.name = shown(url)
        self.address, self._models = addresses(url, self.path, self.urls_at)
        self.model, self._key, self._extra, self._key_hint = model, api_key, dict(extra), key_hint
        self._spoken = False  # whether a server was there
        self.http = httpx2.AsyncClient(
            timeout=TIMEOUT,
            limits=httpx2.Limits(
                max_connections=connections + 1, max_keepalive_connections=connections, keepalive_expiry=IDLE_S
            ),
            mounts={f"all://{host}": None for host in (*LOCAL, *([httpx2.URL(url).host] if self.ours else []))},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def ask(self, request: Request) -> Said | Fault:
        """Send one request. A fault of the kind `end` says in a sentence why no request can have an answer."""
        try:
            body = json.dumps(self.body(request), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Fault(kind="rejected", reason="the prompt is no valid Unicode text")
        try:
            found = await self._send("POST", self.address, body)
        except httpx2.TransportError as error:
            found = self._lost(error)
        if isinstance(found, Fault) and found.kind in ("denied", "unpaid", "moved", "missing"):
            return Fault(kind="end", reason=await self._sentence(found))
        return found

    def body(self, request: Request) -> dict[str, Any]:
        """Make the body of a request."""
        return chat_body(self.model, self._extra, request)

    def read(self, found: Mapping[str, Any]) -> Said | Fault:
        """Read the JSON of a success."""
        return read_chat(found)

    async def reachable(self) -> bool:
        """Tell whether the server itself answers: neither only its gateway, nor a server that is still loading."""
        try:
            async with self.http.stream("GET", self._models, headers=self.headers(), timeout=PROBE_S) as response:
                return response.status_code not in (502, 503, 504)
        except httpx2.TransportError:
            return False

    async def look(self) -> str | None:
        """Say what is wrong before anything is asked; None: nothing that the server's list of models would show."""
        if not await self.reachable():
            return f"{self.name} does not answer now; a run will wait for it as `patience_s` says"
        names = await self._model_names()
        wanted = self.model.partition(":")[0]  # the Hub's router lists models without their providers
        known = any(name in (wanted, self.model) or name.endswith(f"/{wanted}") for name in names)
        return None if known or not names else self._lists(names)

    def headers(self) -> dict[str, str]:
        """Make the headers; they carry the key, where there is one."""
        known = {"content-type": "application/json", "accept-encoding": "identity"}
        return known if self._key is None else known | {"authorization": f"Bearer {self._key}"}

    async def _send(self, method: str, address: str, body: bytes | None) -> Said | Fault:
        """Send to an address, and to where it redirects within the same server."""
        for _ in range(HOPS):
            taken: Body | Fault | None = None
            try:
                async with self.http.stream(method, address, content=body, headers=self.headers()) as response:
                    self._spoken = True
                    further = goes_on(address, response.status_code, response.headers.get("location"))
                    if further is None:
                        taken = await take(response, self._places)
            except BaseException:
                if isinstance(taken, Body):
                    taken.leave()
                raise
            if isinstance(taken, Fault):
                return taken
            if taken is not None:
                return self._read(response, taken)
            address = further or address
        return Fault(kind="moved", reason=f"HTTP {response.status_code}: it redirects {HOPS} times")

    def _read(self, response: httpx2.Response, body: Body) -> Said | Fault:
        """Read a reply. A long answer keeps the place of its body (`keeps_place`)."""
        status, headers = response.status_code, response.headers
        found = read_reply(status, headers, body.bytes, self.read, wanted=self.wanted, key=self._key)
        if isinstance(found, Fault) or not keeps_place(found):
            body.leave()
        return found

    def _lost(self, error: httpx2.TransportError) -> Fault:
        """Return what a failed connection means. The text of an error may hold a header: little of it is shown."""
        if isinstance(error, httpx2.ConnectTimeout):  # nothing else of `TIMEOUT` ever ends
            return Fault(kind="away", reason=f"no connection within {CONNECT_S} s", sent=False)
        if not self._spoken and (reason := _wrong_protocol(error)):
            sentence = f"{self.name} cannot be spoken to ({reason}); check the url, http or https, and its certificate"
            return Fault(kind="end", reason=sentence)
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            return Fault(kind="away", reason=first_line(str(error)) or "no connection", sent=False)
        return Fault(kind="away", reason=f"the connection was cut ({type(error).__name__})")

    async def _sentence(self, fault: Fault) -> str:
        """Say why no request to this url has an answer, and what to do."""
        if fault.kind == "missing":
            return await self._not_found(fault.reason)
        if fault.kind == "unpaid":
            return (
                f"{self.name} wants money ({fault.reason}); fill the account, then run again: what has been answered "
                "is kept"
            )
        if fault.kind == "moved":
            return (
                f"{self.name} redirects to another address ({fault.reason}), which is not sent the prompts; set "
                f"`{self.urls_at}` to where it leads, if you trust it"
            )
        return f"{self.name} refuses access ({fault.reason}); {self._key_hint}"

    async def _not_found(self, reason: str) -> str:
        names = await self._model_names()
        if names and self.model not in names:
            return self._lists(names)
        return (
            f"{self.name} does not answer for the model `{self.model}` ({reason}) at {shown(self.address)}; check "
            f"{self.model_at}, and {self.check}"
        )

    def _lists(self, names: Sequence[str]) -> str:
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return f"{self.name} has no model `{self.model}`; set {self.model_at} to one that it has: {listed}"

    async def _model_names(self) -> list[str]:
        """Return the names of the models that the server lists; none where it does not."""
        try:
            async with self.http.stream("GET", self._models, headers=self.headers(), timeout=PROBE_S) as response:
                taken = await take(response, self._places)
        except httpx2.TransportError:
            return []
        if isinstance(taken, Fault):
            return []
        found = parse(taken.bytes)
        taken.leave()
        listed = found.get("data") if isinstance(found, Mapping) else None
        models = listed if isinstance(listed, list) else []
        return [first_line(str(model["id"]), 100) for model in models if isinstance(model, Mapping) and "id" in model]


def _wrong_protocol(error: httpx2.TransportError) -> str:
    """Say that the other side speaks no TLS, has a certificate that is refused, or speaks no HTTP; else nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return first_line(str(cause)) or "no TLS"
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    if "[SSL" in text and "EOF" not in text:
        return first_line(text)
    if isinstance(error, httpx2.RemoteProtocolError) and not text.startswith(GONE):
        return f"what it sends is no HTTP: {first_line(text, 100)}"
    return ""
