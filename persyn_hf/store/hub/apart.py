"""Calls of the hub library that can be left: Ctrl-C and SIGTERM are answered at once, whatever the library waits for.

Python answers a signal between two of its own instructions, in the main thread. The Xet client and the library's pools
of threads keep the main thread waiting for minutes where a service does not answer. So the library works in a thread
of its own, and the main thread waits in a way that a signal ends.
"""

import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar


T = TypeVar("T")

ORDERLY_S = 1.0  # for a transfer that was stopped to remove what it had half written

_left: list[threading.Thread] = []


def apart(work: Callable[[], T]) -> T:
    """Do the work in a thread of its own, and return its result or raise its error.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came meanwhile; transfers of the Xet client are stopped then, and others
            are left to end by themselves.
    """
    ended: Future[T] = Future()

    def run() -> None:
        """Do the work and keep what comes of it."""
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)

    thread = threading.Thread(target=run, name="hub", daemon=True)
    thread.start()
    try:
        return ended.result()
    except KeyboardInterrupt:
        _left.append(thread)
        _stop_xet()
        thread.join(ORDERLY_S)
        raise


def is_left() -> bool:
    """Tell whether work that was left goes on; the interpreter would wait for its pools of threads before it ends."""
    return any(thread.is_alive() for thread in _left)


def _stop_xet() -> None:
    """Stop every transfer of the Xet client, if there is one in this process."""
    if "hf_xet" in sys.modules:
        with contextlib.suppress(ImportError):  # private: without it the transfers are left like others
            from huggingface_hub.utils._xet import abort_xet_session

            abort_xet_session()
