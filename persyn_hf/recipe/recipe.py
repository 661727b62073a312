"""The contents of a recipe. Unknown keys are errors that name the nearest known key."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from persyn_hf.recipe.roles import REF, Student, Teacher, check_name
from persyn_hf.recipe.strategies import CostUnit, Strategy
from persyn_hf.recipe.strategy_checks import (
    check_budgets,
    check_families,
    check_family,
    check_leaving,
    check_sizes,
    check_strategy,
    check_unit,
)
from persyn_hf.recipe.strict import Strict, nearest


STAGES = ("prompts", "assign", "generate", "score", "pair", "train_router", "mix", "train_student", "evaluate")


class CalibrationBudget(Strict):
    """The most that the answers to calibration prompts may cost, all rounds together."""

    cost: CostUnit = Field(
        description="The unit: generations (answers), tokens (generated ones), flops, or money (the teachers' prices)."
    )
    total: float | int = Field(
        gt=0,
        le=1e30,
        description="The number of units. The first round asks every teacher ten prompts, whatever that costs.",
    )
    covers_dev: bool = Field(
        default=False, description="The answers to dev prompts are in it, too: calibration gets what they leave."
    )


class Calibration(Strict):
    """The choice of (prompt, teacher) cells of calibration to pay for; dev, which judges, is always answered whole."""

    strategy: Literal["full", "whole_prompts", "successive_halving", "uncertainty"] = Field(
        default="full", description="The cells to pay for: all of them, as in the paper, or those that a rule chooses."
    )
    share: float | int = Field(
        default=0.4, gt=0, lt=1, description="The share of the cells to pay for. It has no meaning with `full`."
    )
    budget: CalibrationBudget | None = Field(
        default=None,
        description="What may be paid for, in place of `share`. The first round measures what each teacher's answers "
        "cost.",
    )
    rounds: int = Field(
        default=3,
        ge=2,
        le=1000,
        description="The rounds, each of which chooses by the rewards of earlier ones. Without meaning with `full`.",
    )
    stop: Literal["never", "gain"] = Field(
        default="never",
        description="What ends calibration before all is spent. gain: a further cell would bring less than `price`.",
    )
    price: float | int = Field(
        default=0.05,
        gt=0,
        le=1e12,
        description="With `stop: gain`: the reward, summed over the pool, that a further cell must be able to bring.",
    )
    prior: str | None = Field(
        default=None,
        description="Rewards that exist already, NAMESPACE/NAME@TAG or a file (`./quality.csv`), that count as "
        "observations until data overrule them. `stacking` learns from them, too.",
    )
    anchors: dict[str, Annotated[int, Field(ge=2, le=10**12)]] = Field(
        default_factory=dict,
        description="With `full` only: the number of calibration prompts to ask a teacher, by teacher. "
        "A teacher that joins by `train_router.extend` needs no more.",
    )

    @field_validator("prior", mode="before")
    @classmethod
    def _is_a_prior(cls, value: Any) -> Any:
        if value is None or (isinstance(value, str) and (REF.fullmatch(value) or value.startswith("/"))):
            return value
        raise ValueError(f"must name rewards, NAMESPACE/NAME@TAG, or a file, as in ./quality.csv, got {value!r:.100}")

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        unused = {"share", "budget", "rounds", "stop", "price", "prior"} if self.strategy == "full" else {"anchors"}
        for name in sorted(unused & self.model_fields_set):
            raise ValueError(f"the strategy {self.strategy} knows no `{name}`; leave it out, or take another strategy")
        if self.budget is not None and "share" in self.model_fields_set:
            raise ValueError("`share` and `budget` both say how much is paid for; leave one of them out")
        if self.stop == "never" and "price" in self.model_fields_set:
            raise ValueError("`price` is what ends calibration with `stop: gain`; set that, or leave `price` out")
        return self

    @property
    def prior_input(self) -> dict[str, str]:
        """Return the input of steps that read the prior; empty: there is no prior, or it is a file."""
        return {} if self.prior is None or self.prior.startswith("/") else {"prior": self.prior}

    @property
    def in_part(self) -> bool:
        """Say whether some cells are left out."""
        return self.strategy != "full" or bool(self.anchors)


class Recipe(Strict):
    """A whole experiment. The sections of the stages stay raw here; each stage's `Settings` reads its own."""

    name: str = Field(description="The name of the experiment. The names of all its artifacts begin with it.")
    namespace: str = Field(
        default="local",
        description="The user or organisation on the Hub that artifacts are named and published under.",
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="The seed of all that is drawn, in every step.")
    seeds: tuple[Annotated[int, Field(ge=0, le=2**63 - 1)], ...] = Field(
        default=(),
        strict=False,
        description="The seeds that train and evaluate a student each; all earlier steps run once, by `seed`. "
        "An empty list stands for `seed` alone.",
    )
    version: str | None = Field(
        default=None, description="The tag of all artifacts that the run stores. Null takes the next free v1, v2, ..."
    )
    until: Literal[STAGES] | None = Field(  # type: ignore[valid-type]
        default=None, description="The last stage to run. Null runs all."
    )
    license: str | None = Field(default=None, description="The licence of the prompts, as the Hub writes it.")
    language: str | None = Field(
        default=None, description="The language of the prompts, as the Hub writes it: en. Cards show it."
    )
    teachers: tuple[Teacher, ...] = Field(strict=False, description="The pool of teachers, two at least.")
    students: tuple[Student, ...] = Field(strict=False, description="The students, one at least.")
    strategies: tuple[Strategy, ...] = Field(
        default=(),
        strict=False,
        description="The ways to choose teachers that are compared, each a word or a mapping.",
    )
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="The artifacts to begin from, NAMESPACE/NAME@TAG by kind. The steps that make them do not run.",
    )
    calibration: Calibration = Field(
        default_factory=Calibration, description="The answers to the calibration prompts that are paid for."
    )
    prompts: dict[str, Any] = Field(default_factory=dict, description="The source of the prompts, and their splits.")
    assign: dict[str, Any] = Field(default_factory=dict, description="The assignment of prompts to teachers.")
    generate: dict[str, Any] = Field(default_factory=dict, description="The way in which teachers are asked.")
    score: dict[str, Any] = Field(
        default_factory=dict, description="The parts of a reward, and the way in which they are measured."
    )
    pair: dict[str, Any] = Field(default_factory=dict, description="The comparisons of teachers that are published.")
    train_router: dict[str, Any] = Field(default_factory=dict, description="The router and its training.")
    mix: dict[str, Any] = Field(default_factory=dict, description="The answers that students are trained on.")
    train_student: dict[str, Any] = Field(
        default_factory=dict, description="The hyper-parameters of the students' training."
    )
    evaluate: dict[str, Any] = Field(
        default_factory=dict, description="The questions that students are asked. Left out, none is evaluated."
    )

    _name = field_validator("name", "namespace")(check_name)
    _version = field_validator("version")(lambda value: value if value is None else check_name(value))

    @property
    def full_name(self) -> str:
        """Return NAMESPACE/NAME: the names of its artifacts begin with it, and the journal books its answers on it."""
        return f"{self.namespace}/{self.name}"

    @property
    def sft_seeds(self) -> dict[str, int]:
        """Return the seeds that students are trained with, by the suffix that each adds to the names of artifacts.

        With one seed the suffix is empty: {"": 0}. With `seeds: [1, 2]` it is {"-seed1": 1, "-seed2": 2}.
        """
        if len(self.seeds) <= 1:
            return {"": next(iter(self.seeds), self.seed)}
        return {f"-seed{seed}": seed for seed in self.seeds}

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for what, names in (
            ("teachers", [t.name for t in self.teachers]),
            ("students", [s.name for s in self.students]),
            ("strategies", [s.name for s in self.strategies]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"two {what} are named `{twice[0]}`; give each a name of its own")
        twice = sorted({str(seed) for seed in self.seeds if self.seeds.count(seed) > 1})
        if twice:
            raise ValueError(f"`seeds` names {twice[0]} twice; a student is trained once per seed, leave one out")
        if len(self.teachers) < 2:
            named = f"only `{self.teachers[0].name}`" if self.teachers else "none"
            raise ValueError(f"`teachers` must name at least two, found {named}; with one there is nothing to route")
        if not self.students:
            raise ValueError("`students` must name at least one")
        pool = [teacher.name for teacher in self.teachers]
        for teacher in self.calibration.anchors:
            if teacher not in pool:
                raise ValueError(f"`calibration.anchors` names the teacher `{teacher}`{nearest(teacher, pool)}")
        for place, strategy in enumerate(self.strategies):
            check_strategy(strategy, pool, [earlier.name for earlier in self.strategies[:place]])
        check_sizes(self.strategies, self.teachers)
        check_family(self.strategies, self.teachers)
        check_families(self.strategies, self.teachers, self.students)
        check_leaving(self.strategies, self.teachers)
        check_budgets(self.strategies, self.teachers)
        if self.calibration.budget is not None:
            check_unit("calibration", self.calibration.budget.cost, self.teachers)
        return self
