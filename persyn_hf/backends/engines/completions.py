"""Read a chat completion: its text, its thoughts, how it ended, and how many tokens it took."""

from collections.abc import Iterator, Mapping
from typing import Any

from persyn_hf.backends.answers import Said, well_formed
from persyn_hf.backends.engines.replies import Fault, words
from persyn_hf.core.endings import ending
from persyn_hf.text import first_line


PARTS = {  # `type` of a part of a message -> what it is
    "text": "text",
    "output_text": "text",
    "thinking": "thoughts",
    "reasoning": "thoughts",
    "reasoning.text": "thoughts",
    "reasoning.summary": "thoughts",
    "summary_text": "thoughts",
    "refusal": "refusal",
}
FIELDS = ("text", "thinking", "reasoning", "content", "summary", "refusal")  # where a part holds its text
THOUGHTS = ("reasoning", "reasoning_content", "reasoning_details", "thinking")  # fields of a message
NESTED = 6  # levels of parts within parts
MOST_TOKENS = 10**9  # a number beyond is none


def read_chat(found: Mapping[str, Any]) -> Said | Fault:
    """Read a chat completion. One that was paid for and cannot be used is not asked for again."""
    choices = found.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    num_tokens, num_prompt_tokens = read_usage(found.get("usage"))

    def useless(reason: str) -> Fault:
        return Fault(kind="rejected", reason=reason, num_tokens=num_tokens or 0, num_prompt_tokens=num_prompt_tokens)

    if choices is None and not found.get("usage"):
        return Fault(kind="failed", reason="the server's answer is no chat completion (it has no `choices`)")
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return useless("the server's answer is no chat completion (its `choices` hold no message)")
    if choice.get("error"):
        return useless(f"the answer broke off: {words(choice['error'])}")
    finish_reason = ending(choice.get("finish_reason"))
    if finish_reason == "error":
        return useless(f"the answer broke off (finish reason {first_line(str(choice['finish_reason']), 40)})")
    parts: dict[str, list[str]] = {"text": [], "thoughts": [], "refusal": []}
    for kind, part in _texts(message.get("content"), "text"):
        parts[kind].append(part)
    thoughts = next(filter(None, (_joined(message.get(name), "thoughts") for name in THOUGHTS)), "")
    text, reasoning = ("".join(part) for part in (parts["text"], parts["thoughts"]))
    if not text.strip():
        refusal = "".join(parts["refusal"]) or _joined(message.get("refusal"), "refusal")
        if refusal.strip():
            return useless(f"the model refused: {first_line(refusal)}")
        if finish_reason == "tool_calls" or message.get("tool_calls") or message.get("function_call"):
            return useless("the answer is a call of a tool, and no tool was offered")
        if message.get("content") and not reasoning.strip():
            return useless("the content of the answer holds no text")
    return Said(
        text=well_formed(text),
        reasoning=well_formed(reasoning or thoughts) or None,
        finish_reason=finish_reason,
        num_tokens=num_tokens,
        num_prompt_tokens=num_prompt_tokens,
    )


def read_usage(usage: Any) -> tuple[int | None, int | None]:
    """Return (tokens generated, tokens of the prompt); None: not counted.

    An answer has at least one token, so 0 is no count. Some servers leave reasoning out of `completion_tokens`: what
    `total_tokens` holds beyond prompt and completion was generated and is billed, too; without a total the reasoning
    tokens are added where they are more than all of them together.
    """
    if not isinstance(usage, Mapping):
        return None, None
    prompt = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
    told = usage.get("completion_tokens", usage.get("output_tokens"))
    tokens = 0 if told == 0 and told is not False else _count(told)  # Gemini says 0 where all was thought
    total = _count(usage.get("total_tokens"))
    details = usage.get("completion_tokens_details")
    of_details = details.get("reasoning_tokens") if isinstance(details, Mapping) else None
    thought = _count(usage.get("reasoning_tokens") if of_details is None else of_details) or 0
    if tokens is None:  # what is no number makes the rest doubtful
        return None, prompt
    if total is not None and prompt is not None:
        tokens = max(tokens, total - prompt)
    elif thought > tokens:
        tokens += thought
    return tokens or None, prompt


def _joined(value: Any, kind: str) -> str:
    return "".join(part for _, part in _texts(value, kind))


def _texts(value: Any, kind: str, level: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of every part of a message that is read: text, thoughts or a refusal."""
    if isinstance(value, str):
        yield kind, value
    elif level < NESTED and isinstance(value, list):
        for part in value:
            yield from _texts(part, kind, level + 1)
    elif level < NESTED and isinstance(value, Mapping):
        named = value.get("type", "text")
        own = PARTS.get(named) if isinstance(named, str) else None
        held = next((value[field] for field in FIELDS if value.get(field)), None)
        if own is not None:
            yield from _texts(held, kind if kind != "text" else own, level + 1)


def _count(value: Any) -> int | None:
    """Return a number of tokens; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MOST_TOKENS:
        return None
    return int(value) if int(value) == value else None
