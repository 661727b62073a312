"""Routers: a score per teacher for every prompt. `fit` trains one into a folder, `load` reads it back.

A folder holds `router.json` (kind, teachers in order, settings) beside what its kind needs: a stock transformers model
and tokenizer (`llm`), safetensors and a JSON vocabulary (`tfidf`), or nothing more (`global_best`).
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from pydantic import Field

from persyn_hf.core.rewards import FloatArray
from persyn_hf.errors import InputError
from persyn_hf.recipe import Strict


Conversation = Sequence[Mapping[str, str]]
Advance = Callable[[int], None]
Kind = Literal["llm", "tfidf", "global_best"]

FILE = "router.json"
MODULES = {name: f"persyn_hf.backends.routers.{name}" for name in ("llm", "tfidf", "global_best")}


class RouterSettings(Strict):
    """Knobs of training a router. Their defaults live here and nowhere else."""

    kind: Kind = "llm"
    objective: Literal["bt", "soft_bt"] = "bt"  # bt: the paper's hard labels; soft_bt: sigmoid(gap / tau)
    tau: float = Field(default=0.1, gt=0)  # soft_bt: the reward gap that counts as preferred with odds e
    backbone: str = "Qwen/Qwen2.5-1.5B"  # llm: Hub id or folder
    backbone_revision: str | None = None
    epochs: int = Field(default=10, ge=1)  # llm: at most; the best on the validation prompts is kept
    patience: int = Field(default=3, ge=1)  # llm: stop after this many epochs without a better one
    batch_size: int = Field(default=32, ge=1)  # llm: prompts per optimiser step
    micro_batch_size: int = Field(default=8, ge=1)  # llm: prompts per forward pass; memory only
    learning_rate: float = Field(default=1e-5, gt=0)  # llm: backbone
    head_learning_rate: float = Field(default=1e-3, gt=0)  # llm: the new head
    warmup: float = Field(default=0.05, ge=0, lt=1)  # llm: share of the steps
    max_length: int = Field(default=2048, ge=1)  # llm: tokens; longer prompts lose their beginning
    max_features: int = Field(default=50_000, ge=1)  # tfidf: size of the vocabulary
    l2: tuple[float, ...] = Field(default=(1e-2, 1e-3, 1e-4, 1e-5), min_length=1, strict=False)  # tfidf: tried in turn
    device: str = "auto"  # llm: auto, cpu, cuda, cuda:1, mps


class Labelled(NamedTuple):
    """Conversations and their measured rewards (num_prompts, num_teachers), NaN where a cell is missing."""

    conversations: Sequence[Conversation]
    rewards: FloatArray


class Router(Protocol):
    """What `load` returns."""

    teachers: tuple[str, ...]

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        """Scores (num_prompts, num_teachers), columns in `teachers` order; `advance` hears of prompts done."""
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
    """Train a router of `settings.kind` into `folder` (made if needed) and return its training record.

    `validation` chooses the epoch (llm) or the regularisation (tfidf); it may be empty: then the last epoch, the
    middle of `l2`. `advance` hears of epochs done. The record is plain JSON and the same for the same input and seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(MODULES[settings.kind])
    record: dict[str, Any] = module.fit(settings, tuple(teachers), train, validation, folder, seed, advance)
    # The backbone may be a path, which is no one else's business; the manifest names it by its content.
    left_out = {"kind", "device", "backbone", "backbone_revision"}
    knobs = settings.model_dump(mode="json", include=set(RouterSettings.model_fields) - left_out)
    own = {"kind": settings.kind, "teachers": list(teachers), "settings": knobs}
    if settings.kind == "global_best":
        own["scores"] = record["scores"]
    (folder / FILE).write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
    return record


def load(folder: Path, device: str = "auto") -> Router:
    """Read a router from its folder; its `teachers` say which column is whose."""
    try:
        saved = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is no router: no {FILE} in it; give a folder that `train_router` wrote") from None
    except ValueError as error:
        raise InputError(f"{folder / FILE} is not valid JSON ({error}); fetch the router again") from None
    if not isinstance(saved, dict) or saved.get("kind") not in MODULES or not saved.get("teachers"):
        found = saved.get("kind") if isinstance(saved, dict) else saved
        raise InputError(
            f"{folder / FILE} holds the router kind {found!r}, known are {', '.join(MODULES)}; update persyn-hf"
        )
    router: Router = importlib.import_module(MODULES[saved["kind"]]).load(folder, saved, device)
    return router


def merged(train: Labelled, validation: Labelled) -> Labelled:
    """Both sets as one."""
    return Labelled(
        [*train.conversations, *validation.conversations], np.concatenate([train.rewards, validation.rewards])
    )
