"""Refuse nodes of a cluster on which processes could not work as here."""

import os
import secrets
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from persyn_hf.backends.launching import probe
from persyn_hf.version import __version__


TOKEN = "token"  # a file in the folder of a launch, which every node must read as it was written here
PACKAGES = ("torch", "transformers", "accelerate")
MORE = {"train_student": ("trl", "peft", "datasets"), "evaluate": ("lm_eval",)}  # packages of a stage


def task_of(stage: str, folder: Path, needs: Sequence[str], patience_s: float) -> dict[str, Any]:
    """Write a token to a folder that all nodes must see; return what is to be looked for there, in plain JSON.

    needs: those that are no local file or folder name a model of the Hub, and are left out. patience_s: for a network
    file system to show the token.
    """
    token = secrets.token_hex(16)
    (folder / TOKEN).write_text(token, encoding="utf-8")
    here = [str(Path(path).absolute()) for path in needs if os.path.exists(path)]
    versions = {"persyn_hf": __version__}
    for name in PACKAGES + MORE.get(stage, ()):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"folder": str(folder.absolute()), "token": token, "patience_s": patience_s, "needs": here} | {
        "versions": versions
    }


def look_from(task: str) -> Callable[[], dict[str, Any]]:
    """Make the function that looks at the node where it is called, for a task in JSON.

    It is sent to the node as code, not as a name of this package, which the node may lack. Returns `host`; `python`,
    None or what it cannot run; and where it can, what `probe.look` finds.
    """
    program = Path(probe.__file__).read_text(encoding="utf-8")

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


def fault_of(found: dict[str, Any], task: dict[str, Any], node: str, key: str) -> str | None:
    """Say in a sentence why a node, by what was found there, cannot take part in a launch; None where it can.

    key: the setting of the executor.
    """
    if found.get("python"):
        return f"{node} cannot run {found['python']}; install persyn-hf there as it is here"
    for name, version in task["versions"].items():
        there = found["versions"][name]
        if there is None or there.partition("+")[0] != version.partition("+")[0]:  # +cpu or +cu128 may differ
            has = "lacks the package" if there is None else f"has version {there} of"
            return f"{node} {has} `{name}`, and this one has version {version}; install the same on every node"
    if not found["sees"]:
        return (
            f"{node} does not see what is written to {task['folder']} here; let `{key}.shared` name a folder that all "
            "nodes share (NFS, Lustre)"
        )
    if found["lacks"]:
        return (
            f"{node} lacks {found['lacks'][0]}, which is there on this one; copy it there to the same path, or name a "
            "model of the Hub"
        )
    return None
