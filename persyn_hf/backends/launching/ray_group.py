"""Start the processes of a plan on the nodes of a Ray cluster."""

from pathlib import Path

from persyn_hf.backends.launching.plan import Plan


class RayGroup:
    """A launcher on each replica's node, as `launching.Started`."""

    def __init__(self, plan: Plan, module: str, folder: Path) -> None:
        raise NotImplementedError

    def poll(self) -> int | None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError
