"""Start the processes of a plan on the nodes of a Ray cluster: one actor per replica, each with a launcher.

    driver (`RayGroup`)  -->  actor (`Machine`)  -->  keeper (`supervised`)  -->  accelerate launch  -->  processes

The keeper ends launcher and processes once its actor is gone: by `stop`, with the driver, or with the node's raylet.
"""

import json
import math
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from persyn_hf.backends.engines import ray_cluster
from persyn_hf.backends.engines.supervised import Kept
from persyn_hf.backends.launching import Lost
from persyn_hf.backends.launching.command import LOG, SAFE, command
from persyn_hf.backends.launching.node_look import fault_of, look_from, task_of
from persyn_hf.backends.launching.plan import Plan, write_config
from persyn_hf.backends.launching.settings import Executor
from persyn_hf.errors import EngineError, reason


POLL_S = 0.2
ROOM_S = 300.0  # for room that others take, or that was lost with a node
SEEN_S = 20.0  # for a network file system to show what was written elsewhere
STOP_S = 60.0  # for processes to end; the keeper gives them 10
LOST = 137  # the status of a launcher that was killed with its actor


class RayGroup:
    """A launcher on each replica's node, as `launching.Started`.

    needs: local files and folders that every node must have. again: after a loss, so nodes may be about to return.

    Raises:
        EngineError: there is no cluster or no room in it, or a node lacks what it needs.
    """

    def __init__(self, plan: Plan, module: str, folder: Path, needs: Sequence[str] = (), again: bool = False) -> None:
        assert plan.executor is not None
        self._plan, self._settings, self._folder = plan, plan.executor, folder
        self._ray = ray_cluster.connect(self._settings.address, plan.key)
        self._room: Any = None
        self._machines: list[Any] = []
        self._runs: dict[Any, int] = {}  # what actors have not returned yet -> their rank
        try:
            self._reserve(again)
            self._look(needs)
            self._start(module)
        except BaseException as error:
            self.stop()
            if isinstance(error, self._ray.exceptions.RayError):
                raise Lost(
                    f"Ray could not start the processes of `{plan.key}`: {reason(error)}; see Ray's logs on its nodes "
                    "(/tmp/ray/session_latest/logs), then run again: what was done is kept"
                ) from None
            raise

    def poll(self) -> int | None:
        """Return the status of the first launcher that failed, 0 once all have ended well; None while they run."""
        ended, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0) if self._runs else ([], [])
        for run in ended:
            rank = self._runs.pop(run)
            try:
                status = self._ray.get(run)
            except self._ray.exceptions.RayError as error:
                with (self._folder / f"{LOG}-{rank}").open("a", encoding="utf-8") as log:
                    log.write(f"\nthe Ray actor of replica {rank} was lost: {reason(error)}\n")
                status = LOST
            if status:
                return int(status)
        return None if self._runs else 0

    def stop(self) -> None:
        """End all processes that can be reached, and return when they are gone."""
        ray = self._ray
        with suppress(ray.exceptions.RayError):
            stopped = [machine.stop.remote() for machine in self._machines]
            if stopped:
                ray.wait(stopped, num_returns=len(stopped), timeout=STOP_S)
            for machine in self._machines:
                ray.kill(machine)
            if self._room is not None:
                ray.util.remove_placement_group(self._room)
        self._machines, self._room, self._runs = [], None, {}

    def _reserve(self, again: bool) -> None:
        """Take the room of all replicas, on as many nodes as there are."""
        settings, ray = self._settings, self._ray
        deadline = time.monotonic() + (ROOM_S if again else 0)
        while True:
            try:
                ray_cluster.check_room(ray, settings, self._plan.key, settings.replicas)
                break
            except EngineError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
        each = {"CPU": settings.cpus_per_replica, "GPU": settings.gpus_per_replica}
        bundles = [{name: amount for name, amount in each.items() if amount}] * settings.replicas
        self._room = ray.util.placement_group(bundles, strategy="SPREAD")
        if not self._room.wait(ROOM_S):
            raise EngineError(
                f"the room that `{self._plan.key}` asks for in the Ray cluster ({settings.replicas} replicas) was "
                f"taken by others for {ROOM_S:g} s; wait for them to end, or ask for less, and run again"
            )

    def _place(self, rank: int) -> dict[str, Any]:
        """Return the options of a task or an actor of replica `rank`."""
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            placement_group=self._room, placement_group_bundle_index=rank
        )
        return {
            "num_cpus": self._settings.cpus_per_replica,
            "num_gpus": self._settings.gpus_per_replica or None,
            "scheduling_strategy": strategy,
        }

    def _look(self, needs: Sequence[str]) -> None:
        """Refuse nodes that do not see the folder, or on which the processes could not work as here."""
        places = [self._place(rank) for rank in range(self._plan.machines)]
        look(self._ray, places, self._plan.stage, self._folder, needs, self._plan.key)

    def _start(self, module: str) -> None:
        machine = self._ray.remote(Machine)
        ranks = range(self._plan.machines)
        self._machines = [
            machine.options(**self._place(rank), max_concurrency=2).remote(os.getcwd()) for rank in ranks
        ]
        config = write_config(self._plan, self._folder)
        address, port = self._ray.get(self._machines[0].address.remote())
        threads = max(1, math.floor(self._settings.cpus_per_replica / self._plan.per_machine))
        for rank, actor in enumerate(self._machines):
            run = actor.run.remote(str(config), module, str(self._folder), rank, address, port, threads)
            self._runs[run] = rank


class Machine:
    """The actor of one replica: it runs a launcher, which ends with it."""

    def __init__(self, folder: str) -> None:
        self._kept: Kept | None = None
        with suppress(OSError):
            os.chdir(folder)  # relative paths count from where the driver is

    def address(self) -> tuple[str, int]:
        """Return the address of this node, and a free port."""
        import ray

        with socket.socket() as found:
            found.bind(("", 0))
            return str(ray.util.get_node_ip_address()), int(found.getsockname()[1])

    def run(self, config: str, module: str, folder: str, rank: int, address: str, port: int, threads: int) -> int:
        """Run the launcher to its end, and return its status."""
        place = Path(folder)
        self._kept = Kept(
            command(config, module, place, rank=rank, address=address, port=port),
            environment=os.environ | SAFE | {"OMP_NUM_THREADS": str(threads)},
            log=place / f"{LOG}-{rank}",
        )
        raylet = os.getppid()
        while (status := self._kept.poll()) is None:
            if os.getppid() != raylet:  # the node is lost, and Ray lets an actor end what it does first
                self._kept.stop()
                return LOST
            time.sleep(POLL_S)
        return status

    def stop(self) -> None:
        """End the launcher, and return when all of its processes are gone."""
        if self._kept is not None:
            self._kept.stop()


def look(ray: Any, places: Sequence[dict[str, Any]], stage: str, folder: Path, needs: Sequence[str], key: str) -> None:
    """Refuse nodes on which the processes of a stage could not work; `places` are options of tasks there."""
    task = task_of(stage, folder, needs, SEEN_S)
    looking = ray.remote(look_from(json.dumps(task)))
    for found in ray.get([looking.options(**place).remote() for place in places]):
        node = f"the node {found['host']} of the Ray cluster (`{key}`)"
        if fault := fault_of(found, task, node, key):
            raise EngineError(fault)


def look_at_cluster(executor: Executor, stage: str, folder: Path) -> None:
    """Refuse a cluster without room for the replicas, or nodes that have it and could not work there.

    folder: of the driver, which all nodes must see. Raises `EngineError`.
    """
    key = f"{stage}.executor"
    with ray_cluster.connected(executor.address, key) as ray:
        nodes = ray_cluster.check_room(ray, executor, key, executor.replicas)
        on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        places = [{"num_cpus": 0, "scheduling_strategy": on(node, soft=False)} for node in nodes]
        try:
            look(ray, places, stage, folder, (), key)
        except ray.exceptions.RayError as error:
            raise EngineError(
                f"a node of the Ray cluster (`{key}`) could not be looked at: {reason(error)}; see Ray's logs there "
                "(/tmp/ray/session_latest/logs), then run again"
            ) from None
