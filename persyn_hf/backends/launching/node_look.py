"""Look at a node of a cluster before processes start there: what is installed, and which files it sees."""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


TOKEN = "token"  # a file in the folder of a launch, which every node must read as it was written here

# A program of its own: it runs as the processes will, and on a node that may lack persyn-hf.
PROBE = """
import importlib.metadata, json, os, sys, time

task = json.loads(sys.argv[1])

def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

try:
    from persyn_hf.version import __version__
except ImportError:
    __version__ = None

def sees():
    end = time.monotonic() + task["patience_s"]
    while True:
        try:
            os.listdir(task["folder"])  # a network file system looks again
            with open(os.path.join(task["folder"], "token"), encoding="utf-8") as token:
                if token.read() == task["token"]:
                    return True
        except OSError:
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.5)

versions = {"persyn_hf": __version__} | {name: version(name) for name in task["packages"]}
lacks = [path for path in task["needs"] if not os.path.exists(path)]
print(json.dumps({"versions": versions, "sees": sees(), "lacks": lacks}))
"""


def leave_token(folder: Path, needs: Sequence[str], patience_s: float) -> dict[str, Any]:
    """Write a token to a folder that all nodes must see, and return in plain JSON what is to be looked for there.

    needs: those that are no local file or folder name a model of the Hub, and are left out. patience_s: for a network
    file system to show the token.
    """
    token = secrets.token_hex(16)
    (folder / TOKEN).write_text(token, encoding="utf-8")
    here = [str(Path(path).absolute()) for path in needs if os.path.exists(path)]
    return {"folder": str(folder.absolute()), "token": token, "patience_s": patience_s, "needs": here}


def look_from(task: str) -> Callable[[], dict[str, Any]]:
    """Make the function that looks at the node where it is called.

    It is sent to the node as code, not as a name of this package, which the node may lack. `task` is JSON: that of
    `leave_token`, and `packages`. Returns `host`; `python`, None or what it cannot run; and where it can,
    `versions`, `sees` (the token in the folder) and `lacks` (of `needs`).
    """
    program = PROBE

    def look() -> dict[str, Any]:
        import json
        import os
        import socket
        import subprocess
        import sys

        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        done = subprocess.run([sys.executable, "-c", program, task], capture_output=True, text=True, env=environment)
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            return {"host": socket.gethostname(), "python": f"{sys.executable} ({last})"}
        return {"host": socket.gethostname(), "python": None, **json.loads(done.stdout)}

    return look
