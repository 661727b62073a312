"""A server of the Space and a browser that looks at it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Counts the answers that the page still waits for; it has put one on the screen when this task of its ends.
COUNTED = """
  window.awaited = 0;
  const ask = window.fetch, text = Response.prototype.text;
  window.fetch = (...given) => { window.awaited++; return ask(...given); };
  Response.prototype.text = function () {
    const got = text.call(this);
    got.finally(() => setTimeout(() => { window.awaited--; }));
    return got;
  };
"""


def start(*command: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A server and its address, once it answers."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    assert process.stdout is not None
    found = re.search(r"shown at (\S+)", process.stdout.readline())
    assert found is not None, f"it ended with {process.wait()}"
    return process, found[1].rstrip("/")


def serve(folder: object) -> tuple[subprocess.Popen[str], str]:
    """`persyn space` on a store, and its address."""
    return start("-m", "persyn_hf.cli", "space", "--store", str(folder), "--port", free_port())


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def go(page: Any, site: str, query: str = "") -> Any:
    """Load a page by its address: `?view=...`, or "" for the first one."""
    page.goto(f"{site}/{query}")
    return page


def settle(page: Any) -> None:
    """Wait until every answer that the page asked for is shown; after a slider wait for its address first."""
    until(page, "window.awaited === 0")


def until(page: Any, condition: str, arg: Any = None) -> None:
    """Wait for a condition in JavaScript, which may read `arg`, 20 s at most.

    The policy of the page forbids Playwright's own `wait_for_function`.
    """
    waiting = f"""arg => new Promise((done, fail) => {{
      setTimeout(() => fail(new Error("it never came")), 20000);
      const look = () => ({condition}) ? done() : setTimeout(look, 20);
      look();
    }})"""
    page.evaluate(waiting, arg)


class Held:
    """Answers to a part of an address are held back until they are let go."""

    def __init__(self, page: Any, part: str) -> None:
        self.waiting: list[Any] = []
        page.route(lambda url: part in url, lambda route: self.waiting.append(route))

    def let_go(self) -> None:
        for route in self.waiting:
            route.continue_()
        self.waiting.clear()


def listen(page: Any) -> list[str]:
    """What goes wrong on a page from now on: words in the console, errors, dialogs, requests out of this machine."""
    said: list[str] = []
    page.on("console", lambda line: said.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: None if is_here(request.url) else said.append(request.url))
    return said


def is_here(address: str) -> bool:
    return address.startswith(("http://127.0.0.1:", "data:"))
