"""Tell an answer from the thoughts of the model, by the tags that models put around them."""

from collections.abc import Iterable


Tags = Iterable[tuple[str, str]]  # opening and closing

# DeepSeek-R1, Qwen3 and most others; Claude-like distillates; Gemini's include_thoughts; OpenThoughts and Sky-T1;
# Magistral; Kimi-VL; Seed-OSS; MiniMax-M3; Command A; gpt-oss; Gemma 4; PLaMo 3; Kimi K3.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
)
# What those who write the tags above put around the answer itself.
AROUND = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
)


def split_thoughts(text: str, prompt: str = "", more: Tags = ()) -> tuple[str, str | None]:
    """Cut the thoughts off an answer and return (answer, thoughts or None). The first pair of tags found counts.

    The block begins at its first opening tag, and ends at the last closing one, for thoughts may hold tags themselves.
    A template that opens the block leaves the closing tag only. What stands before the block and after it is the
    answer. A block that the answer begins with and that is never closed was cut off: there is no answer.

    Args:
        prompt: what the answer was a continuation of; it may end with an opening tag.
        more: further pairs of tags, looked for before those of `TAGS`.
    """
    for opening, closing in (*more, *TAGS):
        found = _split(text, prompt, opening, closing)
        if found is not None:
            return found
    return text, None


def _split(text: str, prompt: str, opening: str, closing: str) -> tuple[str, str] | None:
    """Cut at one pair of tags; None where the text has no such block."""
    opened = prompt.rstrip().endswith(opening)
    end = text.rfind(closing)
    if end < 0:
        body = text.lstrip()
        return ("", body.removeprefix(opening).strip()) if opened or body.startswith(opening) else None
    begin = 0 if opened else max(0, text.find(opening, 0, end))
    thoughts = text[begin:end].replace(opening, "\n").replace(closing, "\n").strip()
    parts = (text[:begin].strip(), text[end + len(closing) :].strip())
    return _bare("\n\n".join(part for part in parts if part)), thoughts


def _bare(answer: str) -> str:
    """Remove the tags around an answer itself."""
    for opening, closing in AROUND:
        if answer.startswith(opening):
            return answer.removeprefix(opening).removesuffix(closing).strip()
    return answer
