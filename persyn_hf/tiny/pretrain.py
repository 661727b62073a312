"""Train one tiny model from its spec: Muon for matrices, AdamW for the rest, the same weights for the same seed."""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from persyn_hf.tiny.corpus import Example, draw_document, encode
from persyn_hf.tiny.tokenizer import MAX_LENGTH
from persyn_hf.tiny.zoo import ModelSpec, Phase, check_spec


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

WINDOW = 50
"""Batches drawn at once and cut by length: little padding, and still an order close to random."""
WARMUP = 50
"""Optimiser steps of linear warmup in each phase."""
FINAL_LR_SHARE = 0.02


def pretrain(
    spec: ModelSpec, tokenizer: "PreTrainedTokenizerFast", banned: set[str]
) -> "tuple[PreTrainedModel, list[float]]":
    """Train a model and return it with the loss of each step, in nats per learnt token.

    The result is the same to the bit only with the same torch build and `torch.set_num_threads`, because sums depend
    on their order.

    Args:
        banned: questions that no document may hold.
    """
    import torch

    check_spec(spec)
    torch.manual_seed(spec.seed)
    rng = random.Random(spec.seed)
    model = build_model(spec, tokenizer)
    model.train()
    losses: list[float] = []
    for phase in spec.phases:
        losses += _run_phase(model, spec, phase, tokenizer, banned, rng)
    model.eval()
    return model, losses


def build_model(spec: ModelSpec, tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedModel":
    """Return a model with fresh weights: 4 heads, 2 key heads, feed-forward 3 times the width, tied embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "intermediate_size": 3 * spec.width,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": spec.width // 4,
        "max_position_embeddings": MAX_LENGTH,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if spec.architecture == "gemma2":
        # Both must be set, or the values of the 2B model are taken. Without the soft cap on attention every attention
        # kernel gives the same result; with it the fast ones would drop the cap in silence.
        sizes |= {"query_pre_attn_scalar": spec.width // 4, "attn_logit_softcapping": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(spec.architecture, **sizes))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def _run_phase(
    model: "PreTrainedModel",
    spec: ModelSpec,
    phase: Phase,
    tokenizer: "PreTrainedTokenizerFast",
    banned: set[str],
    rng: random.Random,
) -> list[float]:
    """Train the model for the steps of one phase and return the loss of each."""
    import torch

    optimizers = _optimizers(model, phase)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_share(step, phase.steps))
        for optimizer in optimizers
    ]
    losses = []
    for examples in _batches(spec, phase, tokenizer, banned, rng):
        loss = _loss(model, examples, tokenizer.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _optimizers(model: "PreTrainedModel", phase: Phase) -> "list[torch.optim.Optimizer]":
    """Return Muon for the hidden matrices, which it suits, and AdamW for embeddings (the tied head) and norms."""
    import torch

    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=phase.muon_lr, momentum=0.95, nesterov=True, weight_decay=0.0),
        torch.optim.AdamW(others, lr=phase.adamw_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _lr_share(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: linear warmup, then linear decay to `FINAL_LR_SHARE`."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    left = (steps - step) / max(1, steps - WARMUP)
    return FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * max(0.0, left)


def _batches(
    spec: ModelSpec, phase: Phase, tokenizer: "PreTrainedTokenizerFast", banned: set[str], rng: random.Random
) -> Iterator[list[Example]]:
    """Yield the batches of a phase, each of documents of about one length."""
    done = 0
    while done < phase.steps:
        documents = [draw_document(spec, phase, banned, rng) for _ in range(WINDOW * phase.batch)]
        examples = sorted(encode(documents, tokenizer), key=lambda example: len(example.token_ids))
        batches = [examples[start : start + phase.batch] for start in range(0, len(examples), phase.batch)]
        rng.shuffle(batches)
        batches = batches[: phase.steps - done]
        done += len(batches)
        yield from batches


def _loss(model: "PreTrainedModel", examples: list[Example], pad_id: int) -> "torch.Tensor":
    """Return the mean cross-entropy over the learnt tokens of a batch; a scalar."""
    import torch

    width = max(len(example.token_ids) for example in examples)
    token_ids = torch.full((len(examples), width), pad_id)
    labels = torch.full((len(examples), width), -100)
    for row, example in enumerate(examples):
        token_ids[row, : len(example.token_ids)] = torch.tensor(example.token_ids)
        learnt = slice(example.learnt_from, len(example.token_ids))
        labels[row, learnt] = token_ids[row, learnt]
    # Padding is on the right and attention causal, so no mask is needed: no learnt token sees a pad.
    logits = model(input_ids=token_ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
