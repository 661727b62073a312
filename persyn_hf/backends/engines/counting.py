"""Count the tokens of answers whose server does not, where a tokenizer of the model is at hand."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from persyn_hf.backends.answers import Answer, Entry, Request, Said
from persyn_hf.backends.chat import encode, render
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.journal_spent import Count
from persyn_hf.backends.loading import read_tokenizer
from persyn_hf.core.endings import is_whole
from persyn_hf.errors import InputError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "tokenizer.model")

Answered = TypeVar("Answered", Answer, Entry)


class Counter:
    """A tokenizer that stands in for a server's count. `name` says which one it is, by its content."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer

    @cached_property
    def name(self) -> str:
        """The sha256 of the vocabulary and the chat template, 16 hex digits."""
        words = sorted(self._tokenizer.get_vocab().items())
        return hashlib.sha256(repr((words, self._tokenizer.chat_template)).encode()).hexdigest()[:16]

    def count(self, request: Request, said: Said) -> Count | None:
        """Count what the server has not: the prompt under the chat template; the thoughts, the text and its end.

        None where nothing is there to be counted: an answer that was cut off in thoughts that nobody sees has tokens.
        """
        generated = 0
        if not said.num_tokens:
            generated = sum(map(self._length, (said.text, said.reasoning or "")))
            if not generated:
                return None
            generated += is_whole(said.finish_reason)
        is_known = said.num_prompt_tokens or request.prompt.num_tokens
        return Count(0 if is_known else self._length(self._rendered(request)), generated)

    def _rendered(self, request: Request) -> str:
        messages = request.prompt.messages
        if self._tokenizer.chat_template:
            try:
                return render(self._tokenizer, messages)
            except Exception:  # noqa: BLE001  # a template raises anything; the server took the conversation
                pass
        return "\n".join(message["content"] for message in messages)

    def _length(self, text: str) -> int:
        return len(encode(self._tokenizer, text)) if text else 0


def open_counter(model: str, tokenizer: str | None) -> Counter | None:
    """Load the tokenizer that is named, else that of a model which is a folder here; None where there is none.

    Nothing is asked of a network unless a tokenizer is named. Raises `InputError` where that one cannot be loaded.
    """
    if tokenizer is not None:
        return Counter(read_tokenizer(tokenizer, None, f"`{tokenizer}`", "counting tokens"))
    if not any((Path(model) / name).is_file() for name in FILES):
        return None
    try:
        return Counter(read_tokenizer(model, None, f"`{model}`", "counting tokens"))
    except InputError:  # nobody has asked for it
        return None


def fill(
    counter: Counter | None, journal: Journal, requests: Mapping[str, Request], found: Mapping[str, Answered]
) -> dict[str, Answered]:
    """Return journalled answers, by key, with the tokens that their servers have not counted filled in.

    What is counted is noted in the journal, and not counted again. `requests` has the request of each key.
    """
    filled = dict(found)
    missing = [key for key, said in found.items() if is_uncounted(said)] if counter is not None else []
    if counter is None or not missing:
        return filled
    counts = journal.counts(missing, counter.name)
    tried = {key: counter.count(requests[key], found[key]) for key in missing if key not in counts}
    fresh = {key: count for key, count in tried.items() if count is not None}
    if fresh:
        journal.put_counts(fresh, counter.name)
    for key, count in (counts | fresh).items():
        said = filled[key]
        filled[key] = replace(
            said,
            num_prompt_tokens=said.num_prompt_tokens or count.prompt,
            num_tokens=said.num_tokens or count.generated,
            counted_here=True,
        )
    return filled


def fill_answers(counter: Counter | None, journal: Journal, answers: Sequence[Answer]) -> list[Answer]:
    """Fill in the tokens of answers that were just journalled (`fill`)."""
    by_key = {answer.request.key: answer for answer in answers}
    filled = fill(counter, journal, {key: answer.request for key, answer in by_key.items()}, by_key)
    return [filled[answer.request.key] for answer in answers]


def is_uncounted(said: Said) -> bool:
    """Tell whether the tokens of an answer, or of its prompt, are unknown."""
    prompt = said.num_prompt_tokens or (said.request.prompt.num_tokens if isinstance(said, Answer) else None)
    return said.error is None and not (said.num_tokens and prompt)
