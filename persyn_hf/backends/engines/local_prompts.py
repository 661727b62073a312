"""Prepare prompts for engines that render the chat template themselves, and read a model's context and size."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.backends import chat, loading
from persyn_hf.backends.answers import EMPTY, Messages, Prepared, Request, conversation
from persyn_hf.errors import RecipeError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Messages,
    system_prompt: str | None,
    context_length: int,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Prepared:
    """Render a conversation; the teacher's system prompt goes in front of one that has none of its own."""
    turns = conversation(messages, system_prompt)
    if not turns:
        return EMPTY
    try:
        text = chat.render(tokenizer, turns, **(template_kwargs or {}))
        num_tokens = len(chat.encode(tokenizer, text))
    except Exception as error:  # noqa: BLE001  # templates refuse by raising; the row is kept as an error
        return Prepared(text=repr(turns), num_tokens=0, refusal=f"the chat template refuses the prompt: {error}")
    refusal = None
    if num_tokens >= context_length:
        refusal = f"the prompt has {num_tokens} tokens, the model's context is {context_length}"
    return Prepared(text=text, num_tokens=num_tokens, refusal=refusal, messages=tuple(turns))


def known_kwargs(tokenizer: "PreTrainedTokenizerBase", model: str, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the chat template is to be told, once it is known that the template reads it.

    Raises:
        RecipeError: it does not, and would answer as if nothing had been said.
    """
    known = chat.settable(tokenizer) if kwargs else None
    for name in kwargs:
        if known is not None and name not in known:
            listed = f"it reads {', '.join(sorted(known))}" if known else "it reads nothing that can be set"
            raise RecipeError(
                f"`chat_template_kwargs` names `{name}`, which the chat template of `{model}` does not read "
                f"({listed}); take it out, or name what it reads"
            )
    return kwargs


def new_tokens(request: Request, context_length: int) -> int:
    """Return the tokens that an answer may have: the rest of the context, `max_tokens` at most."""
    return min(request.sampling.max_tokens, context_length - request.prompt.num_tokens)


def context_length(model: str, revision: str | None) -> int:
    """Read from a model's config how many positions it knows, prompt and answer together; 2^30 where it says none."""
    config = loading.read_config(model, revision).get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def params_b(model: str) -> float | None:
    """Count a local model's parameters, in billions, in the headers of its safetensors files; None for a Hub model.

    A file begins with the length of its header in 8 bytes; the header is JSON.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total / 1e9
