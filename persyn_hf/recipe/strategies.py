"""What a strategy may say, and what each kind of strategy is."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from persyn_hf.recipe.roles import Teacher, _check_name
from persyn_hf.recipe.strict import Strict, nearest


STRATEGY_KINDS = (
    "persyn",
    "oracle",
    "strong",
    "family_strong",
    "mix",
    "car",
    "best_mean_reward",
    "no_learnability",
    "no_quality",
    "reassign",
)


ROUTED_KINDS = ("persyn", "no_learnability", "no_quality")  # those that go by a trained router


# In the name of a strategy that has none of its own.
SUFFIXES = {"alpha": "alpha", "per_prompt": "top", "escalate": "escalate", "confidence": "sure", "budget": "budget"}


class Budget(Strict):
    """What the prompts that a router decides on may take."""

    model_config = ConfigDict(serialize_by_alias=True)

    min: dict[str, float | int] = Field(default_factory=dict)  # least share of these prompts per teacher
    max: dict[str, float | int] = Field(default_factory=dict)  # largest share per teacher
    cost: Literal["generations", "flops", "money"] | None = None  # what `total` and `lambda` count
    total: float | int | None = Field(default=None, gt=0)  # of all these prompts together
    lambda_: float | int = Field(default=0, ge=0, alias="lambda")  # reward given up for one unit of cost

    @model_validator(mode="after")
    def _shares(self) -> "Budget":
        if self.cost is None and (self.total is not None or self.lambda_):
            raise ValueError("`total` and `lambda` need a `cost`, found none; set generations, flops or money")
        for word, shares in (("min", self.min), ("max", self.max)):
            for name, share in shares.items():
                if not 0 <= share <= 1:
                    raise ValueError(f"`{word}` of `{name}` must be a share from 0 to 1, got {share}")
        if sum(self.min.values()) > 1 + 1e-9:
            raise ValueError(f"the shares of `min` must sum to 1 at most, got {sum(self.min.values()):g}; lower one")
        for name in self.min.keys() & self.max.keys():
            if self.min[name] > self.max[name]:
                raise ValueError(f"`min` of `{name}` is {self.min[name]}, above its `max` {self.max[name]}")
        return self


class Strategy(Strict):
    """How prompts of the pool are given to teachers. `persyn` alone may be written for `{kind: persyn}`."""

    kind: Literal[STRATEGY_KINDS]  # type: ignore[valid-type]  # the tuple is also used at run time
    name: str = ""
    router: str | None = None  # router kind; null: that of `train_router.kind`
    alpha: float | int | None = Field(default=None, ge=0, le=1)  # persyn: weight of learnability; null: `score.alpha`
    teacher: str | None = None  # strong, family_strong: named instead of found
    weights: dict[str, float | int] | None = None  # mix: share per teacher; null: uniform
    base: str | None = None  # reassign: name of the strategy whose assignments are changed
    from_teachers: tuple[str, ...] | None = Field(default=None, strict=False)  # reassign; null: the Long-CoT teachers
    to_teacher: str | None = None  # reassign
    per_prompt: int = Field(default=1, ge=1)  # routed kinds: the k best-scored answer, the best reward is kept
    confidence: float | None = Field(default=None, gt=0, le=1)  # more teachers only where the router is less sure
    budget: Budget | None = None  # routed kinds; null: `assign.budget`
    escalate: int = Field(default=0, ge=0)  # routed kinds: up to k more teachers where no answer is right

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, dict) and "kind" in value:
            named = [key for key in SUFFIXES if value.get(key) or (key == "alpha" and value.get(key) is not None)]
            given = {key: "" if key == "budget" else value[key] for key in named}
            more = [f"-{SUFFIXES[key]}{of}" for key, of in given.items()]
            value = {"name": "".join([str(value["kind"]), *more]), **value}
        return value

    _name = field_validator("name")(_check_name)


def _check_strategy(strategy: Strategy, pool: list[str], earlier: list[str]) -> None:
    named = [strategy.teacher, strategy.to_teacher, *(strategy.from_teachers or ()), *(strategy.weights or {})]
    if strategy.budget is not None:
        named += [*strategy.budget.min, *strategy.budget.max]
    for name in named:
        if name is not None and name not in pool:
            raise ValueError(f"strategy `{strategy.name}` names the teacher `{name}`{nearest(name, pool)}")
    if strategy.kind not in ROUTED_KINDS and (strategy.per_prompt > 1 or strategy.escalate or strategy.budget):
        raise ValueError(
            f"strategy `{strategy.name}` of kind {strategy.kind} has no router, and `per_prompt`, `escalate` "
            f"and `budget` go by router scores; leave them out, or use {', '.join(ROUTED_KINDS)}"
        )
    if strategy.alpha is not None and strategy.kind != "persyn":
        raise ValueError(
            f"strategy `{strategy.name}` of kind {strategy.kind} sets `alpha`, which is for persyn; leave it out"
        )
    if strategy.confidence is not None and strategy.per_prompt == 1 and not strategy.escalate:
        raise ValueError(
            f"strategy `{strategy.name}` sets `confidence`, below which a prompt may get more teachers, and "
            "neither `per_prompt` nor `escalate`; set one of them, or leave `confidence` out"
        )
    if strategy.per_prompt > 1 and strategy.escalate:
        raise ValueError(f"strategy `{strategy.name}` sets `per_prompt` and `escalate`; choose one of the two")
    most = strategy.per_prompt + strategy.escalate
    if most > len(pool):
        raise ValueError(
            f"strategy `{strategy.name}` asks for {most} teachers per prompt, the pool holds {len(pool)}; "
            "lower `per_prompt` or `escalate`"
        )
    if strategy.kind == "reassign" and (strategy.base is None or strategy.to_teacher is None):
        raise ValueError(f"strategy `{strategy.name}` of kind reassign needs `base` and `to_teacher`")
    if strategy.base is not None and strategy.base not in earlier:
        raise ValueError(f"strategy `{strategy.name}`: its base `{strategy.base}` must stand before it")


def _check_sizes(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Before anything is paid for: the largest teacher is found once the calibration answers are there."""
    unsized = [teacher.name for teacher in teachers if teacher.params_b is None]
    for strategy in strategies:
        if strategy.kind in ("strong", "family_strong") and strategy.teacher is None and unsized:
            raise ValueError(
                f"strategy `{strategy.name}` finds the strongest teacher by size and `{unsized[0]}` has no "
                "`params_b`; set it for every teacher, or name the strategy's `teacher`"
            )


def _check_family(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Family-Strong leaves out Strong, which it takes to be the largest teacher; a recipe may name another one."""
    sizes = {teacher.name: teacher.params_b or 0 for teacher in teachers}
    named = [s.teacher for s in strategies if s.kind == "strong" and s.teacher is not None]
    smaller = [name for name in named if sizes[name] < max(sizes.values())]
    for strategy in strategies:
        if strategy.kind == "family_strong" and strategy.teacher is None and smaller:
            raise ValueError(
                f"strategy `{strategy.name}` takes the largest teacher for the strongest of all and leaves it out, "
                f"but `strong` names `{smaller[0]}`, a smaller one; name the `teacher` of `{strategy.name}` too"
            )
