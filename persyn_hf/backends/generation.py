"""What generation uses: one place for teachers and students, under `transformers` and under vLLM.

A checkpoint's `generation_config.json` may hold sampling settings, penalties, limits, forbidden words, beams. What is
asked for here is said in the recipe, so all of them are taken away; the tokens that end an answer are kept.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.loading import keep_freed_memory, read_config


if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

VLLM_ARGUMENTS = {"--generation-config": "vllm"}  # of the checkpoint's file vLLM then reads the end tokens alone


def end_tokens(model: str, revision: str | None, tokenizer: "PreTrainedTokenizerBase", *more: int) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's own, those that the checkpoint lists, and `more`."""
    from transformers import GenerationConfig

    try:
        settings = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # without such a file its config stands in, as in `transformers` and vLLM
        settings = GenerationConfig.from_model_config(read_config(model, revision))
    listed = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    found = [token for token in (*listed, tokenizer.eos_token_id, *more) if type(token) is int and token >= 0]
    return sorted({*found})


def prepare(model: "PreTrainedModel") -> None:
    """Make a loaded model ready to generate.

    Its own settings are emptied, from which `generate` would fill whatever a request leaves open.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    if model.device.type == "cpu":
        keep_freed_memory()


def request(
    *, max_tokens: int, ends: Sequence[int], pad: int | None, temperature: float = 0.0, **drawn: Any
) -> "GenerationConfig":
    """Make the settings of `generate`; temperature 0 is greedy, `drawn` are top_p and top_k of a sampled answer."""
    from transformers import GenerationConfig

    sampling = {"temperature": temperature, **drawn} if temperature else {}
    return GenerationConfig(
        do_sample=temperature > 0, max_new_tokens=max_tokens, eos_token_id=list(ends), pad_token_id=pad, **sampling
    )
