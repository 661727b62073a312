"""Define what a teacher is asked and what it says: the values that engines, servers and the journal exchange."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from persyn_hf.core.arrays import IntArray


Messages = Sequence[Mapping[str, str]]


Batch = list["Request"]


@dataclass(frozen=True, kw_only=True, slots=True)  # as all of a request: a driver holds millions of them
class Sampling:
    """The way tokens are drawn. Temperature 0 is greedy; top_k 0 and top_p 1 cut nothing off."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A prompt in the form that one teacher gets; `refusal` says why it cannot be asked at all."""

    text: str  # all that the teacher is shown: the rendered chat template, or the conversation as JSON for a server
    num_tokens: int  # teacher's tokenizer; 0 where the engine cannot know
    refusal: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()  # what a server is sent, the system prompt included


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One sample asked of one teacher."""

    prompt_id: str
    model: str  # what answers: MODEL@COMMIT, or the digest of a local folder; never the teacher's name in a recipe
    engine: str  # engine kind and dtype, as far as they may change the answer
    sample_index: int
    prompt: Prepared
    sampling: Sampling
    # The name of the answer in the journal: the sha256 of (prompt_id, model, sample_index, digest).
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self._named(self.digest))

    @property
    def most_tokens(self) -> tuple[int, int]:
        """The most that it can take: (tokens of the prompt, tokens generated).

        A token has at least one byte, so the bytes of the prompt bound its tokens where the engine does not know them.
        """
        known = self.prompt.num_tokens or len(self.prompt.text.encode("utf-8", "surrogatepass"))
        return known, self.sampling.max_tokens

    @property
    def digest(self) -> str:
        """The sha256 of all that may change the answer, except the model: text, engine kind and sampling."""
        return _sha256(json.dumps(self._fields(), sort_keys=True))

    @property
    def family(self) -> str:
        """The sha256 that two requests share when they differ in nothing but `max_tokens`."""
        return self._named(self._fields() | {"max_tokens": None})

    def _fields(self) -> dict[str, object]:
        drawn = {name: getattr(self.sampling, name) for name in Sampling.__slots__}
        return {"prompt": self.prompt.text, "engine": self.engine, **drawn}

    def _named(self, about: object) -> str:
        return _sha256(json.dumps([self.prompt_id, self.model, self.sample_index, about], sort_keys=True))


class Requests(Protocol):
    """Requests by number, which need not be in memory: each `take` may make them anew."""

    def __len__(self) -> int: ...

    def take(self, numbers: IntArray) -> Iterator[Request]:
        """Yield the requests of these numbers, in their order."""


class Listed(list[Request]):
    """Requests that are few enough to be held."""

    def take(self, numbers: IntArray) -> Iterator[Request]:
        """Yield the requests of these numbers, in their order."""
        return (self[number] for number in numbers.tolist())


class Chosen:
    """Some of many requests, by their numbers."""

    def __init__(self, requests: Requests, numbers: IntArray) -> None:
        self._requests, self._numbers = requests, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, numbers: IntArray) -> Iterator[Request]:
        """Yield the requests of these numbers, in their order."""
        return self._requests.take(self._numbers[numbers])


@dataclass(frozen=True, kw_only=True)
class Said:
    """The raw answer to one request, before anything has parsed it.

    The journal keeps each field in a column of the same name, and its checksum takes them in this order.
    """

    text: str  # empty where `error` is set
    reasoning: str | None = None  # where the server keeps it apart from the text
    finish_reason: str  # stop, length, error, or what else a server says (content_filter)
    num_prompt_tokens: int | None = None  # as the server counts them; None: as the request's prompt says
    num_tokens: int | None  # generated, reasoning and end token included; None: nobody has counted them
    seconds: float = 0.0  # its share of the engine's wall time: the shares of a run add up to its busy time
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer(Said):
    """A raw answer together with its request."""

    request: Request
    counted_here: bool = False  # its server has not counted the tokens, a tokenizer here has


@dataclass(frozen=True, kw_only=True)
class Entry(Said):
    """The journal's newest answer to one request; `attempt` is the number of errors that came before it."""

    attempt: int
    counted_here: bool = False  # as of an `Answer`; the journal itself returns what the server said


EMPTY = Prepared(text="", num_tokens=0, refusal="the prompt is empty")


def conversation(messages: Messages, system_prompt: str | None) -> list[Mapping[str, str]]:
    """Return the turns that the teacher is shown, or [] where the last turn is empty, so that nothing is asked.

    The teacher's system prompt is put in front unless the conversation begins with one of its own.
    """
    turns = list(messages)
    if not turns or not turns[-1]["content"].strip():
        return []
    if system_prompt is not None and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system_prompt})
    return turns


def well_formed(text: str) -> str:
    """Replace half a surrogate pair, which a server may cut a token down to, with U+FFFD: it is no valid text."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def seed_from(*parts: object) -> int:
    """Derive a seed of 63 bits that depends on all parts (plain JSON values)."""
    return int(_sha256(json.dumps(parts))[:16], 16) >> 1


def failed(reason: str | None) -> Said:
    """Make the record of a request that got no answer, for `reason`."""
    return Said(text="", finish_reason="error", num_tokens=0, error=reason)


def answer_to(request: Request, said: Said, *, seconds: float = 0.0) -> Answer:
    """Join a request with what was said to it in `seconds`."""
    return Answer(**{**vars(said), "request": request, "seconds": seconds})


def refuse(request: Request) -> Answer:
    """Turn a request that cannot be asked into its answer: an error with its reason, no tokens spent."""
    return answer_to(request, failed(request.prompt.refusal))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
