"""The settings of `assign`."""

from typing import Literal

from pydantic import Field, model_validator

from persyn_hf.recipe.recipe import Calibration
from persyn_hf.recipe.strategies import KINDS, Budget
from persyn_hf.recipe.strict import Strict


class Settings(Strict):
    """The settings of this stage. Their defaults live here and nowhere else."""

    kind: Literal["all", *KINDS] = "all"  # type: ignore[valid-type]  # the table is also used at run time
    # Splits to assign; null: calibration and dev with `all`, calibration and pool with other kinds.
    splits: tuple[Literal["calibration", "dev", "pool"], ...] | None = Field(default=None, strict=False)
    labelling: Calibration | None = None  # all: which cells of the calibration prompts to ask; null: every one
    round: int = Field(default=1, ge=1, le=1000)  # labelling: the round, 1 to `labelling.rounds`
    alpha: float | None = Field(default=None, ge=0, le=1)  # weight of learnability; null: as `score` combined them
    beta: float = Field(default=3.0, ge=0, le=1e12)  # car: weight of the student's loss
    teacher: str | None = None  # strong, family_strong: the teacher to take; null: the rule finds it
    weights: dict[str, float] | None = None  # mix: share per teacher, 0 for those left out; null: uniform
    # reassign: the teachers that lose their prompts; null: the Long-CoT teachers
    from_teachers: tuple[str, ...] | None = Field(default=None, strict=False)
    to_teacher: str | None = None  # reassign: the teacher that gets these prompts
    per_prompt: int = Field(default=1, ge=1, le=1000)  # routed kinds: teachers per routed prompt, best first
    # routed kinds: ask more than one teacher only where the router is less sure than this; null: everywhere
    confidence: float | None = Field(default=None, gt=0, le=1)
    # routed kinds: a reward this close to the best counts as good as it
    epsilon: float = Field(default=0.05, ge=0, le=1e12)
    budget: Budget | None = None  # routed kinds: limits on cost and shares
    device: str = "auto"  # of the llm router: auto, cpu, cuda, cuda:1, mps
    accelerate: str | None = None  # config file of `accelerate launch`: an llm router scores in several processes

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.accelerate is not None and self.device != "auto":
            raise ValueError(
                f"the config of `accelerate` decides on devices, found `device: {self.device}` as well; leave one out"
            )
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
