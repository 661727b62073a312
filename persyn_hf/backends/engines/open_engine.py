"""Open the engine that a recipe names, from plain arguments, so that an actor on another machine can do the same."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.batch.notes import NOBODY, Sender
from persyn_hf.backends.engines.settings import BatchSettings, ExecutorSettings, ServerSettings, VllmSettings
from persyn_hf.backends.loading import Dtype


def open_engine(executor: ExecutorSettings | None, **options: Any) -> Engine:
    """Open the engine of one teacher, in this process or, with an executor, as actors of a Ray cluster.

    In a Slurm job, vLLM's servers are what runs on the nodes. A batch API is asked from here: what was sent is noted
    in one place.
    """
    if executor is not None and executor.kind == "slurm":
        return open_local(**options, executor=executor)
    local = open_local(**options)
    if executor is None or options["kind"] == "batch":
        return local
    from persyn_hf.backends.engines.ray_actors import RayEngine

    return RayEngine(local, partial(open_local, **options), executor)


def open_local(
    *,
    kind: str,
    model: str,
    revision: str | None,
    system_prompt: str | None,
    template_kwargs: Mapping[str, Any] | None = None,
    batch_tokens: int,
    dtype: Dtype,
    device: str,
    server: ServerSettings,
    vllm: VllmSettings,
    batch: BatchSettings | None = None,
    sender: Sender = NOBODY,
    response_format: Mapping[str, Any] | None = None,
    executor: ExecutorSettings | None = None,
    log_dir: Path,
    state_dir: Path,
) -> Engine:
    """Open an engine in this process; no weights are loaded and no server is started yet.

    response_format: of `vllm`; servers take it within their `extra`. executor: of `vllm`, of the kind slurm.
    """
    if kind == "server":
        from persyn_hf.backends.engines.server import ServerEngine

        return ServerEngine(model, server, revision=revision, system_prompt=system_prompt)
    if kind == "batch":
        from persyn_hf.backends.engines.batch.engine import BatchEngine

        asked: dict[str, Any] = {"revision": revision, "system_prompt": system_prompt, "sender": sender}
        return BatchEngine(model, server, batch or BatchSettings(), state_dir=state_dir, **asked)
    if kind == "vllm":
        from persyn_hf.backends.engines.vllm import VllmEngine

        return VllmEngine(
            model,
            revision,
            settings=vllm,
            dtype=dtype,
            system_prompt=system_prompt,
            template_kwargs=template_kwargs,
            response_format=response_format,
            executor=executor,
            log_dir=log_dir,
        )
    from persyn_hf.backends.engines.transformers import TransformersEngine

    return TransformersEngine(
        model,
        revision,
        batch_tokens=batch_tokens,
        dtype=dtype,
        device=device,
        system_prompt=system_prompt,
        template_kwargs=template_kwargs,
        state_dir=state_dir,
    )
