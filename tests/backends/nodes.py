"""A Ray cluster on this machine, parts of which can be killed while a stage works on it."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from persyn_hf.backends.engines import ray_cluster


TWO = {"kind": "ray", "replicas": 2}


@contextmanager
def nodes(number: int) -> Iterator[Any]:
    """Start a `ray.cluster_utils.Cluster` and connect: a head without CPUs, where this process is, and nodes with one.

    PYTHONPATH is that of the tests.
    """
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        own = {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_worker_niceness": "0"}  # it is 15, and tests would wait
        for name, value in {**ray_cluster.QUIET, **own}.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(number):
                cluster.add_node(num_cpus=1)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def relatives(folder: Path, word: str = "") -> list[psutil.Process]:
    """Processes that work in `folder` and have the word in their command lines, this one left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
            if str(folder) in line and word in line and alive:
                found.append(process)
    return found


def is_process(one: psutil.Process) -> bool:
    """Tell a process that does the work from launchers and keepers, whose command lines end in the same way."""
    line = " ".join(one.cmdline())
    return "-m persyn_hf.backends" in line and "accelerate.commands" not in line


def victims(cluster: Any, folder: Path, victim: str) -> list[psutil.Process]:
    """Processes of that kind that work in `folder`; for `node` the raylets below which they are."""
    match victim:
        case "process":
            return [one for one in relatives(folder) if is_process(one)]
        case "actor":
            keepers = relatives(folder, "supervised.py")
            return [parent for keeper in keepers if (parent := keeper.parent()) is not None and parent.pid > 1]
        case "node":
            raylets = (actor.parent() for actor in victims(cluster, folder, "actor"))
            return [raylet for raylet in raylets if raylet is not None and raylet.pid > 1]
        case _:
            raise ValueError(victim)


@contextmanager
def killing(cluster: Any, folder: Path, victim: str, moment: Callable[[], bool]) -> Iterator[list[int]]:
    """Kill a victim with SIGKILL at a moment of what runs inside; yields the list of those that were killed.

    Where it was a node, there is a new one afterwards.
    """
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and not killed:
            with contextlib.suppress(psutil.Error, OSError):
                if moment() and (found := victims(cluster, folder, victim)):
                    for below in found[-1].children(recursive=True):
                        if is_process(below):
                            below.suspend()  # lest it end its work before it is ended
                    found[-1].kill()
                    killed.append(found[-1].pid)
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
        if victim == "node" and killed:
            renew(cluster)


def renew(cluster: Any) -> None:
    """Put a new node in the place of the last one, whose raylet was killed."""
    dead = [node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.poll() is not None]
    for node in dead:
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
