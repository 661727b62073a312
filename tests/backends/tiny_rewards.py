"""Very small reward models with random weights, whose template ends a conversation with the end-of-turn token."""

from pathlib import Path
from typing import Any

from tiny_models import TEMPLATE, build_model, build_tokenizer


ENDING = TEMPLATE.replace("<|end|>\\n", "<|end|>").replace("<|end|>\n", "<|end|>")
LOUD = 6.0  # than at initialisation: scores that differ in their first digits


def save_reward_model(
    folder: Path, architecture: str = "llama", seed: int = 0, *, template: str | None = ENDING, **config: Any
) -> Path:
    """`pad_token_id` is the end-of-turn token, as in many checkpoints: the last token of every conversation."""
    import torch
    from transformers import AutoModelForSequenceClassification

    full = build_model(architecture, seed).config
    for name, value in ({"num_labels": 1, "pad_token_id": full.eos_token_id} | config).items():
        setattr(full, name, value)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(full)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(LOUD)
    model.save_pretrained(folder)
    build_tokenizer(template).save_pretrained(folder)
    return folder


def conversation(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


ROWS = [
    (conversation("What is 12 and 30?"), "The answer is 42."),
    (conversation("Sum?"), ""),
    (conversation("a much longer question, with many words and 1234567 in it"), "héllo\n\nworld 😀 <think>"),
    ([{"role": "system", "content": "be brief"}, *conversation("x")], "42" * 30),
    (conversation("x"), "42"),
]
