"""Router kind `llm`, the paper's: a language model with one label per teacher (PerSyn, section 2.3).

The folder is a stock `AutoModelForSequenceClassification`; `id2label` names the teachers in order. Read the user turns
as one user message in the chat template, ending with the generation prompt, so the token pooled is always the same.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.chat import no_bars
from persyn_hf.backends.routers import Advance, Conversation, Labelled, RouterSettings
from persyn_hf.core.conversations import user_text
from persyn_hf.core.metrics import regret
from persyn_hf.core.rewards import FloatArray
from persyn_hf.errors import InputError, RecipeError, require


CHUNK = 8192  # conversations tokenised at a time


class Llm:
    """A loaded model and its tokenizer, ready to score."""

    def __init__(
        self, teachers: tuple[str, ...], model: Any, tokenizer: Any, max_length: int, batch_size: int, device: Any
    ) -> None:
        self.teachers = teachers
        self.model = model.to(device)
        self.tokenizer = tokenizer
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(max_length, limit or max_length)
        self.batch_size = batch_size
        self.device = device

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        import torch

        found = np.zeros((len(conversations), len(self.teachers)))
        self.model.eval()
        for start in range(0, len(conversations), CHUNK):
            tokens = self.encode(conversations[start : start + CHUNK])
            order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))  # longest first: a lack of memory shows
            for batch in _batches(order, self.batch_size):
                with torch.inference_mode():
                    found[[start + i for i in batch]] = self.forward([tokens[i] for i in batch]).cpu().numpy()
                if advance is not None:
                    advance(len(batch))
        return found

    def encode(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Token ids of each conversation; the beginning of a long one is cut."""
        texts = [self.render(messages) for messages in conversations]
        options = {"add_special_tokens": self.tokenizer.chat_template is None, "truncation": True}
        ids = self.tokenizer(texts, max_length=self.max_length, **options)["input_ids"]
        return [row or [self.tokenizer.pad_token_id] for row in ids]

    def render(self, messages: Conversation) -> str:
        """The text a prompt is scored by. One user message: many templates refuse two user turns in a row."""
        text = user_text(messages)
        if self.tokenizer.chat_template is None:
            return text
        turn = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def forward(self, tokens: Sequence[list[int]]) -> Any:
        """Scores (batch, num_teachers) in float32, with gradients where they are on."""
        import torch

        batch = self.tokenizer.pad({"input_ids": list(tokens)}, padding_side="right", return_tensors="pt")
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.model(**batch.to(self.device)).logits.float()


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

    Weights stay in float32 (steps of 1e-5 vanish in bfloat16); on a GPU the forward pass runs in bfloat16.
    """
    torch = require("torch", extra="models", feature="the llm router")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router = _new(settings, teachers)
        return _train(settings, router, train, validation, folder, seed, advance)


def _train(
    settings: RouterSettings,
    router: Llm,
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    advance: Advance | None,
) -> dict[str, Any]:
    optimizer, schedule = _optimizer(settings, router.model, len(train.conversations))
    rng = np.random.default_rng(seed)
    tokens = router.encode(train.conversations)
    history: list[dict[str, float]] = []
    best: tuple[float, float] | None = None
    best_epoch = 0
    for epoch in range(1, settings.epochs + 1):
        router.model.train()
        losses = []
        for batch in _batches(rng.permutation(len(tokens)).tolist(), settings.batch_size):
            losses.append(_step(settings, router, [tokens[i] for i in batch], train.rewards[batch]))
            _check_finite(losses[-1], epoch)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        history.append({"epoch": epoch, "train_loss": float(np.mean(losses))})
        if advance is not None:
            advance(1)
        if len(validation.conversations):
            scores = router.scores(validation.conversations)
            found = float(np.nanmean(regret(scores, validation.rewards))), _loss(settings, scores, validation.rewards)
            history[-1] |= {"regret": found[0], "loss": found[1]}
            if best is None or found < best:
                best, best_epoch = found, epoch
                _save(router, folder)
            elif epoch - best_epoch >= settings.patience:
                break
    if best is None:
        best_epoch = settings.epochs
        _save(router, folder)
    return {"best_epoch": best_epoch, "history": history}


def _step(settings: RouterSettings, router: Llm, tokens: list[list[int]], rewards: FloatArray) -> float:
    """Gradient of the mean loss over the batch, gathered in micro batches and clipped to norm 1; its loss."""
    import torch

    from persyn_hf.core.bradley_terry import grouped_loss

    total = 0.0
    for part in _batches(range(len(tokens)), settings.micro_batch_size):
        labels = torch.tensor(rewards[part], dtype=torch.float32, device=router.device)
        loss = grouped_loss(router.forward([tokens[i] for i in part]), labels, settings.objective, settings.tau)
        share = loss * len(part) / len(tokens)
        share.backward()
        total += float(share.detach())
    torch.nn.utils.clip_grad_norm_(router.model.parameters(), 1.0)
    return total


def _optimizer(settings: RouterSettings, model: Any, num_prompts: int) -> tuple[Any, Any]:
    """AdamW without weight decay, the head at a rate of its own; cosine to 0 after a linear warm-up."""
    import torch

    backbone = list(model.base_model.parameters())
    inside = {id(parameter) for parameter in backbone}
    head = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [
        {"params": backbone, "lr": settings.learning_rate},
        {"params": head, "lr": settings.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    steps = settings.epochs * math.ceil(num_prompts / settings.batch_size)
    warmup = math.ceil(settings.warmup * steps)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _loss(settings: RouterSettings, scores: FloatArray, rewards: FloatArray) -> float:
    import torch

    from persyn_hf.core.bradley_terry import grouped_loss

    return float(grouped_loss(torch.tensor(scores), torch.tensor(rewards), settings.objective, settings.tau))


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise RecipeError(
            f"training the router diverged in epoch {epoch}: the loss is {loss}; lower `train_router.learning_rate`"
        )


def _new(settings: RouterSettings, teachers: tuple[str, ...]) -> Llm:
    """The backbone with a fresh head of one label per teacher."""
    transformers = require("transformers", extra="models", feature="the llm router")
    names = dict(enumerate(teachers))
    source: dict[str, Any] = {"revision": settings.backbone_revision or "main", "trust_remote_code": False}
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(settings.backbone, **source)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                settings.backbone,
                num_labels=len(teachers),
                id2label=names,
                label2id={name: index for index, name in names.items()},
                dtype="float32",
                use_safetensors=True,
                **source,
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the router backbone `{settings.backbone}` cannot be loaded: {reason}") from None
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
    device = _device(settings.device)
    return Llm(teachers, model, tokenizer, settings.max_length, settings.micro_batch_size, device)


def _save(router: Llm, folder: Path) -> None:
    import transformers

    with _quiet(transformers):
        router.model.save_pretrained(folder)
        router.tokenizer.save_pretrained(folder)


def load(folder: Path, saved: Mapping[str, Any], device: str) -> Llm:
    transformers = require("transformers", extra="models", feature="the llm router")
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, dtype="float32", use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the llm router in {folder} cannot be loaded: {reason}; fetch it again") from None
    teachers = tuple(saved["teachers"])
    labels = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    if labels != teachers:
        raise InputError(
            f"the router in {folder} names the teachers {', '.join(teachers)} in router.json and "
            f"{', '.join(labels)} in config.json, they must agree; fetch it again"
        )
    settings = saved["settings"]
    return Llm(teachers, model, tokenizer, settings["max_length"], settings["micro_batch_size"], _device(device))


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars, and no warning that the head is new: it is meant to be."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_bars():
            yield
    finally:
        logging.set_verbosity(level)


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def _batches(items: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
