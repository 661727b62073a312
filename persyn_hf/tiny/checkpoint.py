"""Save and load a tiny model with its tokenizer, refusing a tokenizer that the weights were not trained with."""

from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.tiny.tokenizer import tokenizer_sha256


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def save_checkpoint(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", directory: Path) -> None:
    """Save weights in fp32, tokenizer and template; the tokenizer's hash goes into `config.json`."""
    tokenizer.save_pretrained(directory)
    model.config.tokenizer_sha256 = tokenizer_sha256(directory)
    model.save_pretrained(directory)


def load_checkpoint(directory: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Return a tiny model and its tokenizer.

    Raises:
        ValueError: the weights were trained with another tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    digest = tokenizer_sha256(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    expected = getattr(model.config, "tokenizer_sha256", None)
    if digest != expected:
        raise ValueError(
            f"{directory}: the tokenizer has hash {digest[:12]} but the weights were trained with "
            f"{str(expected)[:12]}. Retrain with `python -m persyn_hf.tiny.train --models {directory.name}`."
        )
    return model, AutoTokenizer.from_pretrained(directory)
