"""Look at this node before processes start here: what is installed, and which files it sees.

It is a program of its own, of the standard library alone: Ray sends its text to nodes that may lack persyn-hf.
"""

import importlib.metadata
import json
import os
import sys
import time
from typing import Any


def look(task: dict[str, Any]) -> dict[str, Any]:
    """Return what is found of a task of `node_look.task_of`, in plain JSON.

    versions: those of the packages, None where one is missing. sees: the token in the folder. lacks: of `needs`.
    """
    return {
        "versions": {name: _version(name) for name in task["versions"]},
        "lacks": [path for path in task["needs"] if not os.path.exists(path)],
        "sees": _sees(task["folder"], task["token"], task["patience_s"]),
    }


def _version(package: str) -> str | None:
    try:
        if package == "persyn_hf":
            from persyn_hf.version import __version__

            return __version__
        return importlib.metadata.version(package)
    except ImportError:  # as is importlib.metadata.PackageNotFoundError
        return None


def _sees(folder: str, token: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            for place in (os.path.dirname(folder), folder):
                os.listdir(place)  # a network file system looks again
            with open(os.path.join(folder, "token"), encoding="utf-8") as file:
                if file.read() == token:
                    return True
        except OSError:
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.5)


if __name__ == "__main__":
    json.dump(look(json.loads(sys.argv[1])), sys.stdout)
