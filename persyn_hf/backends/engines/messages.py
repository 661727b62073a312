"""Speak Anthropic's Messages API: what a request is sent as, and what a message means.

A message is brought into the form of a chat completion and read as one (`completions.read_chat`), so thoughts,
refusals and endings mean the same whoever sends them. Fields and words are those of the package `anthropic`
(`types/message_create_params.py`, `types/message.py`, `types/usage.py`), as of August 2026.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from persyn_hf.backends.answers import Request, Said
from persyn_hf.backends.engines.completions import read_chat
from persyn_hf.backends.engines.endpoint import Endpoint
from persyn_hf.backends.engines.replies import Fault


MESSAGES = "/v1/messages"
VERSION = "2023-06-01"  # of the API, the only one that its documentation names
INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")  # together: the whole prompt
NOT_TAKEN = {  # what `extra` may hold for OpenAI's form -> what to do here
    "chat_template_kwargs": "leave it out: its models have no chat template to be told",
    "max_completion_tokens": "leave it out: `max_tokens` is sent under that name alone",
    "reasoning_effort": "set `output_config: {effort: ...}` instead",
    "response_format": "leave it out",
    "seed": "leave it out: it has no seeds",
    "system": "set `system_prompt` at the teacher instead",
}


def message_body(model: str, extra: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Make the body of a request: the system turns apart, the sampling where it is not the default, then `extra`.

    Newer models refuse any temperature and top_p but the default, 1, and others refuse the two together; so what is 1
    is not sent. A null in `extra` leaves a field out.
    """
    sampling, messages = request.sampling, [dict(message) for message in request.prompt.messages]
    system = [messages.pop(0)["content"] for message in list(messages) if message["role"] == "system"]
    fields: dict[str, Any] = {"max_tokens": sampling.max_tokens}
    fields |= {name: getattr(sampling, name) for name in ("temperature", "top_p") if getattr(sampling, name) != 1}
    if system:
        fields["system"] = "\n\n".join(system)
    sent = {"model": model, "messages": messages, **fields, **extra}
    return {key: value for key, value in sent.items() if value is not None}


def refusal(turns: Sequence[Mapping[str, str]]) -> str | None:
    """Say why a conversation cannot be sent: system turns go in front of it or nowhere."""
    roles = [turn["role"] for turn in turns]
    first = next((place for place, role in enumerate(roles) if role != "system"), len(roles))
    return "a system turn is not the first, which Anthropic's API does not take" if "system" in roles[first:] else None


def read_message(found: Mapping[str, Any]) -> Said | Fault:
    """Read a message: text and thoughts from its blocks, its end, and the tokens as they are billed."""
    if not isinstance(found.get("content"), list) and not isinstance(found.get("usage"), Mapping):
        return Fault(kind="failed", reason="the server's answer is no message (it has no `content`)")
    usage, details = found.get("usage"), found.get("stop_details")
    counted: dict[str, Any] = {}
    if isinstance(usage, Mapping):
        prompt = [usage[name] for name in INPUT if usage.get(name)]  # 0 and null: nothing of the kind
        counted = {"completion_tokens": usage.get("output_tokens")}
        if all(isinstance(number, int) for number in prompt):
            counted["prompt_tokens"] = sum(prompt)
    message: dict[str, Any] = {"content": found.get("content")}
    ending = found.get("stop_reason")
    if ending == "refusal":
        said = details.get("explanation") or details.get("category") if isinstance(details, Mapping) else None
        message["refusal"] = said if isinstance(said, str) else "it gives no reason"
    return read_chat({"choices": [{"message": message, "finish_reason": ending}], "usage": counted or None})


def headers(key: str | None) -> dict[str, str]:
    """Make the headers that every request carries."""
    return {"anthropic-version": VERSION} | ({} if key is None else {"x-api-key": key})


def refused(extra: Mapping[str, Any], *, temperature: float, top_p: float) -> str | None:
    """Say what Anthropic's API would refuse of settings, and what to set instead; None: nothing that is known."""
    for name, instead in NOT_TAKEN.items():
        if extra.get(name) is not None:
            return f"Anthropic's API does not take `{name}`, found in `server.extra`; {instead}"
    sent = {"temperature": temperature, "top_p": 1 if temperature == 0 else top_p}
    changed = {name for name, value in sent.items() if value != 1 and extra.get(name, value) is not None}
    if temperature > 1 and "temperature" in changed:
        return f"Anthropic's API takes a temperature from 0 to 1, found {temperature:g}; lower it"
    if len(changed) > 1:
        return f"models of Anthropic take a temperature or a top_p, found {temperature:g} and {top_p:g}; set one to 1"
    thinking = extra.get("thinking")
    thinks = isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
    if thinks and "temperature" in changed:
        return f"with `thinking` Anthropic's API takes no temperature but 1, found {temperature:g}; set it to 1"
    return None


class MessagesEndpoint(Endpoint):
    """One url that speaks Anthropic's Messages API."""

    path = MESSAGES
    wanted = "message"
    check = "that the url ends where /messages follows"

    def body(self, request: Request) -> dict[str, Any]:
        """Make the body of a request."""
        return message_body(self.model, self._extra, request)

    def read(self, found: Mapping[str, Any]) -> Said | Fault:
        """Read the JSON of a success."""
        return read_message(found)

    def headers(self) -> dict[str, str]:
        """Make the headers; they carry the key, where there is one."""
        return {"content-type": "application/json", "accept-encoding": "identity", **headers(self._key)}
