"""The shape of a router's manifest, to the depth to which the tables and figures of routers read it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from persyn_hf.formats import METRIC_TITLES
from persyn_hf.report.router_comparison import BARS, COLUMNS, INTERVALS
from persyn_hf.store.manifest import Count


Number = Annotated[float, Field(ge=-1e100, le=1e100)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[str, Field(pattern=r"^[0-9]{1,12}$")]  # a number of prompts as the key of a table


ABSENT: Any = Field(default=None)  # the key may be missing; where it is there, null is no value of it


class Part(BaseModel):
    """The part of a manifest that is read; a key that is not named may hold anything."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Interval(Part):
    """A measurement with its interval; null: not defined."""

    value: Number | None
    low: Number | None
    high: Number | None


class Bin(Part):
    """A bin of predicted preferences."""

    predicted: Share
    share: Share
    pairs: Count


class Reliability(Part):
    """Predicted against true preferences."""

    router: str
    temperature: Number | None
    before: list[Bin]
    after: list[Bin]


class Curve(Part):
    """The gap closed by number of prompts."""

    mean: dict[str, dict[Size, Number | None]]
    lowest: dict[str, dict[Size, Number | None]]
    highest: dict[str, dict[Size, Number | None]]
    steps: dict[str, dict[Size, Number]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _table(self) -> "Curve":
        """Refuse a curve with a hole."""
        sizes = {size for line in self.mean.values() for size in line}
        for table in (self.mean, self.lowest, self.highest):
            if self.mean.keys() != table.keys() or any(line.keys() != sizes for line in table.values()):
                raise ValueError("a router lacks the gap closed at some number of prompts")
        if any(line.keys() < sizes for line in self.steps.values()):
            raise ValueError("a router lacks the steps at some number of prompts")
        return self


class Errors(Part):
    """The calibration errors of a router."""

    error: Number | None = None
    error_at_temperature: Number | None = None


class Compared(Part):
    """A comparison of several routers."""

    best: str
    trainings: Count
    means: dict[str, dict[str, Number | None]]
    calibration: dict[str, Errors]
    reliability: Reliability
    learning_curve: Curve = ABSENT
    gap_closed: dict[str, Interval]
    gain_over_global_best: dict[str, Interval]
    gain_over_best: dict[str, Interval]

    @model_validator(mode="after")
    def _table(self) -> "Compared":
        """Refuse a comparison in which a router or a mean is missing."""
        tables: list[dict[str, Any]] = [self.means, *(getattr(self, name) for name in INTERVALS)]
        rows = {*self.means, *BARS}
        if any(rows - table.keys() for table in tables):
            raise ValueError("a router or a yardstick is missing")
        if any(COLUMNS.keys() - line.keys() or line["regret"] is None for line in self.means.values()):
            raise ValueError("a mean of a router is missing")
        return self


class ByCalibration(Part):
    """The estimate of a router's gain where there are no dev prompts."""

    folds: Count | None
    prompts: Count
    cells: Count
    gain: Interval


class Routed(Part):
    """The measurements of a router, and of what needs no training, on the dev prompts or by cross-fitting."""

    router: dict[str, Interval]
    random: dict[str, Interval]
    global_best: dict[str, Interval]
    oracle: dict[str, Interval]
    training: dict[str, Any] = Field(default_factory=dict)
    comparison: Compared = ABSENT
    by_calibration: ByCalibration = ABSENT

    @model_validator(mode="after")
    def _whole(self) -> "Routed":
        """Refuse a row of the table that lacks a column."""
        for row in (self.router, self.random, self.global_best, self.oracle):
            for name in METRIC_TITLES.keys() - row.keys():
                raise ValueError(f"`{name}` is missing")
        return self


class RouterSettings(Part):
    """The settings of a router."""

    kind: str
    alpha: Number | None


class RouterCounts(Part):
    """The counts of a router."""

    dev_prompts: Count


class Candidate(Part):
    """The time that a candidate took."""

    training_s: Number | None = None
    prompts_per_s: Number | None = None


class RouterCost(Part):
    """The cost of a comparison."""

    candidates: dict[str, Candidate] = ABSENT


class Router(Part):
    """The manifest of a router."""

    metrics: Routed
    settings: RouterSettings
    counts: RouterCounts
    cost: RouterCost

    @model_validator(mode="after")
    def _compared(self) -> "Router":
        """Refuse a choice among several that does not say which was chosen, or what the others took."""
        if self.settings.kind == "auto" and not isinstance(self.metrics.training.get("chosen"), str):
            raise ValueError("`metrics.training.chosen` is missing")
        if self.metrics.comparison is not None and self.cost.candidates is None:
            raise ValueError("`cost.candidates` is missing")
        return self
