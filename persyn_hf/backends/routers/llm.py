"""Router kind `llm`, the paper's: a language model with one label per teacher (PerSyn, section 2.3).

The folder is a stock `AutoModelForSequenceClassification`; `id2label` names the teachers in order, and with the
objective `two_head` all of them twice: `quality: NAME`, then `learnability: NAME`. The user turns are read as one
user message in the chat template, ending with the generation prompt, so the token pooled is always the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.loading import no_logs
from persyn_hf.backends.routers import Advance, Labelled, RouterSettings, describe
from persyn_hf.backends.routers.llm_model import Llm, LlmTraining, device_of, labels
from persyn_hf.backends.tracking import Tracked
from persyn_hf.errors import InputError, reason, require


def fit(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    advance: Advance | None,
    tracked: Tracked,
) -> dict[str, Any]:
    """Train for at most `epochs` epochs; the one with the least validation regret stays in `folder`.

    Returns the training record. What a killed run left next to `folder` is taken up again, with the same result on a
    CPU. Raises `InputError` or `RecipeError` where data, backbone or settings do not allow the training.
    """
    torch = require("torch", extra="models", feature="the llm router")
    require("transformers", extra="models", feature="the llm router")
    alpha = _implied_alpha(train) if settings.objective == "two_head" else None
    training = LlmTraining(settings, teachers, train, validation, alpha, folder, seed, advance, tracked)
    with torch.random.fork_rng():
        if settings.method == "frozen":
            from persyn_hf.backends.routers import llm_frozen

            record = llm_frozen.train(training)
        elif settings.accelerate is None and settings.executor is None:
            from persyn_hf.backends.routers import llm_training

            record = llm_training.train(training)
        else:
            from persyn_hf.backends.routers import llm_launched

            record = llm_launched.train(training)
    describe(folder, settings, teachers, Llm.scale, alpha=alpha)
    return record if alpha is None else {**record, "alpha": alpha}


def _implied_alpha(labelled: Labelled) -> float:
    """Find the weight of learnability that the rewards were combined with, by least squares."""
    quality, learnability = labelled.quality, labelled.learnability
    for name, matrix in (("quality", quality), ("learnability", learnability)):
        if matrix is None or np.isnan(matrix).all():
            raise InputError(
                f"the objective `two_head` needs quality and learnability rewards, found no {name}; measure both, or "
                "take the objective `soft_bt`"
            )
    assert quality is not None and learnability is not None  # for mypy
    gap, gain = learnability - quality, labelled.rewards - quality
    measured = ~np.isnan(gap + gain)
    total = float((gap[measured] ** 2).sum())
    return round(float((gap * gain)[measured].sum()) / total, 6) if total else 0.0


def load(folder: Path, saved: Mapping[str, Any], device: str, alpha: float | None = None) -> Llm:
    """Load an llm router from its folder; `saved` is its `router.json`.

    `alpha` weighs two heads anew (None: as in training). Raises `InputError` where the folder is damaged.
    """
    transformers = require("transformers", extra="models", feature="the llm router")
    try:
        with no_logs():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, dtype="float32", use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        raise InputError(f"the llm router in {folder} cannot be loaded: {reason(error)}; fetch it again") from None
    teachers, trained = tuple(saved["teachers"]), saved.get("alpha")
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if names != labels(teachers, trained):
        raise InputError(
            f"the router in {folder} names the teachers {', '.join(teachers)} in router.json and "
            f"{', '.join(names)} in config.json, they must agree; fetch it again"
        )
    weight = trained if trained is None or alpha is None else alpha
    return Llm(teachers, model, tokenizer, saved["settings"]["max_length"], device_of(device), weight)
