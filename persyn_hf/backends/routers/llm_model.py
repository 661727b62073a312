"""The llm router as a model: how it is made, saved, loaded and asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.backends.batches import plan_batches
from persyn_hf.backends.chat import render
from persyn_hf.backends.loading import no_logs, suitable_batch
from persyn_hf.backends.routers import Advance, Conversation, Labelled, RouterSettings, Scale
from persyn_hf.core.conversations import user_text
from persyn_hf.core.rewards import FloatArray
from persyn_hf.errors import InputError, reason, require


CHUNK = 8192  # conversations that are tokens in memory at a time


HEADS = ("quality", "learnability")  # of `two_head`


class LlmTraining(NamedTuple):
    """One training of an llm router: how, on what, and into which folder."""

    settings: RouterSettings
    teachers: tuple[str, ...]
    train: Labelled
    validation: Labelled  # may be empty
    alpha: float | None  # weight of learnability, which a router with two heads combines them by; None: one head
    folder: Path
    seed: int
    advance: Advance | None  # gets the number of epochs that were done since its last call


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


def device_of(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)
