"""The contents of a recipe. Unknown keys are errors that name the nearest known key."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from persyn_hf.recipe.roles import Student, Teacher, check_name
from persyn_hf.recipe.strategies import Strategy
from persyn_hf.recipe.strategy_checks import (
    check_budgets,
    check_families,
    check_family,
    check_leaving,
    check_sizes,
    check_strategy,
)
from persyn_hf.recipe.strict import Strict, nearest


STAGES = ("prompts", "assign", "generate", "score", "pair", "train_router", "mix", "train_student", "evaluate")


class Calibration(Strict):
    """The choice of (prompt, teacher) cells of calibration to pay for; dev, which judges, is always answered whole."""

    strategy: Literal["full", "successive_halving", "uncertainty"] = "full"
    share: float | int = Field(default=0.4, gt=0, lt=1)  # share of the cells to pay for; not with `full`
    rounds: int = Field(default=3, ge=2, le=1000)  # each round chooses by the rewards of earlier ones; not with `full`
    # full only: teacher -> number of calibration prompts to ask it, as where one joins by `train_router.extend`
    anchors: dict[str, Annotated[int, Field(ge=2, le=10**12)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        unused = {"share", "rounds"} if self.strategy == "full" else {"anchors"}
        for name in sorted(unused & self.model_fields_set):
            raise ValueError(f"the strategy {self.strategy} knows no `{name}`; leave it out, or take another strategy")
        return self

    @property
    def in_part(self) -> bool:
        """Say whether some cells are left out."""
        return self.strategy != "full" or bool(self.anchors)


class Recipe(Strict):
    """A whole experiment. The sections of the stages stay raw here; each stage's `Settings` reads its own."""

    name: str
    namespace: str = "local"
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    # Each trains a student of its own, which is evaluated; all earlier steps run once, by `seed`. Empty: `seed` alone.
    seeds: tuple[Annotated[int, Field(ge=0, le=2**63 - 1)], ...] = Field(default=(), strict=False)
    version: str | None = None  # tag of all artifacts that the run stores; null: the next free v1, v2, ...
    until: Literal[STAGES] | None = None  # type: ignore[valid-type]  # the last stage to run; null: all
    license: str | None = None  # licence of the prompts, as the Hub writes it
    language: str | None = None
    teachers: tuple[Teacher, ...] = Field(strict=False)
    students: tuple[Student, ...] = Field(strict=False)
    strategies: tuple[Strategy, ...] = Field(default=(), strict=False)
    inputs: dict[str, str] = Field(default_factory=dict)  # artifact kind -> pinned NAMESPACE/NAME@TAG
    calibration: Calibration = Field(default_factory=Calibration)
    prompts: dict[str, Any] = Field(default_factory=dict)
    assign: dict[str, Any] = Field(default_factory=dict)
    generate: dict[str, Any] = Field(default_factory=dict)
    score: dict[str, Any] = Field(default_factory=dict)
    pair: dict[str, Any] = Field(default_factory=dict)
    train_router: dict[str, Any] = Field(default_factory=dict)
    mix: dict[str, Any] = Field(default_factory=dict)
    train_student: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)

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
        return self
