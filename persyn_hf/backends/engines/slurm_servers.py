"""Run the vLLM servers of one teacher on the nodes of a Slurm job, one per replica, and give their urls out."""

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Literal

from persyn_hf.backends.engines.settings import ExecutorSettings, VllmSettings
from persyn_hf.backends.engines.slurm import SlurmStep, find_job, place_replicas
from persyn_hf.backends.engines.vllm_server import VllmServer
from persyn_hf.errors import RecipeError


PLACE = "generate.executor"


class SlurmServers:
    """The servers of the model `name`, which share the load; with the interface of one `VllmServer`."""

    def __init__(
        self,
        settings: ExecutorSettings,
        name: str,
        arguments: Sequence[str],
        *,
        stage: Literal["generate", "evaluate"],
        log: Path,
        start_timeout_s: float,
        max_restarts: int,
    ) -> None:
        job = find_job(PLACE)
        places, part = place_replicas(job, settings, PLACE, alone=False)
        self.key = secrets.token_hex(16)  # the servers listen to the cluster's network
        self._servers = [
            VllmServer(
                name,
                arguments,
                stage=stage,
                log=log.with_stem(f"{log.stem}-{number}"),
                start_timeout_s=start_timeout_s,
                max_restarts=max_restarts,
                host=job.addresses[place],
                key=self.key,
                begin=partial(SlurmStep, job=job, nodes=[job.nodes[place]], part=part),
            )
            for number, place in enumerate(places)
        ]

    @property
    def urls(self) -> list[str]:
        """The urls of all servers."""
        return [server.url for server in self._servers]

    def start(self) -> None:
        """Start all at the same time, and return once each answers. Raises `EngineError` where one never does."""
        with ThreadPoolExecutor(len(self._servers)) as threads:
            try:
                for started in as_completed([threads.submit(server.start) for server in self._servers]):
                    started.result()
            except BaseException:
                self.stop()  # the others would go on for as long as a start may take
                raise

    def recover(self, url: str) -> None:
        """Start the server of a url again, where it has died."""
        next(server for server in self._servers if server.url == url).recover(url)

    def stop(self) -> None:
        """End all servers, and return when they are gone."""
        with ThreadPoolExecutor(len(self._servers)) as threads:
            for ended in [threads.submit(server.stop) for server in self._servers]:
                ended.result()


def fill_replica(settings: VllmSettings, executor: ExecutorSettings, whose: str, place: str = PLACE) -> VllmSettings:
    """Return settings by which one server of a model uses all GPUs of a replica, by copies of the model.

    whose: names the model in errors. place: the setting of the executor.

    Raises:
        RecipeError: they cannot be used all.
    """
    gpus, each = int(executor.gpus_per_replica), settings.gpus_per_copy
    if not gpus:
        return settings
    copies = settings.data_parallel_size if settings.data_parallel_size > 1 else gpus // each
    if copies * each != gpus:
        raise RecipeError(
            f"`{place}.gpus_per_replica` is {gpus}, and a server of {whose} uses "
            f"{max(copies, 1) * each} (tensor x pipeline x data parallel size); set `vllm` sizes that make {gpus}"
        )
    return settings.model_copy(update={"data_parallel_size": copies})
