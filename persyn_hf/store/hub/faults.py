"""Faults of the Hub: which are worth another try, and one sentence for each that the user has to mend.

The text of the hub library's errors is not shown, because it may hold signed addresses and headers.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from persyn_hf.errors import StoreError
from persyn_hf.store.hub.apart import apart
from persyn_hf.store.hub.xet import REMEDY, XetFault, bound_retries, xet_fault


T = TypeVar("T")

# Seconds between two tries. The hub library retries its own uploads and downloads for some 20 s each on top.
WAITS_S: tuple[float, ...] = (1, 2, 4, 8, 16, 30, 30)
CONNECT_TRIES = 3  # without a network, waiting is of no use; for Xet there is a way round, which has to be told
LONGEST_PAUSE_S = 600  # the Hub may ask for more (its quota of commits is per hour): then the user must come back


class HubFault(StoreError):
    """The Hub cannot be asked, or refuses. `status` is the HTTP status of its answer, None where there was none."""

    status: int | None = None


_PASSING = {408, 409, 412, 429}  # and 5xx


def patiently(work: Callable[[], T]) -> T:
    """Do the work, and again from its beginning while it fails for reasons that pass; return its result.

    It is tried once more after each of `WAITS_S`, or after as long as the Hub asks for, up to `LONGEST_PAUSE_S`. Where
    the Hub cannot be connected to, or Xet fails, it is tried `CONNECT_TRIES` times. The last error is raised as it is,
    that of Xet as a `XetFault`. Ctrl-C and SIGTERM end it at once (see `apart`).
    """
    bound_retries()
    for number, wait in enumerate(WAITS_S, 1):
        try:
            return _once(work)
        except Exception as error:
            pause = _pause(error)
            if pause is None or pause > LONGEST_PAUSE_S or (_is_unreachable(error) and number >= CONNECT_TRIES):
                raise
            time.sleep(max(wait, pause))
    return _once(work)


def _once(work: Callable[[], T]) -> T:
    """Do the work once; errors that come from Xet are raised as what they are."""
    try:
        return apart(work)
    except Exception as error:
        fault = xet_fault(_root(error))
        if fault is None:
            raise
        raise fault from None  # before anybody takes a 404 of Xet for a missing repository


@contextmanager
def telling(ref: str, doing: str) -> Iterator[None]:
    """Turn the hub library's errors within into a `HubFault` of one sentence, and say what an interruption ended.

    Args:
        ref: NAMESPACE/NAME@TAG, for the sentence.
        doing: what failed and is to be repeated, such as "pushing NAMESPACE/NAME@TAG".
    """
    try:
        yield
    except StoreError:
        raise
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(*(stop.args or (f"{doing} is unfinished",))) from None
    except Exception as error:
        text = _sentence(_root(error), ref, doing)
        if text is None:
            raise
        fault = HubFault(text)
        fault.status = status_of(error)
        raise fault from None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error stands for, None where it stands for none."""
    root = _root(error)
    status = (
        root.status if isinstance(root, XetFault) else getattr(getattr(root, "response", None), "status_code", None)
    )
    return status if isinstance(status, int) else None


def _root(error: BaseException) -> BaseException:
    """Return the error that the hub library has wrapped: uploads and looks into the cache raise their own."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    while (
        isinstance(error, RuntimeError | LocalEntryNotFoundError)
        and not isinstance(error, HfHubHTTPError)
        and error.__cause__ is not None
    ):
        error = error.__cause__
    return error


def _pause(error: Exception) -> float | None:
    """Return how many seconds to wait at least before another try; None where another try is of no use."""
    import httpx2

    root, status = _root(error), status_of(error)
    if status is not None:
        passing = status in _PASSING or status >= 500
        return _retry_after(root) if passing else None
    broken = httpx2.TimeoutException | httpx2.NetworkError | httpx2.RemoteProtocolError
    # an answer that should be JSON may be a proxy's page
    passing = isinstance(root, broken | json.JSONDecodeError | XetFault | RuntimeError) or _is_short_download(root)
    return 0.0 if passing else None


def _is_short_download(error: BaseException) -> bool:
    """Tell whether a download ended early: the hub library raises a bare OSError for it."""
    return type(error) is OSError and error.errno is None  # the hub library's word for another size than announced


def _retry_after(error: Any) -> float:
    """Return the seconds that the Hub asks to wait, 0 where it does not say."""
    value = "" if isinstance(error, XetFault) else error.response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def _is_unreachable(error: Exception) -> bool:
    """Tell whether no connection to the Hub could be made, or the fault is Xet's."""
    import httpx2

    return isinstance(_root(error), httpx2.ConnectError | XetFault)


def _sentence(error: BaseException, ref: str, doing: str) -> str | None:
    """Return one sentence that says what failed and what to do; None for an error that is no fault of the Hub."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    repo, status = ref.partition("@")[0], status_of(error)
    if isinstance(error, XetFault):
        return f"{doing}: Xet, where the Hub keeps large files, {error}; {REMEDY}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{doing} needs the Hub, and HF_HUB_OFFLINE forbids to ask it; unset HF_HUB_OFFLINE and try again"
    if isinstance(error, httpx2.TransportError | LocalEntryNotFoundError):
        name = type(error).__name__
        return f"{doing} needs the Hub, and {constants.ENDPOINT} does not answer ({name}); try again with a network"
    if isinstance(error, LocalTokenNotFoundError):
        return f"{doing} needs a login at the Hub, found none; run `hf auth login`, then try again"
    if isinstance(error, GatedRepoError):
        kind = "" if error.repo_type == "model" else "datasets/"
        return (
            f"{repo} is gated, and you are not let in; open {constants.ENDPOINT}/{kind}{repo}, accept its conditions, "
            "run `hf auth login` as the user who accepted them, then try again"
        )
    if isinstance(error, RepositoryNotFoundError):
        return not_found(ref)
    if isinstance(error, HFValidationError):
        return f"`{repo}` cannot be the name of a repository on the Hub; needed is NAMESPACE/NAME"
    if status == 401:
        return f"{doing}: the Hub does not accept your login; run `hf auth login --force`, or correct HF_TOKEN"
    if status == 403:
        return f"{doing}: the Hub forbids it to you (403); ask the owner of {repo} for the right, or use another login"
    if status == 429:
        pause = _retry_after(error)
        when = f"in {pause / 60:.0f} min" if pause else "later"
        return f"{doing}: the Hub's rate limit for your login or address is used up (429); try again {when}"
    if status in (409, 412):
        return f"{doing}: {repo} was changed by others each time that it was tried ({status}); try again later"
    if status == 413:
        return f"{doing}: it is larger than the Hub takes in one commit (413); publish less in one artifact"
    if status is not None:
        return f"{doing}: the Hub answers with status {status}; try again later"
    if isinstance(error, json.JSONDecodeError):
        return f"{doing}: what answers at {constants.ENDPOINT} is no Hub (no JSON); check HF_ENDPOINT and your proxy"
    if isinstance(error, ValueError):  # of the hub library's own checks: a card's metadata, an LFS answer
        return f"{doing}: the Hub refuses it ({' '.join(str(error).split())[:300]})"
    if isinstance(error, RuntimeError) or _is_short_download(error):
        return f"{doing}: the transfer broke off ({type(error).__name__}); try again later"
    if isinstance(error, OSError) and error.strerror:
        return f"{doing}: {error.strerror}: {error.filename}; mend that, then try again"
    return None


def not_found(ref: str) -> str:
    """Return the sentence for a repository that is private or absent; the Hub does not say which."""
    repo = ref.partition("@")[0]
    return (
        f"{repo} is no dataset or model on the Hub that you can see; check the name, or, where it is private, run "
        "`hf auth login` as a user who has access"
    )
