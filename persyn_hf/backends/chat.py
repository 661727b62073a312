"""Apply chat templates: the one place where a conversation becomes text and tokens."""

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.thoughts import TAGS
from persyn_hf.errors import InputError, reason


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
Row = tuple[Messages, str]  # a conversation and its answer

DATE = datetime(2024, 7, 26)  # what Llama 3.2's template prints where it is given no date
QUESTION = ({"role": "user", "content": "qu3stion"},)  # stand for a conversation when a template is looked at
CONTENT = "c0ntent"
ANSWER = {"role": "assistant", "content": CONTENT}
OPEN, CLOSE = "<think>", "</think>"  # as `core.conversations.full_response` writes them
BLOCK = re.compile(rf"{OPEN}(?P<space>\s*)(?P<closed>{CLOSE})?\s*$")  # at the end of a generation prompt
# What a template reads without anybody's asking: from `apply_chat_template`, the tokenizer, or Jinja itself.
GIVEN = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"),
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("additional_special_tokens", "namespace", "range", "dict", "lipsum", "cycler", "joiner"),
    )
)
OTHER_TEMPLATE = "give a student another template under `students`: `chat_template: FILE.jinja`"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A conversation and its answer as tokens: `ids[start:]` are the answer and its end-of-turn token."""

    ids: np.ndarray  # int32, (length,)
    start: int
    truncated: bool  # the answer was cut at the maximum length: no end-of-turn token


def apply(tokenizer: "PreTrainedTokenizerBase", messages: Messages, *, to_answer: bool = False, **said: Any) -> str:
    """Render a conversation as text; with `to_answer` it ends where the assistant is to speak.

    `said` is what the template is told besides, such as enable_thinking.

    Raises whatever the template raises.

    Templates that print today's date (Llama 3.2's does) print one fixed date: the same conversation must be the same
    text tomorrow, or a resumed run would pay for its answers again and a student be scored on another prompt.
    """
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=to_answer, strftime_now=DATE.strftime, **said
    )
    return text


def settable(tokenizer: "PreTrainedTokenizerBase") -> frozenset[str] | None:
    """Return what the chat template can be told, such as enable_thinking; None where it cannot be looked at.

    It is what the template reads and does not make itself, or makes where it `is defined` by nobody else, or makes of
    itself and a `default`.
    """
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes

    reader = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)  # nothing is rendered
    try:
        parsed = reader.parse(tokenizer.get_chat_template())
    except (TemplateSyntaxError, ValueError):  # a tag of transformers' own, or no template
        return None
    defaults = [each for each in parsed.find_all(nodes.Filter) if each.name in ("default", "d")]
    asked = {each.node.name for each in (*parsed.find_all(nodes.Test), *defaults) if isinstance(each.node, nodes.Name)}
    made = {name.name for name in parsed.find_all(nodes.Name) if name.ctx == "store"}
    return frozenset(meta.find_undeclared_variables(parsed) - GIVEN - (made - asked))


def render(tokenizer: "PreTrainedTokenizerBase", messages: Messages, **said: Any) -> str:
    """Render a conversation as text that ends where the assistant is to speak."""
    return apply(tokenizer, messages, to_answer=True, **said)


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the token ids of templated text, to which the template has already added the special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def until_end(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], ends: Collection[int]
) -> tuple[str, int, bool]:
    """Read the tokens of an answer up to the first that ends it: (text, number of tokens with the end, ended).

    Special tokens are no text, but for those that tags of thoughts consist of: the thoughts are cut off by these.
    """
    place = next((place for place, token in enumerate(ids) if token in ends), None)
    unsaid = _unsaid(tokenizer)
    said = [token for token in ids[:place] if token not in unsaid]
    text: str = tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text, len(ids) if place is None else place + 1, place is not None


@lru_cache(maxsize=8)
def special_thoughts(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Find the special tokens that tags of thoughts consist of: <think>, [THINK], <|channel|> of gpt-oss and so on.

    Found once for each tokenizer, which must not get further tokens afterwards.
    """
    special = _special(tokenizer)
    texts = tuple(special.values())
    tags = [tag for pair in TAGS if pair[1] in texts or pair[0].startswith(texts) for tag in pair]
    return frozenset(token for token, text in special.items() if any(text in tag for tag in tags))


@lru_cache(maxsize=8)
def _unsaid(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    return frozenset(_special(tokenizer)) - special_thoughts(tokenizer)


def _special(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """Map the special tokens to their spelling; the named ones (eos, say) need not be among those that were added."""
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    added = {token: text.content for token, text in tokenizer.added_tokens_decoder.items() if text.special}
    return {token: text for token, text in (dict(named) | added).items() if text}


def encode_turns(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int) -> list[Turn]:
    """Encode conversations with their answers as a student is trained on them, each cut at `max_length` tokens.

    The prompt is what the student will see: the conversation with the template's generation prompt. The answer is what
    was said, its outer white space as the template leaves it, up to and with the end-of-turn token; template text
    after it (a line break, say) does not count. Where the template would write anything else than what was said (it
    drops thoughts, or adds an empty block of them), or where the tokens of the prompt are no prefix of those of the
    whole (a merge across the border, or a prompt that is written in another way once an answer follows), prompt,
    answer and end of turn are encoded apart; see `continuation`.

    Raises:
        InputError: the template refuses a conversation, or nothing could be learnt with it.
    """
    if not rows:
        return []
    end = end_of_turn(tokenizer, tokenizer.name_or_path)
    end_text = tokenizer.convert_ids_to_tokens(end)
    try:
        prompts = [render(tokenizer, messages) for messages, _ in rows]
        wholes = [apply(tokenizer, [*messages, {"role": "assistant", "content": text}]) for messages, text in rows]
    except Exception as error:  # noqa: BLE001  # templates refuse by raising, and may raise anything
        raise InputError(
            f"the chat template of `{tokenizer.name_or_path}` refuses a conversation: {reason(error)}; leave such "
            f"prompts out, or {OTHER_TEMPLATE}"
        ) from None
    prefixes, ids = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, wholes))
    turns = []
    for (_, said), prompt, whole, prefix, tokens in zip(rows, prompts, wholes, prefixes, ids, strict=True):
        written = whole[len(prompt) :].rpartition(end_text)[0] if whole.startswith(prompt) else None
        tail = tokens[len(prefix) :]
        if written is not None and written.strip() == said.strip() and tokens[: len(prefix)] == prefix and end in tail:
            last = len(tail) - 1 - tail[::-1].index(end)
            tokens = prefix + tail[: last + 1]
        else:
            tokens = prefix + encode(tokenizer, continuation(tokenizer.name_or_path, prompt, said)) + [end]
        cut = np.array(tokens[:max_length], dtype=np.int32)
        turns.append(Turn(ids=cut, start=min(len(prefix), max_length), truncated=len(tokens) > max_length))
    return turns


def continuation(model: str, prompt: str, said: str) -> str:
    """Make what a student has to say after `prompt` for an answer `said`: one thinking block at most, and closed.

    A generation prompt may open the block itself (newer R1-Distills, Qwen3.5): thoughts go on in it, and a plain
    answer closes it first.

    Raises:
        InputError: the prompt has opened and closed the block, and the answer has thoughts.
    """
    block = BLOCK.search(prompt)
    thinks = said.lstrip().startswith(OPEN)
    if block is None or (block["closed"] and not thinks):
        return said
    if block["closed"]:
        raise InputError(
            f"the chat template of `{model}` closes the thinking block before an answer begins, so the student cannot "
            f"learn from answers with reasoning; {OTHER_TEMPLATE}"
        )
    if thinks:
        body = said.lstrip().removeprefix(OPEN)
        return body[len(commonprefix([block["space"], body])) :]
    return ("" if prompt.endswith("\n") else "\n") + f"\n{CLOSE}\n\n{said}"


def end_of_turn(tokenizer: "PreTrainedTokenizerBase", model: str) -> int:
    """Find the special token that the template writes after an answer, which a student must learn to say.

    It need not be the tokenizer's eos (Qwen2.5 base: the template says <|im_end|>, eos is <|endoftext|>).

    Raises:
        InputError: there is none, so generation could never learn to stop; the template leaves the answer out, or
            writes what its generation prompt lacks before an answer, so that the student would be trained on that.
    """
    try:
        prompt = render(tokenizer, QUESTION)
        whole = apply(tokenizer, [*QUESTION, ANSWER])
    except Exception as error:  # noqa: BLE001  # as above
        raise InputError(
            f"the chat template of `{model}` cannot be applied: {reason(error)}; {OTHER_TEMPLATE}"
        ) from None
    before, found, after = whole.rpartition(CONTENT)
    if not found:
        raise InputError(f"the chat template of `{model}` leaves the answer out; {OTHER_TEMPLATE}")
    end = _first_special(tokenizer, after)
    if end is None:
        raise InputError(
            f"the chat template of `{model}` ends an answer with {after!r}, which holds no special token of its "
            f"tokenizer, so a student could never learn to stop; {OTHER_TEMPLATE}"
        )
    ends = (tokenizer.convert_ids_to_tokens(end), tokenizer.eos_token or tokenizer.convert_ids_to_tokens(end))
    added = before[len(prompt) :].replace(OPEN, "").replace(CLOSE, "").strip() if before.startswith(prompt) else ""
    if added or prompt.rstrip().endswith(ends):
        found_text = f"writes {added!r} before an answer" if added else f"ends a prompt with {prompt[-20:]!r}"
        raise InputError(
            f"the chat template of `{model}` has no whole generation prompt: it {found_text}, so prompts do not end "
            f"where answers begin; {OTHER_TEMPLATE} that knows `add_generation_prompt`"
        )
    return end


def ends_of_answers(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Find the tokens that end an answer of a teacher: its eos, and what its template writes after an answer, if any.

    A teacher need not be able to learn: templates of GLM-4's kind write nothing, and the tokens of its generation
    config end an answer.
    """
    found = {tokenizer.eos_token_id}
    with contextlib.suppress(Exception):  # a template may refuse or leave out an assistant's turn
        whole = apply(tokenizer, [*QUESTION, ANSWER])
        found.add(_first_special(tokenizer, whole.rpartition(CONTENT)[2]) if CONTENT in whole else None)
    return {token for token in found if token is not None}


def _first_special(tokenizer: "PreTrainedTokenizerBase", text: str) -> int | None:
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return next((int(token) for token in encode(tokenizer, text) if token in special), None)
