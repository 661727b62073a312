"""Check what the measurements of an artifact must hold, by its kind, to the depth to which they are read.

Plan, report and the messages of a run read measurements, counts and settings of stored artifacts, which may be pinned
ones of other people, of another version of persyn-hf, or from a damaged disk. `check_measured` looks at an artifact
once, where it is opened; whoever reads it then trusts it. What is not named here is not read.
"""

import contextlib
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from persyn_hf.errors import DamagedArtifact
from persyn_hf.report.frontier import UNITS
from persyn_hf.report.measured_routers import ABSENT, Number, Part, Router, Share
from persyn_hf.report.results import LEARNABILITY
from persyn_hf.store.manifest import MANIFEST, Count, fault_of, remedy
from persyn_hf.store.stored import Stored


Empty = Annotated[dict[str, Any], Field(max_length=0)]
Alpha = Annotated[str, Field(pattern=r"^[01](\.[0-9]{1,9})?$")]  # a weight as the key of a table


class Found(Part):
    """What of a set of test items is in the prompts."""

    items: Count
    items_found: Count
    prompts: Count
    all_words: Count


class Decontamination(Part):
    """The comparison of prompts with test items."""

    against: list[str]
    sets: dict[str, Found]
    not_read: dict[str, str]


class Repeated(Part):
    """The prompts that repeat one of an earlier split."""

    dev_in_calibration: Count


class Compared(Part):
    """The measurements of prompts."""

    decontamination: Decontamination = ABSENT
    near_duplicates: Repeated = ABSENT


class Prompts(Part):
    """The manifest of prompts."""

    metrics: Compared


class Ahead(Part):
    """What a round that may stop has found before it."""

    pool: Count
    price: Number
    per_cell: Number | None = None  # None: too few prompts to say
    stop: bool


class PriorFound(Part):
    """What a round has made of a prior."""

    prompts: Count
    slope: Number
    count: dict[str, Number]


class Labelling(Part):
    """The cells of the calibration prompts that were asked."""

    ahead: Ahead = ABSENT
    prior: PriorFound = ABSENT
    cells: dict[str, Count]
    prompts: Count
    share: Share


class Point(Part):
    """A point of the frontier of reward against cost."""

    cost: Number
    reward: Number
    price: Number | None


class Budget(Part):
    """The point that a budget came to."""

    cost: Number | None = None  # of all prompts; there is none where the budget counts no cost
    prompts: Count
    predicted_reward: Number
    price: Number | None = None


class Assigned(Part):
    """The measurements of assignments."""

    allocation: dict[str, Share]
    chosen: str = ""
    labelling: Labelling = ABSENT
    frontier: dict[str, Point] = Field(default_factory=dict)
    budget: Budget = ABSENT


class BudgetSettings(Part):
    """The setting that says what a budget counts."""

    cost: str | None = None


class AssignSettings(Part):
    """The settings of assignments."""

    budget: BudgetSettings | None = None


class Assignments(Part):
    """The manifest of assignments."""

    metrics: Assigned
    settings: AssignSettings

    @model_validator(mode="after")
    def _counted(self) -> "Assignments":
        """Refuse a frontier without the budget that it is a frontier of."""
        unit, budget = self.settings.budget and self.settings.budget.cost, self.metrics.budget
        if self.metrics.frontier and (unit not in UNITS or budget is None or budget.cost is None):
            raise ValueError("there is a frontier, and no budget that counts a cost")
        return self


class Answers(Part):
    """The shares of one teacher's answers."""

    truncated: Share
    errors: Share
    unknown_end: Share | None = None
    uncounted: Share | None = None
    mean_tokens: Number | None = None


class Answered(Part):
    """The measurements of responses."""

    teachers: dict[str, Answers]


class GenerateSettings(Part):
    """The settings of responses."""

    engine: str = ""
    max_tokens: Count = 0


class Ledger(Part):
    """The teachers of a ledger; their lines are checked wherever a manifest is read."""

    teachers: dict[str, Any] = Field(default_factory=dict)


class Responses(Part):
    """The manifest of responses."""

    metrics: Answered
    settings: GenerateSettings
    cost: Ledger

    @model_validator(mode="after")
    def _same_teachers(self) -> "Responses":
        """Refuse a teacher that was paid and not measured."""
        for name in self.cost.teachers.keys() - self.metrics.teachers.keys():
            raise ValueError(f"`{name}` has a cost and no measurements")
        return self


class Sweep(Part):
    """What each alpha would have chosen."""

    prompts: Count
    measures: dict[Alpha, dict[str, Number]]
    allocation: dict[Alpha, dict[str, Share]]

    @model_validator(mode="after")
    def _table(self) -> "Sweep":
        """Refuse a table in which a cell is missing."""
        measure = next((name for name in LEARNABILITY if name in self.measures.get("0", {})), None)
        needed = {"quality_raw", "effective_teachers", measure}
        if [*self.measures] != [*self.allocation] or any(needed - line.keys() for line in self.measures.values()):
            raise ValueError("quality, learnability, teachers and allocation of some alpha are missing")
        return self


class Rewarded(Part):
    """The measurements of rewards."""

    alpha: Sweep | Empty = Field(default_factory=dict)


class Rewards(Part):
    """The manifest of rewards."""

    metrics: Rewarded


class Trained(Part):
    """The measurements of a student's training."""

    trained_tokens: Count


class TrainedCounts(Part):
    """The counts of a student's training."""

    trained: Count


class Student(Part):
    """The manifest of a student."""

    metrics: Trained
    counts: TrainedCounts


class Task(Part):
    """The measurements of one task."""

    num_items: Count
    too_long: Count = 0


class EvaluateSettings(Part):
    """The settings of an evaluation."""

    max_tokens: Count


class Evaluation(Part):
    """The manifest of an evaluation."""

    metrics: dict[str, Task]
    settings: EvaluateSettings


BY_KIND: dict[str, type[Part]] = {
    "prompts": Prompts,
    "assignments": Assignments,
    "responses": Responses,
    "rewards": Rewards,
    "router": Router,
    "student": Student,
    "evaluation": Evaluation,
}


def check_measured(stored: Stored) -> Stored:
    """Return an artifact whose manifest holds what is read of its kind.

    Raises:
        DamagedArtifact: it does not; names the first fault.
    """
    shape = BY_KIND.get(stored.kind)
    try:
        if shape is not None:
            shape.model_validate(stored.manifest.model_dump(include=set(shape.model_fields)))
    except ValidationError as error:
        tag_file = f"the file of the tag in {stored.path.parent.parent / 'refs'}"
        raise DamagedArtifact(
            f"{stored.ref}: its {MANIFEST} does not hold what is read of a `{stored.kind}` ({fault_of(error)}), found "
            f"in {stored.path}; {remedy(stored.ref, tag_file)}"
        ) from None
    return stored


def sound(artifacts: Iterable[Stored]) -> list[Stored]:
    """Return the artifacts whose manifests hold what is read of their kinds: where others may help, none must fail."""
    found = []
    for item in artifacts:
        with contextlib.suppress(DamagedArtifact):
            found.append(check_measured(item))
    return found
