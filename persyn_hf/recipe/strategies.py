"""What a strategy may say, and what each kind of strategy is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from persyn_hf.recipe.roles import Teacher, check_name
from persyn_hf.recipe.strict import Strict, nearest


Shares = dict[str, float]  # teacher -> share of the pool's prompts

BY_ROUTER = frozenset({"router", "per_prompt", "confidence", "budget", "escalate"})  # what goes by a router's scores


@dataclass(frozen=True, kw_only=True)
class Kind:
    """All that the rest of persyn must know of one kind of strategy.

    To add a kind, add its record to `KINDS`; a way to choose that is new gets its function in `stages.assign`.
    """

    # How it chooses. router: by a trained router's scores. measured: the best measured reward of each prompt.
    # draw: at random by `weights`. one_teacher: one for all prompts, by the rule of this kind's name. change: another
    # strategy's choices, changed.
    chooses: Literal["router", "measured", "draw", "one_teacher", "change"]
    # The answers that it must see before it can choose: none; those of every teacher to the calibration prompts; those
    # of every teacher to the pool, too; as its `base`. This decides what it costs when it is run alone.
    sees: Literal["nothing", "calibration", "pool", "base"]
    needs: Literal["router", "pool_rewards", "rewards", "base"] | None = None  # input of `assign`; null: none
    takes: frozenset[str] = frozenset()  # options of `Strategy`, beside kind and name
    requires: tuple[str, ...] = ()  # those of them that must be set
    alpha: float | None = None  # weight of learnability that it fixes; null: the strategy's own, else the recipe's
    ablates: str = ""  # the part of the reward that it leaves out, for the figure of the ablation
    by_size: bool = False  # it compares teachers by `params_b` where the strategy names no `teacher`
    # The share of the pool that each teacher gets, as far as the recipe alone tells; empty where it does not.
    shares: "Callable[[Strategy, Sequence[Strategy], Sequence[Teacher]], Shares]" = lambda *_: {}


def _of_one_teacher(strategy: "Strategy", _: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    return {} if strategy.teacher is None else {strategy.teacher: 1.0}


def _of_strong(strategy: "Strategy", others: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    """The largest teacher, unless several are of that size: then measured quality decides."""
    sizes = {teacher.name: teacher.params_b or 0 for teacher in teachers}
    largest = [name for name, size in sizes.items() if size == max(sizes.values())]
    return _of_one_teacher(strategy, others, teachers) or ({largest[0]: 1.0} if len(largest) == 1 else {})


def _of_mix(strategy: "Strategy", _: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    weights = strategy.weights or {teacher.name: 1.0 for teacher in teachers}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _of_reassign(strategy: "Strategy", others: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    """The shares of its base, those of the teachers that leave added to the one that takes over."""
    shares = known_shares(_base(strategy, others), others, teachers)
    leaving = strategy.from_teachers or tuple(teacher.name for teacher in teachers if teacher.long_cot)
    moved: Shares = {}
    for name, share in shares.items():
        goes_to = str(strategy.to_teacher) if name in leaving else name
        moved[goes_to] = moved.get(goes_to, 0.0) + share
    return moved


KINDS: dict[str, Kind] = {
    "persyn": Kind(chooses="router", sees="calibration", needs="router", takes=BY_ROUTER | {"alpha"}),
    "oracle": Kind(chooses="measured", sees="pool", needs="pool_rewards"),
    "strong": Kind(
        chooses="one_teacher", sees="nothing", takes=frozenset({"teacher"}), by_size=True, shares=_of_strong
    ),
    "family_strong": Kind(
        chooses="one_teacher", sees="nothing", takes=frozenset({"teacher"}), by_size=True, shares=_of_one_teacher
    ),
    "mix": Kind(chooses="draw", sees="nothing", takes=frozenset({"weights"}), shares=_of_mix),
    "car": Kind(chooses="one_teacher", sees="calibration", needs="rewards"),
    "best_mean_reward": Kind(chooses="one_teacher", sees="calibration", needs="rewards"),
    "no_learnability": Kind(
        chooses="router", sees="calibration", needs="router", takes=BY_ROUTER, alpha=0.0, ablates="learnability"
    ),
    "no_quality": Kind(
        chooses="router", sees="calibration", needs="router", takes=BY_ROUTER, alpha=1.0, ablates="quality"
    ),
    "reassign": Kind(
        chooses="change",
        sees="base",
        needs="base",
        takes=frozenset({"base", "from_teachers", "to_teacher"}),
        requires=("base", "to_teacher"),
        shares=_of_reassign,
    ),
}

ROUTED_KINDS = tuple(name for name, kind in KINDS.items() if kind.chooses == "router")


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

    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]  # the table is also used at run time
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

    _name = field_validator("name")(check_name)


def alpha_of(strategy: Strategy) -> float | None:
    """The weight of learnability that a strategy is to choose by; null: the recipe's `score.alpha`."""
    fixed = KINDS[strategy.kind].alpha
    return strategy.alpha if fixed is None else fixed


def answers_seen(strategy: Strategy, strategies: Sequence[Strategy]) -> Literal["nothing", "calibration", "pool"]:
    """The answers that a strategy must see before it can choose, as `Kind.sees`; one that changes another's choices
    sees what that one does. `strategies` are those of its recipe."""
    sees = KINDS[strategy.kind].sees
    return answers_seen(_base(strategy, strategies), strategies) if sees == "base" else sees


def known_shares(strategy: Strategy, strategies: Sequence[Strategy], teachers: Sequence[Teacher]) -> Shares:
    """The share of the pool per teacher that the recipe alone decides; empty where answers decide."""
    return KINDS[strategy.kind].shares(strategy, strategies, teachers)


def _base(strategy: Strategy, strategies: Sequence[Strategy]) -> Strategy:
    """The strategy that this one changes; the recipe has checked that there is one."""
    return next(other for other in strategies if other.name == strategy.base)


def check_strategy(strategy: Strategy, pool: list[str], earlier: list[str]) -> None:
    named = [strategy.teacher, strategy.to_teacher, *(strategy.from_teachers or ()), *(strategy.weights or {})]
    if strategy.budget is not None:
        named += [*strategy.budget.min, *strategy.budget.max]
    for name in named:
        if name is not None and name not in pool:
            raise ValueError(f"strategy `{strategy.name}` names the teacher `{name}`{nearest(name, pool)}")
    _check_options(strategy)
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
    missing = [key for key in KINDS[strategy.kind].requires if getattr(strategy, key) is None]
    if missing:
        needed = " and ".join(f"`{key}`" for key in KINDS[strategy.kind].requires)
        raise ValueError(f"strategy `{strategy.name}` of kind {strategy.kind} needs {needed}")
    if strategy.weights is not None and not sum(strategy.weights.values()) > 0:
        raise ValueError(f"strategy `{strategy.name}`: its `weights` must sum to more than 0, got {strategy.weights}")
    if strategy.base is not None and strategy.base not in earlier:
        raise ValueError(f"strategy `{strategy.name}`: its base `{strategy.base}` must stand before it")


def _check_options(strategy: Strategy) -> None:
    """Refuse an option that the strategy's kind does not read: it would be left out in silence."""
    options = {key: field for key, field in Strategy.model_fields.items() if key not in ("kind", "name")}
    given = {key for key, field in options.items() if getattr(strategy, key) != field.default}
    unused = sorted(given - KINDS[strategy.kind].takes)
    if unused and unused[0] in BY_ROUTER:
        words = "`per_prompt`, `escalate`, `confidence`, `budget` and `router`"
        raise ValueError(
            f"strategy `{strategy.name}` of kind {strategy.kind} has no router, and {words} go by router scores; "
            f"leave `{unused[0]}` out, or use {', '.join(ROUTED_KINDS)}"
        )
    if unused:
        readers = ", ".join(name for name, kind in KINDS.items() if unused[0] in kind.takes)
        raise ValueError(
            f"strategy `{strategy.name}` of kind {strategy.kind} sets `{unused[0]}`, which is for {readers}; "
            "leave it out"
        )


def check_sizes(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Before anything is paid for: the largest teacher is found once the calibration answers are there."""
    unsized = [teacher.name for teacher in teachers if teacher.params_b is None]
    for strategy in strategies:
        if KINDS[strategy.kind].by_size and strategy.teacher is None and unsized:
            raise ValueError(
                f"strategy `{strategy.name}` finds the strongest teacher by size and `{unsized[0]}` has no "
                "`params_b`; set it for every teacher, or name the strategy's `teacher`"
            )


def check_family(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
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
