"""Make the llm router's model, encode prompts for it, and ask it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persyn_hf.backends.batches import plan_batches
from persyn_hf.backends.chat import render
from persyn_hf.backends.loading import check_template, no_logs, suitable_batch
from persyn_hf.backends.routers import Advance, Conversation, Labelled, RouterSettings, Scale
from persyn_hf.backends.tracking import Tracked
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.conversations import user_text
from persyn_hf.errors import InputError, reason, require


CHUNK = 8192  # conversations that are in memory as tokens at a time
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
    tracked: Tracked


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
        check_template(tokenizer, tokenizer.name_or_path, "take another backbone or router")
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(max_length, limit or max_length)
        self.device = device
        self.alpha = alpha

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        """Score conversations: (num_prompts, num_teachers), columns in `teachers` order."""
        scores = np.zeros((len(conversations), len(self.teachers)))
        for start in range(0, len(conversations), CHUNK):
            tokens = self.encode(conversations[start : start + CHUNK])
            scores[start : start + CHUNK] = self.combine(self.outputs(tokens, advance))
        return scores

    def outputs(self, tokens: Sequence[list[int]], advance: Advance | None = None) -> FloatArray:
        """Compute the logits of the labels: (num_prompts, num_labels)."""
        import torch

        logits = np.zeros((len(tokens), self.model.config.num_labels))
        self.model.eval()
        with torch.inference_mode():
            for batch in plan_batches([len(row) for row in tokens], suitable_batch(self.model)):  # longest first
                logits[batch] = self.forward(self.pad([tokens[row] for row in batch])).cpu().numpy()
                if advance is not None:
                    advance(len(batch))
        return logits

    def combine(self, outputs: FloatArray) -> FloatArray:
        """Combine outputs (num_prompts, num_labels) into scores (num_prompts, num_teachers).

        The outputs of two heads are weighed as rewards are (paper Eq. 2).
        """
        if self.alpha is None:
            return outputs
        quality, learnability = np.split(outputs, 2, axis=1)
        return (1 - self.alpha) * quality + self.alpha * learnability

    def encode(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Encode conversations as token ids; the beginning of a long one is cut."""
        texts = [self.render(messages) for messages in conversations]
        options = {"add_special_tokens": self.tokenizer.chat_template is None, "truncation": True}
        ids = self.tokenizer(texts, max_length=self.max_length, **options)["input_ids"] if texts else []
        return [row or [self.tokenizer.pad_token_id] for row in ids]

    def render(self, messages: Conversation) -> str:
        """Render a prompt as it is scored, in one user message: many templates refuse two of them in a row."""
        text = user_text(messages)
        if self.tokenizer.chat_template is None:
            return text
        return render(self.tokenizer, [{"role": "user", "content": text}])

    def pad(self, tokens: Sequence[list[int]]) -> dict[str, Any]:
        """Pad one batch on the right, as tensors."""
        return dict(self.tokenizer.pad({"input_ids": list(tokens)}, padding_side="right", return_tensors="pt"))

    def forward(self, batch: Mapping[str, Any]) -> Any:
        """Compute the logits of a padded batch, in float32: (batch, num_labels)."""
        with self.autocast():
            return self.model(**{name: tensor.to(self.device) for name, tensor in batch.items()}).logits.float()

    def autocast(self) -> Any:
        """Use the float32 weights in bfloat16 on a GPU, and as they are elsewhere."""
        import torch

        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.type == "cuda")


def new(settings: RouterSettings, teachers: tuple[str, ...], alpha: float | None) -> Llm:
    """Load the backbone with a fresh head. Raises `InputError` where it cannot be loaded or batched."""
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
    """Name the labels: the teachers, or with an `alpha` each of them once for every head."""
    return list(teachers) if alpha is None else [f"{head}: {name}" for head in HEADS for name in teachers]


def device_of(name: str) -> Any:
    """Return the torch device of a name; `auto` is the first GPU, else mps, else the CPU."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)
