"""Look at a model's chat template on its tokenizer alone, before any answer is paid for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from persyn_hf.backends import chat
from persyn_hf.core.conversations import full_response
from persyn_hf.errors import InputError, reason


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHT = "r3asoning"
SYSTEM = {"role": "system", "content": "syst3m"}


@dataclass(frozen=True, kw_only=True)
class Template:
    """The findings about one template: what `chat.encode_turns` makes of answers, each in words."""

    end: str  # the token that ends an answer
    prompt: str  # how a prompt ends, from the user's words on
    plain: str  # of an answer without thoughts
    thoughts: str  # of an answer with thoughts
    system: str  # of a system turn

    @property
    def changes(self) -> bool:
        """Whether the template itself writes anything but what was said."""
        return (self.plain, self.thoughts) != (KEPT, KEPT)

    @property
    def closed(self) -> bool:
        """Whether an answer with thoughts is refused: the generation prompt has closed the block."""
        return self.thoughts == CLOSED

    def __str__(self) -> str:
        return (
            f"ends a prompt with {self.prompt!r} and an answer with {self.end}; plain answers {self.plain}; "
            f"thoughts {self.thoughts}; system turns {self.system}"
        )


KEPT = "kept"
AS_SAID = "kept (the template changes them)"
NO_BLOCK = "kept (the template adds an empty block)"
CLOSED_FIRST = "after an empty block that the prompt opens"
GOES_ON = "in the block that the prompt opens"
CLOSED = "refused, the prompt has closed the block"


def look_at(tokenizer: "PreTrainedTokenizerBase", model: str) -> Template:
    """Find out by short conversations what the template does with an answer.

    Raises:
        InputError: a student could not learn with it (see `chat.end_of_turn`).
    """
    end = tokenizer.convert_ids_to_tokens(chat.end_of_turn(tokenizer, model))
    prompt = chat.render(tokenizer, chat.QUESTION)
    block = chat.BLOCK.search(prompt)
    answers = [chat.CONTENT, full_response({"response": chat.CONTENT, "reasoning": THOUGHT})]
    wholes = [chat.apply(tokenizer, [*chat.QUESTION, {"role": "assistant", "content": text}]) for text in answers]
    written = [whole[len(prompt) :].rpartition(end)[0].strip() for whole in wholes]
    plain, thoughts = (KEPT if text == said else AS_SAID for text, said in zip(written, answers, strict=True))
    if block:
        plain = plain if block["closed"] else CLOSED_FIRST
        thoughts = CLOSED if block["closed"] else GOES_ON
    elif chat.OPEN in written[0]:
        plain = NO_BLOCK
    return Template(
        end=end,
        prompt=prompt.rpartition(chat.QUESTION[0]["content"])[2],
        plain=plain,
        thoughts=thoughts,
        system=_system(tokenizer),
    )


def look_at_teacher(tokenizer: "PreTrainedTokenizerBase", model: str, *, system_prompt: bool) -> str:
    """Find out what the template does with a teacher's prompts, in words. A teacher need not be able to learn.

    Raises:
        InputError: it cannot be applied, or refuses or leaves out the teacher's system prompt.
    """
    try:
        prompt = chat.render(tokenizer, chat.QUESTION)
    except Exception as error:  # noqa: BLE001  # templates refuse by raising, and may raise anything
        raise InputError(
            f"the chat template of `{model}` cannot be applied: {reason(error)}; take another teacher, or mend it"
        ) from None
    ends = tokenizer.convert_ids_to_tokens(sorted(chat.ends_of_answers(tokenizer)))
    system = _system(tokenizer)
    if system_prompt and system != KEPT:
        raise InputError(
            f"the chat template of `{model}` does not take the teacher's `system_prompt`, system turns are {system}; "
            "leave it out, or take another teacher"
        )
    found = (
        f"ends a prompt with {prompt.rpartition(chat.QUESTION[0]['content'])[2]!r} and an answer with "
        f"{' or '.join(ends)}; system turns {system}"
    )
    return found + ("; tags of thoughts are special tokens, and kept" if chat.special_thoughts(tokenizer) else "")


def _system(tokenizer: "PreTrainedTokenizerBase") -> str:
    try:
        text = chat.render(tokenizer, [SYSTEM, *chat.QUESTION])
    except Exception as error:  # noqa: BLE001  # templates refuse by raising, and may raise anything
        return f"refused ({reason(error)})"
    return KEPT if SYSTEM["content"] in text else "left out"


def check_embeddings(tokenizer: "PreTrainedTokenizerBase", model: str, rows: int) -> None:
    """Refuse a template with tokens for which the model, of `rows` embeddings, has none.

    Training adds such rows; a score would be one of numbers that nothing has learnt. Tokens that no text holds
    (Gemma 3's image token is one beyond its text model) are no fault.
    """
    ids = chat.encode(tokenizer, chat.apply(tokenizer, [*chat.QUESTION, chat.ANSWER]))
    beyond = sorted({token for token in ids if token >= rows})
    if beyond:
        raise InputError(
            f"the chat template of `{model}` writes {tokenizer.convert_ids_to_tokens(beyond[0])} (token {beyond[0]}), "
            f"but the model has {rows} embeddings, so an answer cannot be scored; add the missing rows to the model "
            f"(`resize_token_embeddings`), or {chat.OTHER_TEMPLATE}"
        )


def check_roles(tokenizer: "PreTrainedTokenizerBase", model: str, prompts: Mapping[tuple[str, ...], int]) -> None:
    """Refuse a template that refuses conversations with some order of roles; `prompts` counts those of each order."""
    for roles, count in prompts.items():
        turns = [{"role": role, "content": chat.CONTENT} for role in roles]
        try:
            chat.render(tokenizer, turns)
        except Exception as error:  # noqa: BLE001  # as above
            raise InputError(
                f"the chat template of `{model}` refuses {count} of the prompts, those with the turns "
                f"{', '.join(roles)}: {reason(error)}; leave them out, or {chat.OTHER_TEMPLATE}"
            ) from None
