"""What generation uses: one place for teachers and students, under `transformers` and under vLLM.

A checkpoint's `generation_config.json` may hold sampling settings, penalties, limits, forbidden words, beams. What is
asked for here is said in the recipe, so all of them are taken away; the tokens that end an answer are kept.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.thoughts import split_thoughts


if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

VLLM_ARGUMENTS = {"--generation-config": "vllm"}  # of the checkpoint's file vLLM then reads the end tokens alone


def end_tokens(model: str, revision: str | None, tokenizer: "PreTrainedTokenizerBase", *more: int) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's own, those that the checkpoint lists, and `more`."""
    from transformers import AutoConfig, GenerationConfig

    try:
        settings = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # without such a file its config stands in, as in `transformers` and vLLM
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        settings = GenerationConfig.from_model_config(config)
    listed = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    found = [token for token in (*listed, tokenizer.eos_token_id, *more) if type(token) is int and token >= 0]
    return sorted({*found})


def take_away(model: "PreTrainedModel") -> None:
    """Empty the model's own settings, from which `generate` would fill whatever a request leaves open."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()


def request(
    *, max_tokens: int, ends: Sequence[int], pad: int | None, temperature: float = 0.0, **drawn: Any
) -> "GenerationConfig":
    """Make the settings of `generate`; temperature 0 is greedy, `drawn` are top_p and top_k of a sampled answer."""
    from transformers import GenerationConfig

    sampling = {"temperature": temperature, **drawn} if temperature else {}
    return GenerationConfig(
        do_sample=temperature > 0, max_new_tokens=max_tokens, eos_token_id=list(ends), pad_token_id=pad, **sampling
    )


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Iterable[int]) -> str:
    """Return an answer without special tokens; those that open or close thoughts stay, to be cut off as text."""
    dropped = _dropped(tokenizer)
    text: str = tokenizer.decode([token for token in ids if token not in dropped], skip_special_tokens=False)
    return text


@lru_cache(maxsize=4)
def _dropped(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    special = {token: str(text) for token, text in tokenizer.added_tokens_decoder.items() if text.special}
    special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return frozenset(token for token, text in special.items() if split_thoughts(f"{text}.")[1] is None)
