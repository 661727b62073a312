"""Train the llm router with a frozen backbone: each prompt is read once, and the head is trained on its embedding.

The folder is the same stock model with the trained head. That head has no bias (transformers gives it none) and needs
none: embeddings of prompts have much in common, so a direction of the weights does what a bias would.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize

from persyn_hf.backends import loading as models
from persyn_hf.backends.batches import plan_batches
from persyn_hf.backends.loading import no_logs
from persyn_hf.backends.routers import Conversation, RouterSettings
from persyn_hf.backends.routers.llm_data import mean_loss, targets
from persyn_hf.backends.routers.llm_model import Llm, LlmTraining, new
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.metrics import regret
from persyn_hf.errors import InputError


CHUNK = 512  # prompts whose embeddings are kept together


def train(training: LlmTraining) -> dict[str, Any]:
    """Train one head for each `l2`, the strongest first; save the best by validation regret and return the record."""
    settings, alpha, folder = training.settings, training.alpha, training.folder
    train, validation = training.train, training.validation
    torch.manual_seed(training.seed)
    router = new(settings, training.teachers, alpha)
    head = getattr(router.model, "score", None)
    if not isinstance(head, torch.nn.Linear):
        raise InputError(
            f"`method: frozen` needs a decoder with one linear layer as its head, the router backbone "
            f"`{settings.backbone}` is a {type(router.model).__name__}; take `method: lora`"
        )
    of_train, of_validation = (embed(router, settings, part.conversations, folder) for part in (train, validation))
    aims, checks = targets(train, alpha, settings), targets(validation, alpha, settings)
    scale = 1 / (np.sqrt((of_train**2).mean(axis=0) * of_train.shape[1]) + 1e-12)  # rows of about length 1
    weights = np.zeros((of_train.shape[1], head.out_features))
    solved, tried = [], []
    for l2 in sorted(set(settings.l2), reverse=True):
        weights = _solve(of_train * scale, aims, l2, weights)
        solved.append(weights)
        tried.append({"l2": l2, "train_loss": float(mean_loss(torch.tensor(of_train * scale @ weights), aims))})
        if len(of_validation):
            outputs = of_validation * scale @ weights
            least = float(np.nanmean(regret(router.combine(outputs), validation.rewards)))
            tried[-1] |= {"regret": least, "loss": float(mean_loss(torch.tensor(outputs), checks))}
    best = len(tried) // 2
    if len(of_validation):
        best = min(range(len(tried)), key=lambda i: (tried[i]["regret"], tried[i]["loss"]))
    with torch.no_grad():
        head.weight.copy_(torch.tensor((solved[best] * scale[:, None]).T))
    with no_logs():
        router.model.save_pretrained(folder)
        router.tokenizer.save_pretrained(folder)
    return {"l2": tried[best]["l2"], "prompts": len(of_train), "tried": tried}


def embed(router: Llm, settings: RouterSettings, conversations: Sequence[Conversation], folder: Path) -> FloatArray:
    """Compute what the head reads of each prompt, (num_prompts, width), float64.

    Embeddings are kept next to `folder` for the next run or router.
    """
    tokens = router.encode(conversations)
    backbone = models.identify(settings.backbone, settings.backbone_revision)
    parts = [np.zeros((0, router.model.config.get_text_config().hidden_size))]
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        key = hashlib.sha256(repr((backbone, router.device.type, chunk)).encode()).hexdigest()
        path = folder.parent / "embeddings" / f"{key[:32]}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"embeddings": _embed(router, chunk)}, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        parts.append(load_file(path)["embeddings"])
    return np.concatenate(parts).astype(np.float64)


def _embed(router: Llm, tokens: Sequence[list[int]]) -> np.ndarray:
    embeddings: list[Any] = [None] * len(tokens)
    router.model.eval()
    with torch.inference_mode(), router.autocast():
        for batch in plan_batches([len(row) for row in tokens], models.suitable_batch(router.model)):
            padded = {
                name: tensor.to(router.device) for name, tensor in router.pad([tokens[i] for i in batch]).items()
            }
            states = router.model.base_model(**padded).last_hidden_state.float().cpu().numpy()
            for place, row in enumerate(batch):
                embeddings[row] = states[place, len(tokens[row]) - 1]
    return np.stack(embeddings)


def _solve(embeddings: FloatArray, aims: torch.Tensor, l2: float, start: FloatArray) -> FloatArray:
    """Minimise mean loss + l2 / 2 |weights|^2 by L-BFGS from `start`, (width, num_labels)."""

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(start.shape)
        outputs = torch.tensor(embeddings @ weights, requires_grad=True)
        loss = mean_loss(outputs, aims)
        (by_output,) = torch.autograd.grad(loss, outputs)
        gradient = embeddings.T @ by_output.numpy() + l2 * weights
        return float(loss.detach()) + l2 / 2 * float((weights**2).sum()), gradient.ravel()

    solution = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(solution.x).reshape(start.shape)
