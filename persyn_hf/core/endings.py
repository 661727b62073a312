"""Read how an answer ended: the words of servers, and which of them mean that the teacher had said all."""

from functools import lru_cache
from typing import Any


WORDS = {  # what is stored -> the words that servers have for it, in small letters (docs/servers.md)
    "stop": "stop eos eos_token end_turn end_of_turn stop_sequence stop_token complete completed",
    "length": "length max_tokens max_length max_new_tokens max_output_tokens model_length token_limit "
    "model_context_window_exceeded",
    "content_filter": "content_filter content_filtered safety recitation blocklist prohibited_content spii sensitive "
    "guardrail_intervened refusal",
    "repetition": "repetition",
    "error": "error error_toxic abort aborted cancelled canceled insufficient_system_resource network_error "
    "malformed_function_call",
    "tool_calls": "tool_calls tool_call tool_use function_call",
}
CUT_OFF = ("length", "content_filter", "repetition")  # the text does not end where the teacher would have
WHOLE = ("stop", "imported")
UNKNOWN = "unknown"  # the server does not say
LONGEST = 40  # characters of a word that nobody knows

_MEANING = {word: meaning for meaning, words in WORDS.items() for word in words.split()}


def ending(word: Any) -> str:
    """Return the finish reason as it is stored: a key of `WORDS`, `imported`, the server's own word, or `unknown`.

    A server may put more behind a colon (Gemini's `content_filter: RECITATION`).
    """
    return _stored(word) if isinstance(word, str) else UNKNOWN


@lru_cache  # every answer is asked for its ending several times, and few words are in use
def _stored(word: str) -> str:
    said = word.strip().lower()
    found = _MEANING.get(said.partition(":")[0].strip(), said)
    return "".join(letter for letter in found if letter.isprintable())[:LONGEST] or UNKNOWN


def is_cut(finish_reason: str) -> bool:
    """Tell whether the answer is known to have been cut off."""
    return ending(finish_reason) in CUT_OFF


def is_whole(finish_reason: str) -> bool:
    """Tell whether the answer is known to have ended by itself."""
    return ending(finish_reason) in WHOLE
