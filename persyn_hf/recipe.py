"""What a recipe may say. Unknown keys are errors that name the nearest known key."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from persyn_hf.strict import Strict, nearest


NAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")

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

STAGES = ("prompts", "assign", "generate", "score", "pair", "train_router", "mix", "train_student", "evaluate")


def _check_name(value: str) -> str:
    if not NAME.match(value):
        raise ValueError("must be letters, digits, `.`, `_` or `-`, at most 64 characters")
    return value


class Price(Strict):
    """What a teacher costs, in any one currency."""

    prompt: float | int = Field(default=0, ge=0)  # per million prompt tokens
    completion: float | int = Field(default=0, ge=0)  # per million generated tokens
    gpu_hour: float | int = Field(default=0, ge=0)  # per GPU and hour


class Teacher(Strict):
    """One teacher of the pool."""

    name: str
    model: str | None = None  # Hub id or local folder; null: its responses are imported
    revision: str | None = None
    family: str = "unknown"
    params_b: float | int | None = Field(default=None, gt=0)  # billions of active parameters
    long_cot: bool = False
    samples: int | None = Field(default=None, ge=1)  # overrides `generate.samples`
    system_prompt: str | None = None
    engine: Literal["transformers", "server", "vllm"] | None = None  # overrides `generate.engine`
    server: dict[str, Any] = Field(default_factory=dict)  # on top of `generate.server`
    vllm: dict[str, Any] = Field(default_factory=dict)  # on top of `generate.vllm`
    price: Price | None = None
    license: str | None = None  # of its answers, as the Hub writes it

    _name = field_validator("name")(_check_name)


class Student(Strict):
    """One student to be trained."""

    name: str
    model: str | None = None  # Hub id or local folder; null: neither scored nor trained, so quality alone decides
    revision: str | None = None
    family: str = "unknown"
    params_b: float | int | None = Field(default=None, gt=0)  # billions of parameters, for what `persyn plan` expects
    chat_template: str | None = None  # Jinja file, for a base student that has none
    license: str | None = None  # of its weights, as the Hub writes it

    _name = field_validator("name")(_check_name)


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


class Calibration(Strict):
    """Which (prompt, teacher) cells of the calibration prompts are paid for; dev, which judges, always is whole."""

    strategy: Literal["full", "successive_halving", "uncertainty"] = "full"
    share: float | int = Field(default=0.4, gt=0, lt=1)  # of the cells; not of `full`
    rounds: int = Field(default=3, ge=2)  # each chooses by the rewards of those before; not of `full`
    # full: of these teachers only so many calibration prompts are asked, as where one joins by `train_router.extend`
    anchors: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        unused = {"share", "rounds"} if self.strategy == "full" else {"anchors"}
        for name in sorted(unused & self.model_fields_set):
            raise ValueError(f"the strategy {self.strategy} knows no `{name}`; leave it out, or take another strategy")
        return self

    @property
    def in_part(self) -> bool:
        """Whether some cells are left out."""
        return self.strategy != "full" or bool(self.anchors)


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


class Recipe(Strict):
    """A whole experiment. The sections of the stages stay raw here; each stage's `Settings` reads its own."""

    name: str
    namespace: str = "local"
    seed: int = Field(default=0, ge=0)
    # One SFT each, with all that depends on it; everything before is made once, by `seed`. Empty: `seed` alone.
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), strict=False)
    version: str | None = None  # tag of everything that the run emits; null: the next free v1, v2, ...
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

    _name = field_validator("name", "namespace")(_check_name)

    @property
    def full_name(self) -> str:
        """NAMESPACE/NAME: in front of its artifacts' names, and who pays in the journal."""
        return f"{self.namespace}/{self.name}"

    @property
    def sft_seeds(self) -> dict[str, int]:
        """The seeds that students are trained with, by what they add to the name of a student's artifacts."""
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
            found = f"only `{self.teachers[0].name}`" if self.teachers else "none"
            raise ValueError(f"`teachers` must name at least two, found {found}; with one there is nothing to route")
        if not self.students:
            raise ValueError("`students` must name at least one")
        pool = [teacher.name for teacher in self.teachers]
        for teacher in self.calibration.anchors:
            if teacher not in pool:
                raise ValueError(f"`calibration.anchors` names the teacher `{teacher}`{nearest(teacher, pool)}")
        for place, strategy in enumerate(self.strategies):
            _check_strategy(strategy, pool, [earlier.name for earlier in self.strategies[:place]])
        _check_sizes(self.strategies, self.teachers)
        _check_family(self.strategies, self.teachers)
        return self
