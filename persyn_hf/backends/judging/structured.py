"""Ask for structured output where a server has it: what is sent, and how servers say that they have it not.

What servers do is in docs/judge.md. Those that know a format and those that ignore it answer alike; the others refuse
the request, and then the next format is tried.
"""

import re
from typing import Any, Literal

from persyn_hf.backends.judging.rubrics import Mode, Scale


ResponseFormat = Literal["auto", "json_schema", "json_object", "none"]
Asked = Literal["json_schema", "json_object", "none"]

# A refusal of the format, among the errors that the client makes (`HTTP 400: ...`, `error 400: ...`).
REFUSED = re.compile(
    r"(?:HTTP|error) [45]\d\d: .*(?:response[_ ]formats?|json[_ ]?schema|json[_ ]?object|grammar|guided"
    r"|structured[_ ]outputs?)",
    re.IGNORECASE | re.DOTALL,
)


def formats(setting: ResponseFormat) -> tuple[Asked, ...]:
    """Return the formats to ask for, each where the server refuses the one before."""
    return ("json_schema", "json_object", "none") if setting == "auto" else (setting,)


def response_format(asked: Asked, mode: Mode, scale: Scale, with_reason: bool) -> dict[str, Any] | None:
    """Return the field `response_format` of a request; None: it is not sent.

    The verdict is one of an enumeration, which servers enforce that know no bounds of numbers. The reason comes first,
    so that the verdict follows from it.
    """
    if asked == "none":
        return None
    if asked == "json_object":
        return {"type": "json_object"}
    verdict: dict[str, Any] = {"winner": {"type": "string", "enum": ["A", "B", "tie"]}}
    if mode == "pointwise":
        verdict = {"score": {"type": "integer", "enum": list(range(scale[0], scale[1] + 1))}}
    properties = ({"reason": {"type": "string"}} if with_reason else {}) | verdict
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def is_refusal(error: str | None) -> bool:
    """Tell whether an error says that the server does not know the format that was asked for."""
    return error is not None and REFUSED.match(error) is not None
