"""The settings of `score`, and what is refused before anything is measured."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from persyn_hf.backends.engines.settings import Connection
from persyn_hf.backends.grading.settings import CommandSettings
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.backends.launching.settings import Executor, decider
from persyn_hf.backends.loading import Dtype
from persyn_hf.core.rewards import NOISE
from persyn_hf.recipe.strict import Strict, nearest
from persyn_hf.schemas import CRITERIA


# Measures of quality that a model judges, and what `persyn plan` calls that model, whose work it does not know.
BY_MODEL = {"reward_model": "the reward model", "command": "the command of `score.quality`"}


Criterion = Literal["correct", "pass_rate", "column", "reward_model", "judge", "command"]  # `schemas.CRITERIA`
HEAVIEST = 1e6  # of weights
Weight = Annotated[float, Field(gt=0, le=HEAVIEST)]
NEEDED = "must be a criterion, or a list that weighs several: [{correct: 0.7}, {judge: 0.3}]"


def read_quality(value: Any) -> str | tuple[dict[str, float], ...]:
    """Read `score.quality`: a criterion, or entries of one criterion with its weight each.

    Raises:
        ValueError: says what is needed.
    """
    if isinstance(value, str):
        _check_criterion(value)
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"{NEEDED}, got {value!r:.100}")
    found: list[str] = []
    for entry in value:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise ValueError(f"an entry must be one criterion with its weight, as in `judge: 0.3`, got {entry!r:.100}")
        ((criterion, weight),) = entry.items()
        check_weight(criterion, weight)
        if criterion in found:
            raise ValueError(f"`{criterion}` is weighed twice; give it one weight")
        found.append(criterion)
    if len(found) < 2:
        instead = f"write `quality: {found[0]}`" if found else "name them"
        raise ValueError(f"a list weighs two criteria or more, found {len(found)}; {instead}")
    return tuple({key: float(weight) for key, weight in entry.items()} for entry in value)


def check_weight(criterion: Any, weight: Any) -> None:
    """Refuse what is no criterion, and a weight that is no number above 0.

    Raises:
        ValueError: says what is needed.
    """
    _check_criterion(criterion)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= HEAVIEST:
        raise ValueError(
            f"the weight of `{criterion}` must be a number above 0 and at most {HEAVIEST:,.0f}, got {weight!r:.100}; "
            "leave out what is not to count"
        )


def _check_criterion(word: Any) -> None:
    if word not in CRITERIA:
        raise ValueError(f"{NEEDED}, got {word!r:.100}{nearest(str(word), CRITERIA)}")


class RewardServer(Connection):
    """A server with vLLM's pooling API, started by `vllm serve MODEL --runner pooling`."""

    place = "score.reward_model.server"


class RewardModel(Strict):
    """A sequence-classification model with one label, of the Skywork kind: its raw score is the quality."""

    model: str | None = Field(
        default=None,
        description="The Hub id or local folder. At a server: the name by which it serves the model.",
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the model on the Hub. Null takes the newest."
    )
    max_length: int = Field(
        default=16384,
        ge=2,
        le=100_000_000,
        description="The tokens of prompt and answer at most. A longer answer stays unjudged.",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="The rows times the longest row of one batch. Null: as suits the device.",
    )
    dtype: Dtype = Field(default="auto", description="The type of the weights. auto: as they are stored.")
    server: RewardServer = Field(
        default_factory=RewardServer,
        description="The server to ask. With urls the model is asked there, and the server decides on the dtype.",
    )


class Settings(Strict):
    """The settings of this stage: what a reward is made of, and how it is measured."""

    quality: Criterion | tuple[dict[Criterion, Weight], ...] = Field(
        default="correct",
        description="The quality of an answer: is the kept one right, the share of right samples, the imported "
        "column, a reward model's score, a judge's, a command's; or weights: [{correct: 0.7}, {judge: 0.3}].",
    )
    learnability: Literal["mean_logprob", "rank_surprisal", "none"] = Field(
        default="mean_logprob",
        description="How well the student can learn an answer: the mean log-probability of a token (the paper's "
        "Eq. 1), or the negative rank-surprisal ratio.",
    )
    normalisation: Literal["minmax", "zscore", "rank", "none"] = Field(
        default="minmax",
        description="The scale of both parts, per prompt across teachers. The paper does not name its own.",
    )
    alpha: float = Field(
        default=0.4, ge=0, le=1, description="The weight of learnability in the reward (Eq. 2). The paper: 0.4."
    )
    failed: Literal["worst", "missing"] = Field(
        default="worst",
        description="A teacher that was asked and did not answer is rewarded as the worst answer, or is left out.",
    )
    near_tie: float = Field(
        default=NOISE,
        ge=0,
        le=1,
        description="The share of a prompt's largest value by which others may differ and still be equal. "
        "1e-6 is float32's precision.",
    )
    in_part: bool = Field(
        default=False,
        description="Cells are missing by design. Their values are predicted, to set the scale of the others.",
    )
    max_length: int = Field(
        default=4096,
        ge=2,
        le=100_000_000,
        description="The tokens of prompt and answer at most, as in the training of the student.",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="The rows times the longest row of one batch. Null: as suits the device.",
    )
    dtype: Dtype = Field(default="auto", description="The type of the student's weights. auto: as they are stored.")
    device: str = Field(default="auto", description="The device that measures: auto, cpu, cuda, cuda:1 or mps.")
    accelerate: str | None = Field(
        default=None, description="The config file of `accelerate launch`. Models measure in its processes."
    )
    executor: Executor | None = Field(
        default=None, description="The cluster on whose nodes models measure. Null: on this machine."
    )
    reward_model: RewardModel = Field(
        default_factory=RewardModel, description="Of `quality: reward_model`: the model that judges."
    )
    judge: JudgeSettings | None = Field(
        default=None, description="Of `quality: judge`: the language model that judges, its rubric and a panel."
    )

    command: CommandSettings = Field(
        default=CommandSettings(), description="Of `quality: command`: the command that gives each answer a number."
    )

    @field_validator("quality", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return read_quality(value)

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.learnability == "none" and self.alpha != 0:
            raise ValueError(
                f"`learnability: none` leaves nothing for alpha {self.alpha} to weigh; set `alpha: 0`, or measure it"
            )
        if self.device != "auto" and (other := decider(self)):
            raise ValueError(
                f"`device: {self.device}` and {other} contradict each other; leave `device` out, {other} says where "
                "to measure"
            )
        for criterion, is_set, section in (
            ("reward_model", self.reward_model.model is not None, "reward_model: {model: ...}"),
            ("command", bool(self.command.run), "command: {run: [...]}"),
            ("judge", self.judge is not None, "judge: {model: ...}"),
        ):
            if (criterion in self.weights) != is_set:
                raise ValueError(
                    f"`quality: {criterion}` and `{section}` belong together, found only one of them; give both, or "
                    "another `quality`"
                )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The criteria of the quality, each with its weight; a single one has 1."""
        if isinstance(self.quality, str):
            return {self.quality: 1.0}
        return {criterion: weight for entry in self.quality for criterion, weight in entry.items()}

    @property
    def is_mixed(self) -> bool:
        """Tell whether the quality is made of several criteria."""
        return not isinstance(self.quality, str)
