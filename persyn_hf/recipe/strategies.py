"""The kinds of strategy: what each one is, what a recipe may say of it, and the checks of what it says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from persyn_hf.recipe.roles import Teacher, check_name
from persyn_hf.recipe.strict import Strict


Shares = dict[str, float]  # teacher -> share of the pool's prompts

BY_ROUTER = frozenset({"router", "per_prompt", "confidence", "budget", "escalate"})  # options that need router scores


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The record of one kind of strategy: all that the rest of persyn must know of it.

    To add a kind, add its record to `KINDS`; a way to choose that is new gets its function in `stages.assign`.
    """

    # How it chooses. router: by a trained router's scores. measured: the best measured reward of each prompt.
    # draw: at random by `weights`. one_teacher: one for all prompts, by the rule that bears this kind's name. change:
    # by changing another strategy's choices.
    chooses: Literal["router", "measured", "draw", "one_teacher", "change"]
    # The answers that it must see before it can choose. nothing: none. calibration: every teacher's to the calibration
    # prompts. pool: every teacher's to the pool as well. base: what its `base` sees. This decides what it costs alone.
    sees: Literal["nothing", "calibration", "pool", "base"]
    needs: Literal["router", "pool_rewards", "rewards", "base"] | None = None  # the input that `assign` must get
    takes: frozenset[str] = frozenset()  # options of `Strategy` that it reads, other than kind and name
    requires: tuple[str, ...] = ()  # options among these that must be set
    alpha: float | None = None  # weight of learnability that it fixes; None: the strategy's own, else the recipe's
    ablates: str = ""  # the part of the reward that it leaves out, for the figure of the ablation
    by_size: bool = False  # it compares teachers by `params_b` where the strategy names no `teacher`
    # Returns the share of the pool that each teacher gets, as far as the recipe alone tells; empty where it does not.
    shares: "Callable[[Strategy, Sequence[Strategy], Sequence[Teacher]], Shares]" = lambda *_: {}


def _of_one_teacher(strategy: "Strategy", _: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    """Give all to the teacher that the strategy names; empty where it names none."""
    return {} if strategy.teacher is None else {strategy.teacher: 1.0}


def _of_strong(strategy: "Strategy", others: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    """Give all to the named or the largest teacher; empty where several are of that size, as quality decides then."""
    sizes = {teacher.name: teacher.params_b or 0 for teacher in teachers}
    largest = [name for name, size in sizes.items() if size == max(sizes.values())]
    return _of_one_teacher(strategy, others, teachers) or ({largest[0]: 1.0} if len(largest) == 1 else {})


def _of_mix(strategy: "Strategy", _: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    """Share by the strategy's weights, which need not sum to 1; evenly where it has none."""
    weights = strategy.weights or {teacher.name: 1.0 for teacher in teachers}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _of_reassign(strategy: "Strategy", others: "Sequence[Strategy]", teachers: Sequence[Teacher]) -> Shares:
    """Take the shares of its base, and give those of the teachers that leave to the one that takes over.

    Example: base shares A 0.5, B 0.3, C 0.2, and B leaves for C: A 0.5, C 0.5.
    """
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


# Option -> its word in the name of a strategy that has none of its own: `persyn-alpha0.7`, `persyn-top3`.
SUFFIXES = {"alpha": "alpha", "per_prompt": "top", "escalate": "escalate", "confidence": "sure", "budget": "budget"}


CostUnit = Literal["generations", "tokens", "flops", "money"]  # answers; generated tokens; FLOPs; the prices' currency


class Budget(Strict):
    """The limits on what the prompts that a router decides on may take."""

    model_config = ConfigDict(serialize_by_alias=True)

    min: dict[str, float | int] = Field(
        default_factory=dict, description="The least share of the routed prompts by teacher, each from 0 to 1."
    )
    max: dict[str, float | int] = Field(
        default_factory=dict, description="The largest share of the routed prompts by teacher, each from 0 to 1."
    )
    cost: CostUnit | None = Field(default=None, description="The unit of `total` and `lambda`. Both need it.")
    total: float | int | None = Field(
        default=None, gt=0, le=1e30, description="The most that all routed prompts may cost together. Null: no limit."
    )
    lambda_: float | int = Field(
        default=0, ge=0, le=1e12, alias="lambda", description="The reward to give up for saving one unit of cost."
    )

    @model_validator(mode="after")
    def _shares(self) -> "Budget":
        if self.cost is None and (self.total is not None or self.lambda_):
            raise ValueError("`total` and `lambda` need a `cost`, found none; set generations, tokens, flops or money")
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
    """The way in which prompts of the pool are given to teachers. The word `persyn` stands for `{kind: persyn}`."""

    kind: Literal[tuple(KINDS)] = Field(  # type: ignore[valid-type]  # the table is also used at run time
        description="The way to choose the teacher of a prompt. `persyn` goes by the router, as the paper does."
    )
    name: str = Field(
        default="", description="The name in all artifacts. Left out, it is made of the kind and the options."
    )
    router: str | None = Field(
        default=None, description="Of routed kinds: the kind of router. Null takes `train_router.kind`."
    )
    alpha: float | int | None = Field(
        default=None, ge=0, le=1, description="Of `persyn`: the weight of learnability. Null takes `score.alpha`."
    )
    teacher: str | None = Field(
        default=None, description="Of `strong` and `family_strong`: the teacher to take. Null: the rule finds it."
    )
    weights: dict[str, float | int] | None = Field(
        default=None, description="Of `mix`: the share of each teacher. They need not sum to 1, and null is uniform."
    )
    base: str | None = Field(
        default=None, description="Of `reassign`: the name of the strategy whose assignments are changed."
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
        default=1,
        ge=1,
        le=1000,
        description="Of routed kinds: the best-scored teachers to ask. The answer with the best reward is kept.",
    )
    confidence: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of routed kinds: more than one teacher is asked only where the router is less sure than this. "
        "Null asks everywhere.",
    )
    budget: Budget | None = Field(
        default=None, description="Of routed kinds: the limits on cost and shares. Null takes `assign.budget`."
    )
    escalate: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Of routed kinds: the further teachers to ask at most, where no answer is right.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, dict) and "kind" in value:
            named = [key for key in SUFFIXES if value.get(key) or (key == "alpha" and value.get(key) is not None)]
            given = {key: "" if key == "budget" else value[key] for key in named}
            suffixes = [f"-{SUFFIXES[key]}{option}" for key, option in given.items()]
            value = {"name": "".join([str(value["kind"]), *suffixes]), **value}
        return value

    _name = field_validator("name")(check_name)


def alpha_of(strategy: Strategy) -> float | None:
    """Return the weight of learnability that a strategy chooses by; None: the recipe's `score.alpha`."""
    fixed = KINDS[strategy.kind].alpha
    return strategy.alpha if fixed is None else fixed


def answers_seen(strategy: Strategy, strategies: Sequence[Strategy]) -> Literal["nothing", "calibration", "pool"]:
    """Return which answers a strategy must see before it can choose; see `Kind.sees`.

    A strategy that changes another's choices sees what that one sees. `strategies` are all of the recipe's.
    """
    sees = KINDS[strategy.kind].sees
    return answers_seen(_base(strategy, strategies), strategies) if sees == "base" else sees


def known_shares(strategy: Strategy, strategies: Sequence[Strategy], teachers: Sequence[Teacher]) -> Shares:
    """Return the share of the pool per teacher that the recipe alone decides; empty where answers decide."""
    return KINDS[strategy.kind].shares(strategy, strategies, teachers)


def _base(strategy: Strategy, strategies: Sequence[Strategy]) -> Strategy:
    """Return the strategy that this one changes; the recipe has checked that there is one."""
    return next(other for other in strategies if other.name == strategy.base)
