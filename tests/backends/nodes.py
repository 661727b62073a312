"""A Ray cluster on this machine: a head without CPUs, on which the driver is, and nodes with one CPU each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from persyn_hf.backends.engines import ray_cluster


@contextmanager
def nodes(number: int, **environment: str) -> Iterator[Any]:
    """Start the cluster, connect this process to it, and yield it as `ray.cluster_utils.Cluster`."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ray_cluster.QUIET, **environment}.items():
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


def relatives(folder: Path) -> list[psutil.Process]:
    """Processes that work in `folder`, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if str(folder) in line and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found
