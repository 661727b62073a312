"""Save and load a tiny model with its tokenizer, refusing a tokenizer that the weights were not trained with."""

from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.tiny.tokenizer import tokenizer_sha256


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def save_checkpoint(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", directory: Path) -> None:
    """Weights in fp32, tokenizer, template; the tokenizer's hash goes into `config.json`."""
    tokenizer.save_pretrained(directory)
    model.config.tokenizer_sha256 = tokenizer_sha256(directory)
    model.save_pretrained(directory)


def load_checkpoint(directory: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = tokenizer_sha256(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    expected = getattr(model.config, "tokenizer_sha256", None)
    if found != expected:
        raise ValueError(
            f"{directory}: the tokenizer has hash {found[:12]} but the weights were trained with "
            f"{str(expected)[:12]}. Retrain with `python -m persyn_hf.tiny.train --models {directory.name}`."
        )
    return model, AutoTokenizer.from_pretrained(directory)
