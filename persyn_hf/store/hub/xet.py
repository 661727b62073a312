"""Faults of Xet, where the Hub keeps large files: how they are recognised, and what the user can do.

The hub library takes Xet wherever the package `hf_xet` can be imported, and asks nobody whether the server speaks it.
A mirror or a proxy in between may not. The client's own errors are of Python's general classes, with addresses in
their texts, so they are turned into one class here.
"""

import functools
import os
import re


# Its client asks again by itself, in silence. These bounds are per request; `patiently` tries the whole once more.
BOUNDS = {
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "1s",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "20s",
    "HF_XET_CLIENT_CONNECT_TIMEOUT": "30s",
    "HF_XET_CLIENT_READ_TIMEOUT": "120s",
}
REMEDY = "set HF_HUB_DISABLE_XET=1, which sends and fetches them by plain HTTP, and try again"

_TOKEN_ROUTE = re.compile(r"/xet-(read|write)-token(/|$)")
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")
_CLASSES = (ConnectionError, TimeoutError, PermissionError, FileNotFoundError, RuntimeError)  # that its client raises
_BY_CLASS = {"XetAuthenticationError": 401, "XetObjectNotFoundError": 404}


class XetFault(Exception):
    """Xet refuses, fails or does not answer. `status` is the HTTP status, None where there was none."""

    def __init__(self, found: str, status: int | None) -> None:
        super().__init__(found)
        self.status = status


@functools.cache
def bound_retries() -> None:
    """Bound the Xet client's own retries in time, unless the user has; it would go on in silence for six minutes."""
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)


def xet_fault(error: BaseException) -> XetFault | None:
    """Return what an error says of Xet; None for an error of anything else, and where Xet is switched off."""
    from huggingface_hub.utils._runtime import is_xet_available

    if not is_xet_available() or not (_asks_token(error) or _is_clients(error)):
        return None
    response = getattr(error, "response", None)
    said = _STATUS.search(str(error))
    status = _BY_CLASS.get(type(error).__name__, int(said[1]) if said else getattr(response, "status_code", None))
    return XetFault(f"answers with status {status}" if status else f"does not answer ({type(error).__name__})", status)


def _asks_token(error: BaseException) -> bool:
    """Tell whether an error comes from the question for a token of Xet, which the hub library asks of the Hub."""
    if type(error) is ValueError and str(error).startswith("Xet headers"):  # an answer of the route without a token
        return True
    request = getattr(getattr(error, "response", None), "request", None) or getattr(error, "_request", None)
    return request is not None and _TOKEN_ROUTE.search(request.url.path) is not None


def _is_clients(error: BaseException) -> bool:
    """Tell whether the Xet client raised an error; the system's own have a number, and other libraries' a cause."""
    if type(error).__module__.partition(".")[0] == "hf_xet":
        return True
    return type(error) in _CLASSES and getattr(error, "errno", None) is None and error.__cause__ is None
