"""Connect to a Ray cluster without a word on the terminal: the one at an address, or one started on this machine."""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from persyn_hf.backends.engines.settings import ExecutorSettings
from persyn_hf.errors import EngineError, reason, require


CONNECT_S = 10.0
QUIET = {  # of the terminal and of telemetry
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # lines of the raylet on nodes that were lost, which its own log has
    "RAY_USAGE_STATS_ENABLED": "0",
}


def connect(address: str | None, key: str) -> Any:
    """Connect to the cluster at `address` and return the module `ray`; None starts one that ends with this process.

    `key` is the setting that asks for it, for errors: `score.executor`.

    Raises:
        EngineError: there is no cluster, or it cannot be used.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # some are read when Ray is imported
    ray = require("ray", extra="ray", feature=f"`{key}`")
    require("ray.data", extra="ray", feature=f"`{key}`")
    if ray.is_initialized():
        return ray
    check_address(address, key)
    try:
        with _quiet():
            options = {"log_to_driver": False, "logging_level": "CRITICAL", "include_dashboard": False}
            ray.init(address=address or "local", **options)
    except Exception as error:  # noqa: BLE001  # ConnectionError, RuntimeError, ValueError: other versions, ports
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # Ray's own words hide it
        if "AuthenticationError" in str(cause):
            raise EngineError(
                f"the Ray cluster at {address} wants a token (`{key}.address`); set RAY_AUTH_MODE=token, "
                "and RAY_AUTH_TOKEN where ~/.ray/auth_token does not hold it, or use `address: auto` on a node of it"
            ) from None
        raise _no_cluster(address, reason(cause), key) from None
    return ray


@contextmanager
def connected(address: str | None, key: str) -> Iterator[Any]:
    """Connect to look at a cluster, and leave it afterwards, unless this process is connected already."""
    began = "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    ray = connect(address, key)
    try:
        yield ray
    finally:
        if began:
            ray.shutdown()


def check_room(ray: Any, settings: ExecutorSettings, key: str, replicas: int = 1) -> list[str]:
    """Refuse actors that the nodes have no room for, for Ray would wait for it in silence for ever (`EngineError`).

    replicas: how many must run at the same time. Returns the ids of the nodes that have room for any.
    """
    need = {"CPU": settings.cpus_per_replica, "GPU": settings.gpus_per_replica}
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node["Resources"] for node in alive]
    rooms = [int(min(node.get(name, 0) // amount for name, amount in need.items() if amount)) for node in nodes]
    room = sum(rooms)
    if room >= replicas:
        return [node["NodeID"] for node, of_node in zip(alive, rooms, strict=True) if of_node]
    largest = sorted(((node.get("GPU", 0), node.get("CPU", 0)) for node in nodes), reverse=True)
    sizes = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for gpus, cpus in largest[:5])
    asked = f"the {need['CPU']:g} CPUs and {need['GPU']:g} GPUs that `{key}` asks for each replica"
    raise EngineError(
        f"no node of the Ray cluster has {asked} (found: {sizes}); ask for less, or add a node"
        if not room
        else f"the Ray cluster has {asked} for {room} of {replicas} replicas (found: {sizes}); ask for less, or add a "
        "node"
    )


def check_gpus(needed: int, whose: str) -> None:
    """Refuse a vLLM server that runs over the nodes of this node's Ray cluster, where that has fewer GPUs than needed.

    whose: names the model in the error. Raises `EngineError`, also where there is no cluster.
    """
    with connected("auto", "vllm.distributed_executor_backend") as ray:
        found = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    if sum(found) < needed:
        raise EngineError(
            f"the server of {whose} needs {needed} GPUs (tensor x pipeline parallel size), and the Ray cluster of "
            f"this node has {sum(found)} ({len(found)} {'node' if len(found) == 1 else 'nodes'}); add nodes with "
            "`ray start --address HEAD:6379`, or lower `vllm.tensor_parallel_size`"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the start of Ray off the terminal, which its C++ part writes to itself, and its loggers for good."""
    logging.getLogger("ray.data").handlers = [logging.NullHandler()]
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors")  # few requests need few
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def check_address(address: str | None, key: str) -> None:
    """Refuse an address that nothing answers at: Ray itself tries it for minutes and then ends the process."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise EngineError(
            f"`{key}.address` must be auto or HOST:PORT of the cluster's head node, found {address!r}; "
            "run on a node of the cluster (Ray Client, ray://, is not supported)"
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, reason(error), key) from None


def _no_cluster(address: str | None, found: str, key: str) -> EngineError:
    if address is None:
        return EngineError(f"Ray cannot be started on this machine: {found}")
    return EngineError(
        f"there is no Ray cluster at {address} (`{key}.address`): {found}; start one with "
        "`ray start --head`, or leave `address` out to start one for this run"
    )
