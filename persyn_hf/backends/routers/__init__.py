"""Train and load routers, which score every teacher for every prompt. `fit` writes into a folder, `load` reads it.

The cheap kinds are a head (`logistic`, `ridge`, `knn`, `best_per_topic`) over features of the prompt (`tfidf` or
`embeddings`), or `global_best`, which reads no prompt. A folder holds `router.json` (kind, teachers in order, knobs)
and what its kind needs: a stock transformers model and tokenizer (`llm`), or plain arrays (safetensors, JSON).
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.assignment import column_means
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import Strict, nearest


Conversation = Sequence[Mapping[str, str]]
Advance = Callable[[int], None]
Trained = Literal["global_best", "best_per_topic", "knn", "ridge", "logistic", "llm"]  # the simplest first
Scale = Literal["reward", "log_odds"]  # of scores; differences of log-odds are those of one teacher being preferred

FILE = "router.json"
FEATURED = ("best_per_topic", "knn", "ridge", "logistic")  # kinds that are a head over features
MODULES = {
    name: f"persyn_hf.backends.routers.{'featured' if name in FEATURED else name}"
    for name in ("llm", "logistic", "ridge", "knn", "best_per_topic", "global_best", "extended")
}


Weight = Annotated[float, Field(le=1e12)]
Count = Annotated[int, Field(le=10**9)]


class RouterSettings(Strict):
    """The settings of training a router, with their only defaults. Numbers in a tuple are tried in turn."""

    kind: Literal["auto", Trained] = "llm"
    # auto: a kind alone is tried over tfidf, and over embeddings too where there is an `encoder`; settings, like
    # {kind: llm, backbone: ...}, go on top of the others here and are one candidate
    candidates: tuple[str | dict[str, Any], ...] = Field(
        default=("global_best", "best_per_topic", "knn", "ridge", "logistic"), min_length=1, strict=False
    )
    features: Literal["tfidf", "embeddings"] = "tfidf"  # of the kinds that are a head over features
    encoder: str | None = None  # embeddings: Hub id or folder of a sentence encoder, or of any causal LM (the student)
    encoder_revision: str | None = None
    max_features: int = Field(default=50_000, ge=1, le=10_000_000)  # tfidf: size of the vocabulary
    l2: tuple[Weight, ...] = Field(default=(1e-2, 1e-3, 1e-4, 1e-5), min_length=1, strict=False)  # logistic
    ridge_l2: tuple[Weight, ...] = Field(default=(1.0, 1e-1, 1e-2, 1e-3, 1e-4), min_length=1, strict=False)  # ridge
    neighbours: tuple[Count, ...] = Field(default=(5, 10, 20, 50, 100), min_length=1, strict=False)  # knn
    topics: tuple[Count, ...] = Field(default=(2, 4, 8, 16, 32), min_length=1, strict=False)  # best_per_topic
    # logistic, llm; bt: hard labels (paper); soft_bt: sigmoid(gap / tau); two_head: that for quality and learnability
    # apart, so that `assign.alpha` can weigh them anew (llm only)
    objective: Literal["bt", "soft_bt", "two_head"] = "bt"
    # soft_bt, two_head: the reward gap that counts as preferred with odds e
    tau: float = Field(default=0.1, gt=0, le=1e06)
    backbone: str = "Qwen/Qwen2.5-1.5B"  # llm: Hub id or folder
    backbone_revision: str | None = None
    method: Literal["full", "lora", "frozen"] = "full"  # llm; frozen: the head alone, on embeddings made once
    lora_rank: int = Field(default=16, ge=1, le=65_536)
    lora_alpha: int = Field(default=32, ge=1, le=1_000_000)
    epochs: int = Field(default=10, ge=1, le=10_000)  # llm: at most; the best on the validation prompts is kept
    patience: int = Field(default=3, ge=1, le=10_000)  # llm: stop after this many epochs without a better one
    batch_size: int = Field(default=32, ge=1, le=1_000_000)  # llm: prompts per optimiser step
    micro_batch_size: int = Field(default=8, ge=1, le=1_000_000)  # llm: prompts per forward pass; memory only
    # llm: backbone; null: 1e-5 in full, 1e-4 with LoRA
    learning_rate: float | None = Field(default=None, gt=0, le=1e30)
    head_learning_rate: float = Field(default=1e-3, gt=0, le=1e30)  # llm: the new head
    warmup: float = Field(default=0.05, ge=0, lt=1)  # llm: share of the steps
    gradient_checkpointing: bool | None = None  # llm; null: on a GPU only
    # llm: from checkpoint to checkpoint within an epoch; null: none
    save_steps: int | None = Field(default=None, ge=1, le=10**9)
    accelerate: str | None = None  # llm: config file of `accelerate launch`, to train in several processes
    # llm, embeddings: tokens; longer prompts lose their beginning
    max_length: int = Field(default=2048, ge=1, le=100_000_000)
    device: str = "auto"  # llm, embeddings: auto, cpu, cuda, cuda:1, mps

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
        if self.accelerate is not None and (self.method == "frozen" or self.device != "auto"):
            other = "`method: frozen`" if self.method == "frozen" else f"`device: {self.device}`"
            raise ValueError(
                f"{other} and `accelerate` contradict each other; leave one out: the config of `accelerate` says "
                "where to train, and a frozen backbone is read once, in this process"
            )
        for name in ("neighbours", "topics"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"`{name}` must be whole numbers of 1 or more, got {min(getattr(self, name))}")
        return self


class Labelled(NamedTuple):
    """The conversations and their measured rewards (num_prompts, num_teachers), NaN where a cell is missing.

    `quality` and `learnability` (num_prompts, num_teachers) are what the rewards were combined from, for `two_head`.
    `preferences` (num_prompts, n, n) are comparisons without rewards, for `llm`; the rewards are then the shares of
    comparisons that were won.
    """

    conversations: Sequence[Conversation]
    rewards: FloatArray
    quality: FloatArray | None = None
    learnability: FloatArray | None = None
    preferences: FloatArray | None = None

    def take(self, rows: Sequence[int]) -> "Labelled":
        """Select some of the prompts, in the order given."""
        matrices: list[Any] = [None if matrix is None else matrix[list(rows)] for matrix in self[1:]]
        return Labelled([self.conversations[row] for row in rows], *matrices)


class Router(Protocol):
    """The interface of a trained router, as `load` returns it."""

    teachers: tuple[str, ...]
    scale: Scale

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        """Score conversations: (num_prompts, num_teachers), columns in `teachers` order.

        `advance` gets the number of prompts that were scored since its last call.
        """
        ...


def fit(
    settings: RouterSettings,
    teachers: Sequence[str],
    train: Labelled,
    validation: Labelled,
    folder: Path,
    *,
    seed: int,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Train a router of `settings.kind`, not `auto`, into `folder` (made if needed) and return its training record.

    `validation` chooses the epoch (llm), the regularisation, or the number of neighbours or topics. Where it is empty,
    the last epoch is taken, or the middle one of the values. The cheap kinds put a teacher without any reward last.
    `advance` gets the number of epochs that were done (llm), else 1 at the end. The record is plain JSON, and the same
    for the same input and seed. Raises `InputError` or `RecipeError` where data or settings do not allow the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(MODULES[settings.kind])
    record: dict[str, Any] = module.fit(settings, tuple(teachers), train, validation, folder, seed, advance)
    return record


def describe(folder: Path, settings: RouterSettings, teachers: Sequence[str], scale: Scale, **own: Any) -> None:
    """Write `router.json`, which tells `load` what the rest of the folder is."""
    # Model folders are paths, which are no one else's business; the manifest names them by their content.
    paths = {"backbone", "backbone_revision", "encoder", "encoder_revision", "accelerate"}
    left_out = {"kind", "device", "candidates", *paths}
    knobs = settings.model_dump(mode="json", include=set(RouterSettings.model_fields) - left_out)
    saved = {"kind": settings.kind, "scale": scale, "teachers": list(teachers), "settings": knobs, **own}
    (folder / FILE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, device: str = "auto", alpha: float | None = None) -> Router:
    """Read a router from its folder; its `teachers` name the columns of its scores.

    `alpha` weighs the heads of `two_head` anew (None: as in training); in other routers it is built in. Raises
    `InputError` where the folder holds no router that this version knows.
    """
    try:
        saved = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is no router: no {FILE} in it; give a folder that `train_router` wrote") from None
    except ValueError as error:
        raise InputError(f"{folder / FILE} is not valid JSON ({error}); fetch the router again") from None
    if not isinstance(saved, dict) or saved.get("kind") not in MODULES or not saved.get("teachers"):
        kind = saved.get("kind") if isinstance(saved, dict) else saved
        raise InputError(
            f"{folder / FILE} holds the router kind {kind!r}, known are {', '.join(MODULES)}; update persyn-hf"
        )
    module = importlib.import_module(MODULES[saved["kind"]])
    weighed = {} if saved.get("alpha") is None else {"alpha": alpha}
    router: Router = module.load(folder, saved, device, **weighed)
    return router


def merged(train: Labelled, validation: Labelled) -> Labelled:
    """Join two sets of prompts into one."""
    both = zip(train[1:], validation[1:], strict=True)
    matrices: list[Any] = [None if first is None else np.concatenate([first, second]) for first, second in both]
    return Labelled([*train.conversations, *validation.conversations], *matrices)


def teacher_means(rewards: FloatArray) -> FloatArray:
    """Compute each teacher's mean measured reward (n,); one that was never measured gets less than any reward."""
    means = column_means(rewards)
    return np.where(np.isnan(means), np.nanmin(rewards) - 1.0, means)
