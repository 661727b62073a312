"""The settings of routers and of their training."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from persyn_hf.backends.launching.settings import Executor, decider
from persyn_hf.recipe.strict import Strict, nearest


Trained = Literal["global_best", "best_per_topic", "knn", "ridge", "stacking", "logistic", "llm"]  # the simplest first
FEATURED = ("best_per_topic", "knn", "ridge", "stacking", "logistic")  # kinds that are a head over features
Weight = Annotated[float, Field(le=1e12)]
Count = Annotated[int, Field(le=10**9)]


class RouterSettings(Strict):
    """The settings of training a router, with their only defaults. Numbers in a tuple are tried in turn."""

    kind: Literal["auto", Trained] = Field(
        default="llm", description="The kind of router. `llm` is the paper's; `auto` keeps the best of `candidates`."
    )
    candidates: tuple[str | dict[str, Any], ...] = Field(
        default=("global_best", "best_per_topic", "knn", "ridge", "logistic"),
        min_length=1,
        strict=False,
        description="Of `auto`: a kind is tried over tfidf, and over embeddings where there is an `encoder`. "
        "{kind: llm, backbone: ...} goes on top of the other settings and is one candidate.",
    )
    features: Literal["tfidf", "embeddings"] = Field(
        default="tfidf", description="The features of the kinds that are a head over features: words or embeddings."
    )
    encoder: str | None = Field(
        default=None,
        description="Of `embeddings`: the Hub id or folder of a sentence encoder, or of any causal LM (the student).",
    )
    encoder_revision: str | None = Field(
        default=None, description="The commit, tag or branch of the encoder on the Hub. Null takes the newest."
    )
    max_features: int = Field(
        default=50_000, ge=1, le=10_000_000, description="Of `tfidf`: the size of the vocabulary."
    )
    l2: tuple[Weight, ...] = Field(
        default=(1e-2, 1e-3, 1e-4, 1e-5),
        min_length=1,
        strict=False,
        description="Of `logistic`: the weights of the L2 penalty, tried in turn.",
    )
    ridge_l2: tuple[Weight, ...] = Field(
        default=(1.0, 1e-1, 1e-2, 1e-3, 1e-4),
        min_length=1,
        strict=False,
        description="Of `ridge` and `stacking`: the weights of the L2 penalty, tried in turn.",
    )
    neighbours: tuple[Count, ...] = Field(
        default=(5, 10, 20, 50, 100),
        min_length=1,
        strict=False,
        description="Of `knn` and `stacking`: the numbers of nearest prompts whose rewards are averaged, in turn.",
    )
    topics: tuple[Count, ...] = Field(
        default=(2, 4, 8, 16, 32),
        min_length=1,
        strict=False,
        description="Of `best_per_topic`: the numbers of clusters of prompts, tried in turn.",
    )
    objective: Literal["bt", "soft_bt", "two_head"] = Field(
        default="bt",
        description="Of `logistic` and `llm`: bt takes hard labels (the paper), soft_bt sigmoid(gap / tau). "
        "two_head (`llm` only) keeps quality and learnability apart, for `assign.alpha`.",
    )
    tau: float = Field(
        default=0.1,
        gt=0,
        le=1e06,
        description="Of `soft_bt` and `two_head`: the reward gap that counts as preferred with odds e.",
    )
    backbone: str = Field(
        default="Qwen/Qwen2.5-1.5B",
        description="Of `llm`: the Hub id or folder of the model. The default is the paper's.",
    )
    backbone_revision: str | None = Field(
        default=None, description="The commit, tag or branch of the backbone on the Hub. Null takes the newest."
    )
    method: Literal["full", "lora", "frozen"] = Field(
        default="full",
        description="Of `llm`: the weights that are trained. frozen: the head alone, on embeddings made once.",
    )
    lora_rank: int = Field(default=16, ge=1, le=65_536, description="Of `method: lora`: the rank of its matrices.")
    lora_alpha: int = Field(
        default=32,
        ge=1,
        le=1_000_000,
        description="Of `method: lora`: its scale. What it learns counts lora_alpha / lora_rank.",
    )
    epochs: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Of `llm`: the epochs at most. The best one on the validation prompts is kept.",
    )
    patience: int = Field(
        default=3, ge=1, le=10_000, description="Of `llm`: training stops after so many epochs without a better one."
    )
    batch_size: int = Field(default=32, ge=1, le=1_000_000, description="Of `llm`: the prompts per optimiser step.")
    micro_batch_size: int = Field(
        default=8,
        ge=1,
        le=1_000_000,
        description="Of `llm`: the prompts per forward pass. They decide on memory only.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1e30,
        description="Of `llm`: the learning rate of the backbone. Null: 1e-5 for all weights, 1e-4 with LoRA.",
    )
    head_learning_rate: float = Field(
        default=1e-3, gt=0, le=1e30, description="Of `llm`: the learning rate of the new head."
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="Of `llm`: the share of the steps over which the learning rate rises."
    )
    gradient_checkpointing: bool | None = Field(
        default=None, description="Of `llm`: training takes less memory and more time. Null: on a GPU only."
    )
    save_steps: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="Of `llm`: the steps from checkpoint to checkpoint within an epoch. Null makes none there.",
    )
    accelerate: str | None = Field(
        default=None, description="Of `llm`: the config file of `accelerate launch`, to train in several processes."
    )
    executor: Executor | None = Field(
        default=None, description="Of `llm`: the cluster on whose nodes it is trained. Null: on this machine."
    )
    max_length: int = Field(
        default=2048,
        ge=1,
        le=100_000_000,
        description="Of `llm` and `embeddings`: the tokens of a prompt. Longer prompts lose their beginning.",
    )
    device: str = Field(
        default="auto", description="Of `llm` and `embeddings`: the device: auto, cpu, cuda, cuda:1 or mps."
    )

    @field_validator("candidates", mode="before")
    @classmethod
    def _known_kinds(cls, value: Any) -> Any:
        for candidate in value if isinstance(value, (list, tuple)) else ():
            kind = candidate.get("kind") if isinstance(candidate, dict) else candidate
            if kind not in get_args(Trained):
                named = "an entry without `kind`" if kind is None else f"`{kind}`"
                raise ValueError(f"{named} is no candidate{nearest(str(kind), get_args(Trained))}")
        return value

    @model_validator(mode="after")
    def _encoder_is_used(self) -> "RouterSettings":
        if self.features == "embeddings" and self.encoder is None:
            raise ValueError(
                "the features `embeddings` need an `encoder`, got none; name the folder or Hub id of a sentence "
                "encoder, or of the student"
            )
        if self.features == "tfidf" and self.encoder is not None and self.kind in FEATURED:
            raise ValueError(
                "`encoder` is given and the features are `tfidf`, which need none; set `features: embeddings`, or "
                "leave `encoder` out"
            )
        if self.objective == "two_head" and self.kind != "llm":
            raise ValueError(
                f"the objective `two_head` is for the kind `llm`, found {self.kind}; take `soft_bt`, or `kind: llm`"
            )
        where = decider(self)
        if where and (self.method == "frozen" or self.device != "auto"):
            other = "`method: frozen`" if self.method == "frozen" else f"`device: {self.device}`"
            raise ValueError(
                f"{other} and {where} contradict each other; leave one out: {where} says where to train, and a frozen "
                "backbone is read once, in this process"
            )
        for name in ("neighbours", "topics"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"`{name}` must be whole numbers of 1 or more, got {min(getattr(self, name))}")
        return self
