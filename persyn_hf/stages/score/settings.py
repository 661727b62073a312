"""The settings of `score`, and what is refused before anything is measured."""

from typing import Literal

from pydantic import Field, model_validator

from persyn_hf.backends.engines.settings import Connection
from persyn_hf.backends.loading import Dtype
from persyn_hf.core.rewards import NOISE
from persyn_hf.recipe.strict import Strict


# Measures of quality that a model judges, and what `persyn plan` calls that model, whose work it does not know.
BY_MODEL = {"reward_model": "the reward model"}


class RewardServer(Connection):
    """A server with vLLM's pooling API, started by `vllm serve MODEL --runner pooling`."""

    place = "score.reward_model.server"


class RewardModel(Strict):
    """A sequence-classification model with one label, of the Skywork kind: its raw score is the quality."""

    model: str | None = None  # Hub id or local folder; at a server: the name by which it serves the model
    revision: str | None = None
    # tokens of prompt and answer; a longer answer stays unjudged
    max_length: int = Field(default=16384, ge=2, le=100_000_000)
    # rows x longest row of one batch; null: as suits the device
    batch_tokens: int | None = Field(default=None, ge=1, le=10**9)
    dtype: Dtype = "auto"
    # With urls the model is asked there, and the server decides on the dtype.
    server: RewardServer = Field(default_factory=RewardServer)


class Settings(Strict):
    """The settings of this stage: what a reward is made of, and how it is measured."""

    quality: Literal["correct", "pass_rate", "column", "reward_model"] = "correct"
    learnability: Literal["mean_logprob", "rank_surprisal", "none"] = "mean_logprob"
    normalisation: Literal["minmax", "zscore", "rank", "none"] = "minmax"
    alpha: float = Field(default=0.4, ge=0, le=1)  # weight of learnability, Eq. 2; the paper's choice
    # a teacher that was asked and did not answer: rewarded as the worst answer (worst), or left out (missing)
    failed: Literal["worst", "missing"] = "worst"
    # share of a prompt's largest value by which others may differ and still be equal; 1e-6 is float32's precision
    near_tie: float = Field(default=NOISE, ge=0, le=1)
    in_part: bool = False  # cells are missing by design; their values are predicted, to set the scale of the others
    # tokens of prompt and response, as in student training
    max_length: int = Field(default=4096, ge=2, le=100_000_000)
    # rows x longest row of one batch; null: as suits the device
    batch_tokens: int | None = Field(default=None, ge=1, le=10**9)
    dtype: Dtype = "auto"
    device: str = "auto"
    accelerate: str | None = None  # config file of `accelerate launch`: models measure in several processes
    reward_model: RewardModel = Field(default_factory=RewardModel)

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.learnability == "none" and self.alpha != 0:
            raise ValueError(
                f"`learnability: none` leaves nothing for alpha {self.alpha} to weigh; set `alpha: 0`, or measure it"
            )
        if self.accelerate is not None and self.device != "auto":
            raise ValueError(
                f"`device: {self.device}` and `accelerate` contradict each other; leave `device` out, the config of "
                "`accelerate` says where to measure"
            )
        if (self.quality == "reward_model") != (self.reward_model.model is not None):
            raise ValueError(
                "`quality: reward_model` and `reward_model: {model: ...}` belong together, found only one of them; "
                "give both, or another `quality`"
            )
        return self
