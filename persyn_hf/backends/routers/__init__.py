"""Train and load routers, which score every teacher for every prompt. `fit` writes into a folder, `load` reads it.

The cheap kinds are a head (`logistic`, `ridge`, `knn`, `stacking` of the last two, `best_per_topic`) over features of
the prompt (`tfidf` or `embeddings`), or `global_best`, which reads no prompt. A folder holds `router.json` (kind,
teachers in order, knobs) and what its kind needs: a stock transformers model and tokenizer (`llm`), or plain arrays
(safetensors, JSON).
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from persyn_hf.backends.routers.settings import FEATURED, RouterSettings
from persyn_hf.backends.tracking import Tracked
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.assignment import column_means
from persyn_hf.errors import InputError


Conversation = Sequence[Mapping[str, str]]
Advance = Callable[[int], None]
Scale = Literal["reward", "log_odds"]  # of scores; differences of log-odds are those of one teacher being preferred

FILE = "router.json"
NOBODY = Tracked()
MODULES = {
    name: f"persyn_hf.backends.routers.{'featured' if name in FEATURED else name}"
    for name in ("llm", "logistic", "ridge", "knn", "best_per_topic", "stacking", "global_best", "extended")
}


class Labelled(NamedTuple):
    """The conversations and their measured rewards (num_prompts, num_teachers), NaN where a cell is missing.

    `quality` and `learnability` (num_prompts, num_teachers) are what the rewards were combined from, for `two_head`.
    `preferences` (num_prompts, n, n) are comparisons without rewards, for `llm`; the rewards are then the shares of
    comparisons that were won. `prior` (num_prompts, num_teachers) is what is known of rewards without having measured
    them, for `stacking`.
    """

    conversations: Sequence[Conversation]
    rewards: FloatArray
    quality: FloatArray | None = None
    learnability: FloatArray | None = None
    preferences: FloatArray | None = None
    prior: FloatArray | None = None

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
    tracked: Tracked = NOBODY,
) -> dict[str, Any]:
    """Train a router of `settings.kind`, not `auto`, into `folder` (made if needed) and return its training record.

    `validation` chooses the epoch (llm), the regularisation, or the number of neighbours or topics. Where it is empty,
    the last epoch is taken, or the middle one of the values. The cheap kinds put a teacher without any reward last.
    `advance` gets the number of epochs that were done (llm), else 1 at the end; `tracked` follows those of llm. The
    record is plain JSON, and the same for the same input and seed. Raises `InputError` or `RecipeError` where data or
    settings do not allow the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(MODULES[settings.kind])
    own = {"tracked": tracked} if settings.kind == "llm" else {}
    record: dict[str, Any] = module.fit(settings, tuple(teachers), train, validation, folder, seed, advance, **own)
    return record


def describe(folder: Path, settings: RouterSettings, teachers: Sequence[str], scale: Scale, **own: Any) -> None:
    """Write `router.json`, which tells `load` what the rest of the folder is."""
    # Model folders are paths, which are no one else's business; the manifest names them by their content.
    paths = {"backbone", "backbone_revision", "encoder", "encoder_revision", "accelerate", "executor"}
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
