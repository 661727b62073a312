"""The settings of graders: a command of the user's, and the sandbox in which tests run."""

from pydantic import Field

from persyn_hf.recipe.strict import Strict


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


class SandboxSettings(Strict):
    """The sandbox in which tests of code run; each run of an answer has one of its own."""

    python: str | None = Field(
        default=None,
        description="The whole path of the Python (3.11 or newer) that runs answers. Null: the one that runs persyn, "
        "with its packages.",
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
