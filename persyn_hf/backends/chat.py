"""Apply chat templates: the one place where a conversation becomes text and tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from persyn_hf.errors import InputError, reason


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
Row = tuple[Messages, str]  # a conversation and its answer

DATE = datetime(2024, 7, 26)  # what Llama 3.2's template prints where it is given no date
CONTENT = "c0ntent"  # stands for an answer when the end of a turn is looked up


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A conversation and its answer as tokens: `ids[start:]` are the answer and its end-of-turn token."""

    ids: np.ndarray  # int32, (length,)
    start: int
    truncated: bool  # the answer was cut at the maximum length: no end-of-turn token


def apply(tokenizer: "PreTrainedTokenizerBase", messages: Messages, *, to_answer: bool = False) -> str:
    """Render a conversation as text; with `to_answer` it ends where the assistant is to speak.

    Raises whatever the template raises.


    Templates that print today's date (Llama 3.2's does) print one fixed date: the same conversation must be the same
    text tomorrow, or a resumed run would pay for its answers again and a student be scored on another prompt.
    """
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=to_answer, strftime_now=DATE.strftime
    )
    return text


def render(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> str:
    """Render a conversation as text that ends where the assistant is to speak."""
    return apply(tokenizer, messages, to_answer=True)


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the token ids of templated text, to which the template has already added the special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_turns(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int) -> list[Turn]:
    """Encode conversations with their answers as a student is trained on them, each cut at `max_length` tokens.

    The answer is what the template writes after the generation prompt (its outer white space may be gone), up to and
    with the end-of-turn token: template text after it (a line break, say) does not count. Where the tokens of the
    prompt are no prefix of the tokens of the whole, prompt, answer and end of turn are encoded separately: a merge
    may cross the border, and a template may write the prompt differently once an answer follows.

    Raises:
        InputError: the template refuses a conversation.
    """
    from jinja2 import TemplateError

    if not rows:
        return []
    try:
        end = end_of_turn(tokenizer, tokenizer.name_or_path)
        prompts = [render(tokenizer, messages) for messages, _ in rows]
        wholes = [apply(tokenizer, [*messages, {"role": "assistant", "content": text}]) for messages, text in rows]
    except TemplateError as error:
        raise InputError(
            f"the chat template of `{tokenizer.name_or_path}` refuses a conversation: {reason(error)}; leave such "
            "prompts out, or give a student another template under `students`: `chat_template: FILE.jinja`"
        ) from None
    prefixes, ids = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, wholes))
    turns = []
    for (_, response), prefix, tokens in zip(rows, prefixes, ids, strict=True):
        tail = tokens[len(prefix) :]
        if tokens[: len(prefix)] == prefix and end in tail:
            last = len(tail) - 1 - tail[::-1].index(end)
            tokens = prefix + tail[: last + 1]
        else:
            tokens = prefix + encode(tokenizer, response) + [end]
        cut = np.array(tokens[:max_length], dtype=np.int32)
        turns.append(Turn(ids=cut, start=min(len(prefix), max_length), truncated=len(tokens) > max_length))
    return turns


def end_of_turn(tokenizer: "PreTrainedTokenizerBase", model: str) -> int:
    """Find the special token that the template writes after an answer, which a student must learn to say.

    It need not be the tokenizer's eos (Qwen2.5 base: the template says <|im_end|>, eos is <|endoftext|>).

    Raises:
        InputError: there is none, so generation could never learn to stop.
    """
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": CONTENT}]
    tail = apply(tokenizer, turns).rpartition(CONTENT)[2]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in encode(tokenizer, tail):
        if token in special:
            return int(token)
    raise InputError(
        f"the chat template of `{model}` ends an answer with {tail!r}, which holds no special token of its tokenizer, "
        "so a student could never learn to stop; give another template"
    )
