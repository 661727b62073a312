"""The shape of a stage: a module with the four names `INPUTS`, `OUTPUT`, `Settings` and `run`.

`INPUTS` maps keywords of `run` to contracts (`persyn_hf.schemas`); the runner checks them before the call and the
result against `OUTPUT` after it. `run(settings, context, **inputs)` returns a `Result`. Stages know neither the store
nor one another.

A stage may have four more names. `OPTIONAL_INPUTS` are inputs that a step may lack. `VERSION` (1 where there is none)
goes up when the same settings and inputs give other content than before. `NOT_COVERED` are the settings that change
how long the stage takes and not what it emits, as `key` or `section.key`; fingerprints leave them out.
`check_files(settings)` refuses local files that it could not read, before any step runs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from persyn_hf.recipe.roles import Student, Teacher


if TYPE_CHECKING:
    from datasets import Dataset


class Progress(Protocol):
    """Where a stage tells how far it is."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """`done`: what earlier runs have left; it counts for the total and not for the rate."""

    def advance(self, count: int = 1) -> None: ...

    def tally(self, teacher: str, **numbers: Any) -> None:
        """Figures of one teacher for `persyn status`: done, total, errors by kind, tokens."""


class Silent:
    """Progress that nobody sees."""

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, count: int = 1) -> None: ...

    def tally(self, teacher: str, **numbers: Any) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a recipe may ask of its teachers, all its runs together; null: no limit."""

    max_generations: int | None = None
    max_cost: float | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage is given beside its settings and inputs."""

    seed: int
    work_dir: Path  # private to this step and kept until its artifact is stored: what a killed run left is still there
    journal: Path | None = None  # sqlite file shared by all `generate` steps of a store
    recipe: str = ""  # NAMESPACE/NAME: who pays for what is new in the journal
    limits: Limits = NO_LIMITS
    teachers: tuple[Teacher, ...] = ()
    student: Student | None = None
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage returns; the runner makes an artifact of it."""

    data: "Dataset | Path"  # a dataset of the `OUTPUT` contract, or a folder with model files
    counts: dict[str, int] = field(default_factory=dict)  # rows kept, dropped by reason, unjudged
    metrics: dict[str, Any] = field(
        default_factory=dict
    )  # plain JSON values: tables for card and report; deterministic
    cost: dict[str, Any] = field(default_factory=dict)  # cost ledger (seconds vary, so it is not part of the digest)
