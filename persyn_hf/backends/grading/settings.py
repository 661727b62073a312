"""The settings of graders: a command of the user's, and the sandbox in which tests run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from persyn_hf.recipe.strict import Strict


# Of sandboxes, what no setting changes.
MIB = 1 << 20
WALL = 4  # times its processor time that a run may take by the clock
OUTPUT = 4 * MIB  # bytes of an answer's output
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # a thread of OpenBLAS reserves memory
}


class CommandSettings(Strict):
    """A command of the user's that grades: lines of JSON in, one verdict per line out (docs/graders.md)."""

    run: list[str] = Field(
        default=[],
        description="The program and its arguments: [python, ./my_grader.py]. Files need the `./`; `python` is the "
        "one that runs persyn.",
    )
    timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=604_800,
        description="The seconds within which the command must print its next line.",
    )
    memory_gb: float = Field(
        default=4.0, gt=0, le=100_000, description="The GiB that a process of the command may take with its children."
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="The processes of the command at a time. Null: as many as there are cores and memory for, 8 at "
        "most.",
    )


COMMAND_NOT_COVERED = frozenset({"timeout_s", "memory_gb", "workers"})  # how fast it grades; fingerprints leave it out


class SandboxSettings(Strict):
    """The sandbox in which tests of code run; each run of an answer has one of its own."""

    # Names of verdicts and fingerprints are made of this. So what came later is left out while it has its default.
    engine: Literal["bubblewrap", "docker", "podman", "piston"] = Field(
        default="bubblewrap",
        exclude_if=lambda value: value == "bubblewrap",
        description="What makes the sandbox: bubblewrap, a container of docker or podman, or a server of Piston.",
    )
    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./:@-]*$")] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Of docker and podman: the image, with Python 3.11 or newer. It must be there already; nothing is "
        "pulled.",
    )
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] | None = Field(
        default=None, description="Of piston: the address of the server, such as http://127.0.0.1:2000."
    )
    python: str | None = Field(
        default=None,
        description="The whole path of the Python (3.11 or newer) that runs answers. Null: the one that runs persyn, "
        "with its packages; of an image `python3`.",
    )
    memory_mb: int = Field(
        default=1024, ge=64, le=10**6, description="The MiB of memory that an answer may take with its children."
    )
    disk_mb: int = Field(
        default=64, ge=1, le=10**6, description="The MiB of files that an answer may write. They are in memory."
    )
    processes: int = Field(
        default=32, ge=1, le=10_000, description="The processes that an answer may have at a time, itself included."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SandboxSettings":
        for key, engines in (("image", ("docker", "podman")), ("url", ("piston",))):
            if self.engine in engines and getattr(self, key) is None:
                raise ValueError(f"`engine: {self.engine}` needs `{key}`; give it")
            if self.engine not in engines and getattr(self, key) is not None:
                raise ValueError(f"`engine: {self.engine}` knows no `{key}`, `{engines[0]}` does; leave it out")
        if self.engine == "piston" and self.python is not None:
            raise ValueError("`engine: piston` knows no `python`, the server has its own; leave it out")
        return self
