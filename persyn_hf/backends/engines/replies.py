"""Read what a server's reply means: the one place where status, headers and body are read.

A reply becomes what was `Said`, or a `Fault` of one of the kinds below; nothing is raised, whatever a server sends.
The tables say what each status and word means, those of `completions` what a chat completion holds. What servers send
is in docs/servers.md.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from persyn_hf.backends.answers import Said, failed
from persyn_hf.text import first_line


# busy: the server cannot take the request now. failed: it broke; another attempt may do. rejected: this request has no
# answer, however often it is sent. denied, unpaid, moved, missing: no request has one; end: likewise, and the reason
# is the sentence that ends the run. away, late: there was no reply at all, or none in time.
Kind = Literal["busy", "failed", "rejected", "denied", "unpaid", "moved", "missing", "end", "away", "late"]

STATUS: dict[int, Kind] = {
    401: "denied",
    402: "unpaid",
    403: "denied",
    404: "missing",
    408: "failed",  # the server timed out
    409: "failed",  # a conflict that passes, as OpenAI's clients take it
    425: "failed",  # too early
    429: "busy",
    498: "busy",  # Groq: no capacity left
    503: "busy",
    529: "busy",  # Anthropic: overloaded
}
WORDS: dict[str, Kind] = {  # `code` and `type` of an error, where the status does not say as much
    "model_not_found": "missing",
    "insufficient_quota": "unpaid",  # OpenAI says so under 429
    "billing_hard_limit_reached": "unpaid",
}
WITHOUT_STATUS: dict[str, Kind] = {  # and of one that comes as 200
    "rate_limit_exceeded": "busy",
    "rate_limit_error": "busy",
    "too_many_requests": "busy",
    "overloaded_error": "busy",
    "insufficient_balance": "unpaid",
    "invalid_api_key": "denied",
    "authentication_error": "denied",
    "permission_error": "denied",
    "billing_error": "unpaid",
    "not_found_error": "missing",
    "invalid_request_error": "rejected",
    "context_length_exceeded": "rejected",
    "content_filter": "rejected",
}
LONGEST_PAUSE_S = 1e6


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The reason of a missing answer: the server's words, and what it asks for."""

    kind: Kind
    reason: str
    pause: float = 0.0  # of `busy`: seconds to wait
    sent: bool = True  # the request had gone out, so a server that is away may have died of it
    num_tokens: int = 0  # what was generated and is of no use
    num_prompt_tokens: int | None = None


Read = Callable[[Mapping[str, Any]], Said | Fault]


def read_reply(
    status: int, headers: Mapping[str, str], body: bytes, read: Read, *, wanted: str, key: str | None = None
) -> Said | Fault:
    """Read what a server has sent.

    Args:
        headers: names in small letters.
        read: what reads the JSON of a success.
        wanted: what that is, for the sentence where it is no JSON.
        key: the API key, which some servers repeat: it is not shown.
    """
    found = parse(body)
    if not 200 <= status < 300 or (isinstance(found, Mapping) and found.get("error")):
        return _fault(status, headers, body, found, key)
    if not isinstance(found, Mapping):
        why = "no JSON" if found is None else f"a JSON {type(found).__name__}"
        return Fault(kind="failed", reason=f"the server's answer is no {wanted} ({why})")
    return read(found)


def lost(fault: Fault) -> Said:
    """Make the record of a request that got no answer of use, with what was generated in vain."""
    return replace(failed(fault.reason), num_tokens=fault.num_tokens, num_prompt_tokens=fault.num_prompt_tokens)


def parse(body: bytes) -> Any:
    """Return the JSON of a body, or of the events of a stream put together; None where it is neither."""
    start = body[:64].lstrip()
    if start.startswith((b"data:", b"event:", b"id:", b": ")):
        return _put_together(body)
    return _json(body)


def read_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, by `Retry-After` as a number or a date; 0 where it says none."""
    milliseconds = _float(headers.get("retry-after-ms"))
    asked = headers.get("retry-after", "")
    seconds = _float(asked) if milliseconds is None else milliseconds / 1000
    if seconds is None:
        try:
            until = parsedate_to_datetime(asked)
            seconds = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            seconds = 0.0
    return min(max(0.0, seconds), LONGEST_PAUSE_S)


def _fault(status: int, headers: Mapping[str, str], body: bytes, found: Any, key: str | None) -> Fault:
    error = found.get("error") if isinstance(found, Mapping) else None
    error = error if isinstance(error, Mapping) else {}
    named = [str(error[field]).lower() for field in ("code", "type") if isinstance(error.get(field), str | int)]
    code = status
    if status < 300:
        code = next((int(name) for name in named if name.isdecimal() and len(name) == 3), 0)
    known = WORDS if code else WORDS | WITHOUT_STATUS
    kind = next((known[name] for name in named if name in known), _kind(code))
    pause = read_pause(headers)
    if kind == "unpaid" and pause:  # OpenRouter: money is held for requests in flight
        kind = "busy"
    about = error.get("metadata")
    if code == 403 and isinstance(about, Mapping) and {"reasons", "flagged_input"} & about.keys():
        kind = "rejected"  # OpenRouter's moderation: this prompt, not the key
    said = _without_key(words(found) if found is not None else _plain(headers, body), key)
    if kind == "moved" and not said:
        said = f"it sends to {first_line(headers.get('location', 'nowhere'))}"
    name = f"HTTP {status}" if status >= 300 else f"error {code}" if code else "error"
    return Fault(kind=kind, reason=f"{name}: {said}" if said else name, pause=pause)


def _kind(code: int) -> Kind:
    if 300 <= code < 400:
        return "moved"
    return STATUS.get(code, "rejected" if 400 <= code < 500 else "failed")


def words(found: Any) -> str:
    """Return the first line of a server's own words in an error."""
    about = None
    for name in ("error", "message", "detail"):
        if isinstance(found, Mapping) and found.get(name):
            about = found.get("metadata") or about
            found = found[name]
    try:
        text = found if isinstance(found, str) else json.dumps(found)
    except (ValueError, RecursionError):
        text = ""
    raw = about.get("raw") if isinstance(about, Mapping) else None  # OpenRouter: what the provider behind it said
    return first_line(f"{text}: {raw}" if isinstance(raw, str) and raw.strip() else text)


def _plain(headers: Mapping[str, str], body: bytes) -> str:
    """Return the words of a body that is no JSON; a page for people says nothing here."""
    if "html" in headers.get("content-type", ""):
        return ""
    return first_line(body[:6000].decode("utf-8", "replace"))


def _without_key(said: str, key: str | None) -> str:
    """Remove the key, or its first half, which some servers repeat."""
    if not key:
        return said
    for length in range(len(key), min(len(key), 8) - 1, -1):
        said = said.replace(key[:length], "***")
    return said


def _put_together(body: bytes) -> dict[str, Any] | None:
    """Join the events of a stream to one chat completion; None where one is no JSON, for a part would be missing."""
    message: dict[str, list[Any]] = {}
    whole: dict[str, Any] = {"choices": [{"message": message, "finish_reason": None}]}
    for line in body.decode("utf-8", "replace").split("\n"):
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            break
        if not data:
            continue
        event = _json(data)
        if not isinstance(event, Mapping):
            return None
        whole |= {name: event[name] for name in ("usage", "error") if event.get(name)}
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            continue
        whole["choices"][0] |= {name: choice[name] for name in ("finish_reason", "error") if choice.get(name)}
        delta = choice.get("delta") or choice.get("message")
        for name, part in delta.items() if isinstance(delta, Mapping) else ():
            if part:
                message.setdefault(name, []).append(part)
    return whole


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number without end; nested without end
        return None


def _float(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
