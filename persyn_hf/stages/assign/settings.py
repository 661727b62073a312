"""The settings of `assign`."""

from typing import Literal

from pydantic import Field, model_validator

from persyn_hf.backends.launching.settings import Executor, decider
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.recipe.strategies import KINDS, Budget
from persyn_hf.recipe.strict import Strict


class Settings(Strict):
    """The settings of this stage. Their defaults live here and nowhere else."""

    kind: Literal["all", *KINDS] = Field(  # type: ignore[valid-type]  # the table is also used at run time
        default="all", description="The kind of strategy; all: every teacher."
    )
    splits: tuple[Literal["calibration", "dev", "pool"], ...] | None = Field(
        default=None,
        strict=False,
        description="The splits to assign. Null: calibration and dev with `all`, calibration and pool else.",
    )
    labelling: Calibration | None = Field(
        default=None, description="Of `all`: the cells of the calibration prompts to ask. Null: every one."
    )
    round: int = Field(default=1, ge=1, le=1000, description="The round of labelling, 1 to `labelling.rounds`.")
    alpha: float | None = Field(
        default=None, ge=0, le=1, description="The weight of learnability. Null: the rewards are as `score` made them."
    )
    beta: float = Field(
        default=3.0, ge=0, le=1e12, description="Of `car`: the weight of the student's loss. The paper names none."
    )
    teacher: str | None = Field(
        default=None, description="Of `strong` and `family_strong`: the teacher to take. Null: the rule finds it."
    )
    weights: dict[str, float] | None = Field(
        default=None, description="Of `mix`: the share of each teacher, 0 for those left out. Null is uniform."
    )
    from_teachers: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="Of `reassign`: the teachers that lose their prompts. Null takes the Long-CoT teachers.",
    )
    to_teacher: str | None = Field(
        default=None, description="Of `reassign`: the teacher that gets the prompts of those that lose them."
    )
    per_prompt: int = Field(
        default=1, ge=1, le=1000, description="Of routed kinds: the teachers per routed prompt, best first."
    )
    confidence: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of routed kinds: more than one teacher is asked only where the router is less sure than this. "
        "Null asks everywhere.",
    )
    epsilon: float = Field(
        default=0.05,
        ge=0,
        le=1e12,
        description="Of routed kinds: a reward this close to the best counts as good as it.",
    )
    budget: Budget | None = Field(
        default=None, description="Of routed kinds: the limits on cost and shares. A strategy's own go first."
    )
    device: str = Field(default="auto", description="The device of an `llm` router: auto, cpu, cuda, cuda:1 or mps.")
    accelerate: str | None = Field(
        default=None, description="The config file of `accelerate launch`. An `llm` router scores in its processes."
    )

    executor: Executor | None = Field(
        default=None, description="The cluster on whose nodes an `llm` router scores. Null: on this machine."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.device != "auto" and (other := decider(self)):
            raise ValueError(f"{other} decides on devices, found `device: {self.device}` as well; leave one out")
        if self.budget is not None and self.per_prompt > 1:
            raise ValueError(
                f"a `budget` gives each prompt one teacher, found `per_prompt` {self.per_prompt}; "
                "leave one of them out"
            )
        return self

    @property
    def chosen_splits(self) -> tuple[str, ...]:
        """Return the splits to assign, the default ones where the settings name none."""
        return self.splits or ("calibration", "dev" if self.kind == "all" else "pool")
