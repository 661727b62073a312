"""Router kind `llm`, the paper's: a language model with one label per teacher (PerSyn, section 2.3).

The folder is a stock `AutoModelForSequenceClassification`; `id2label` names the teachers in order, and with the
objective `two_head` all of them twice: `quality: NAME`, then `learnability: NAME`. Read the user turns as one user
message in the chat template, ending with the generation prompt, so the token pooled is always the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.chat import render
from persyn_hf.backends.models import no_logs, suitable_batch
from persyn_hf.backends.routers import Advance, Conversation, Labelled, RouterSettings, Scale, describe
from persyn_hf.backends.scoring import plan_batches
from persyn_hf.core.conversations import user_text
from persyn_hf.core.rewards import FloatArray
from persyn_hf.errors import InputError, reason, require


CHUNK = 8192  # conversations that are tokens in memory at a time
HEADS = ("quality", "learnability")  # of `two_head`


class Llm:
    """A loaded model and its tokenizer, ready to score."""

    scale: Scale = "log_odds"

    def __init__(
        self,
        teachers: tuple[str, ...],
        model: Any,
        tokenizer: Any,
        max_length: int,
        device: Any,
        alpha: float | None = None,  # of the objective `two_head`: weight of learnability
    ) -> None:
        self.teachers = teachers
        self.model = model.to(device)
        self.tokenizer = tokenizer
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(max_length, limit or max_length)
        self.device = device
        self.alpha = alpha

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        found = np.zeros((len(conversations), len(self.teachers)))
        for start in range(0, len(conversations), CHUNK):
            tokens = self.encode(conversations[start : start + CHUNK])
            found[start : start + CHUNK] = self.combine(self.outputs(tokens, advance))
        return found

    def outputs(self, tokens: Sequence[list[int]], advance: Advance | None = None) -> FloatArray:
        """What the labels say (num_prompts, num_labels)."""
        import torch

        found = np.zeros((len(tokens), self.model.config.num_labels))
        self.model.eval()
        with torch.inference_mode():
            for batch in plan_batches([len(row) for row in tokens], suitable_batch(self.model)):  # longest first
                found[batch] = self.forward(self.pad([tokens[row] for row in batch])).cpu().numpy()
                if advance is not None:
                    advance(len(batch))
        return found

    def combine(self, outputs: FloatArray) -> FloatArray:
        """Scores of the teachers; those of two heads are weighed as rewards are (paper Eq. 2)."""
        if self.alpha is None:
            return outputs
        quality, learnability = np.split(outputs, 2, axis=1)
        return (1 - self.alpha) * quality + self.alpha * learnability

    def encode(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Token ids of each conversation; the beginning of a long one is cut."""
        texts = [self.render(messages) for messages in conversations]
        options = {"add_special_tokens": self.tokenizer.chat_template is None, "truncation": True}
        ids = self.tokenizer(texts, max_length=self.max_length, **options)["input_ids"] if texts else []
        return [row or [self.tokenizer.pad_token_id] for row in ids]

    def render(self, messages: Conversation) -> str:
        """The text a prompt is scored by. One user message: many templates refuse two user turns in a row."""
        text = user_text(messages)
        if self.tokenizer.chat_template is None:
            return text
        return render(self.tokenizer, [{"role": "user", "content": text}])

    def pad(self, tokens: Sequence[list[int]]) -> dict[str, Any]:
        """One batch as tensors, padded on the right."""
        return dict(self.tokenizer.pad({"input_ids": list(tokens)}, padding_side="right", return_tensors="pt"))

    def forward(self, batch: Mapping[str, Any]) -> Any:
        """What the labels say of a padded batch, in float32 (batch, num_labels)."""
        with self.autocast():
            return self.model(**{name: tensor.to(self.device) for name, tensor in batch.items()}).logits.float()

    def autocast(self) -> Any:
        """Weights are float32; on a GPU they are used in bfloat16."""
        import torch

        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.type == "cuda")


def fit(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    advance: Advance | None,
) -> dict[str, Any]:
    """Train up to `epochs` over the prompts; what stays in `folder` is the epoch with the least validation regret.

    What a killed run left beside `folder` is taken up again, with the same result on a CPU.
    """
    torch = require("torch", extra="models", feature="the llm router")
    require("transformers", extra="models", feature="the llm router")
    alpha = _implied_alpha(train) if settings.objective == "two_head" else None
    with torch.random.fork_rng():
        if settings.method == "frozen":
            from persyn_hf.backends.routers import llm_frozen

            record = llm_frozen.train(settings, teachers, train, validation, alpha, folder, seed)
        elif settings.accelerate is None:
            from persyn_hf.backends.routers import llm_training

            record = llm_training.train(settings, teachers, train, validation, alpha, folder, seed, advance)
        else:
            from persyn_hf.backends.routers import llm_launched

            record = llm_launched.train(settings, teachers, train, validation, alpha, folder, seed, advance)
    describe(folder, settings, teachers, Llm.scale, alpha=alpha)
    return record if alpha is None else {**record, "alpha": alpha}


def _implied_alpha(labelled: Labelled) -> float:
    """The weight of learnability that the rewards were combined with."""
    quality, learnability = labelled.quality, labelled.learnability
    for name, found in (("quality", quality), ("learnability", learnability)):
        if found is None or np.isnan(found).all():
            raise InputError(
                f"the objective `two_head` needs quality and learnability rewards, found no {name}; measure both, or "
                "take the objective `soft_bt`"
            )
    assert quality is not None and learnability is not None  # for mypy
    gap, gain = learnability - quality, labelled.rewards - quality
    known = ~np.isnan(gap + gain)
    total = float((gap[known] ** 2).sum())
    return round(float((gap * gain)[known].sum()) / total, 6) if total else 0.0


def new(settings: RouterSettings, teachers: tuple[str, ...], alpha: float | None) -> Llm:
    """The backbone with a fresh head."""
    transformers = require("transformers", extra="models", feature="the llm router")
    names = dict(enumerate(labels(teachers, alpha)))
    source: dict[str, Any] = {"revision": settings.backbone_revision or "main", "trust_remote_code": False}
    try:
        with no_logs():
            tokenizer = transformers.AutoTokenizer.from_pretrained(settings.backbone, **source)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                settings.backbone,
                num_labels=len(names),
                id2label=names,
                label2id={name: index for index, name in names.items()},
                dtype="float32",
                use_safetensors=True,
                **source,
            )
    except (OSError, ValueError) as error:
        raise InputError(f"the router backbone `{settings.backbone}` cannot be loaded: {reason(error)}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"the router backbone `{settings.backbone}` has neither a pad nor an end-of-text token, "
            f"one is needed to batch prompts; set `pad_token` in its tokenizer"
        )
    tokenizer.truncation_side = "left"
    tokenizer.padding_side = "right"
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return Llm(teachers, model, tokenizer, settings.max_length, device_of(settings.device), alpha)


def labels(teachers: Sequence[str], alpha: float | None) -> list[str]:
    return list(teachers) if alpha is None else [f"{head}: {name}" for head in HEADS for name in teachers]


def load(folder: Path, saved: Mapping[str, Any], device: str, alpha: float | None = None) -> Llm:
    """`alpha` weighs two heads anew; null: as they were weighed in training."""
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
    found = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if found != labels(teachers, trained):
        raise InputError(
            f"the router in {folder} names the teachers {', '.join(teachers)} in router.json and "
            f"{', '.join(found)} in config.json, they must agree; fetch it again"
        )
    weight = trained if trained is None or alpha is None else alpha
    return Llm(teachers, model, tokenizer, saved["settings"]["max_length"], device_of(device), weight)


def device_of(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)
