"""The shape of a stage: a module with the four names `INPUTS`, `OUTPUT`, `Settings` and `run`.

`INPUTS` maps keywords of `run` to contracts (`persyn_hf.schemas`). The runner checks the inputs before the call, and
the result against `OUTPUT` after it. `run(settings, context, **inputs)` returns a `Result`. Stages know neither the
store nor one another.

A stage may have five more names. `OPTIONAL_INPUTS` are inputs that a step may lack. `VERSION` (1 where there is none)
rises when the same settings and inputs give other content than before. `NOT_COVERED` are the settings, as `key` or
`section.key`, that change how long the stage takes and not what it emits; fingerprints leave them out.
`LATER` maps settings, named in the same way, that came later than their stage to the value that held before; with that
value, fingerprints and manifests are as they were.
`check_files(settings)` refuses local files that the stage could not read, before any step runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from persyn_hf.recipe.roles import Price, Student, Teacher


if TYPE_CHECKING:
    from datasets import Dataset


class Progress(Protocol):
    """The listener to which a stage reports how far it is."""

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        """Begin a piece of work of `total` units; `done` were left by earlier runs, and do not count in the rate.

        `work` is what the others take together, in any measure that time goes by (characters of rows that differ in
        length): the time left follows from it. None: each unit takes as long as any other.
        """

    def advance(self, count: int = 1, work: float | None = None) -> None:
        """Report `count` more units as done, which took `work` of what `start` was told."""

    def waiting(self, reason: str | None) -> None:
        """Report that nothing goes on, and why; None: it goes on again. It may be called from any thread."""

    def tally(self, teacher: str, **numbers: Any) -> None:
        """Report figures of one teacher for `persyn status`: done, total, errors by kind, tokens."""


class Silent:
    """A `Progress` that nobody sees."""

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None: ...

    def advance(self, count: int = 1, work: float | None = None) -> None: ...

    def waiting(self, reason: str | None) -> None: ...

    def tally(self, teacher: str, **numbers: Any) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits on what a recipe asks of its teachers in all its runs together; None: no limit."""

    max_generations: int | None = None  # answers
    max_cost: float | None = None  # in the currency of the recipe's prices
    wait_for_batches: bool = True  # False: a run that has nothing left to do but wait ends, and a later one goes on
    new_journal: bool = False  # ask again what was paid for, where the journal has lost it
    are_options: bool = False  # given to the command `persyn run`, whose options errors name; else to Python's `run`

    def named(self, limit: str) -> str:
        """Return what a limit is called where it was given: `--max-cost` or `max_cost`."""
        return f"--{limit.replace('_', '-')}" if self.are_options else f"`{limit}`"


NO_LIMITS = Limits()


class Payee(NamedTuple):
    """Whom a recipe pays for answers: a teacher, or a judge."""

    price: Price | None
    gpus: float | None  # that it holds while it answers; None: not known, as a server does not say


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a stage is given in addition to its settings and inputs."""

    seed: int
    work_dir: (
        Path  # private to this step, and kept until its artifact is stored: what a killed run left is still there
    )
    journal: Path | None = None  # sqlite file that all `generate` and `score` steps of a store share
    recipe: str = ""  # NAMESPACE/NAME of the recipe, which pays for what is new in the journal
    step: str = ""  # the key of the step, by which trackers name its run
    limits: Limits = NO_LIMITS
    payees: Mapping[str, Payee] = field(default_factory=dict)  # by their names in the journal; where cost is limited
    teachers: tuple[Teacher, ...] = ()
    student: Student | None = None
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a stage, of which the runner makes an artifact."""

    data: "Dataset | Path"  # a dataset of the `OUTPUT` contract, or a folder with model files
    counts: dict[str, int] = field(default_factory=dict)  # rows kept, dropped by reason, unjudged
    # Plain JSON values: tables for card and report. They are deterministic.
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)  # cost ledger; seconds vary, so it is not part of the digest
