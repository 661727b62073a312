"""The interface of engines, which run a teacher; what they are asked and say is in `backends.answers`."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from persyn_hf.backends.answers import Answer, Batch, Messages, Prepared, Requests
from persyn_hf.backends.engines.counting import Counter


class Engine(Protocol):
    """One loaded (or loadable) teacher; a context manager, so that its memory is free afterwards.

    Engines derive from it: entering and leaving is the same for all.
    """

    kind: str  # part of the request's digest
    model: str  # part of the request's key
    fixed_batches: bool  # an answer depends on the batch it is in, so the journal keeps the plan of the batches

    @property
    def params_b(self) -> float | None:
        """The number of parameters in billions; None where the engine cannot tell."""

    @property
    def collects_from(self) -> str | None:
        """The service whose batches it collects, as notes of batches name it; most engines collect none."""
        return None

    @property
    def counter(self) -> Counter | None:
        """The tokenizer that counts where the engine's server does not; None where there is none, or no need."""
        return None

    def prepare(self, messages: Messages) -> Prepared:
        """Render a conversation; a conversation that cannot be asked is prepared with a `refusal`."""

    def plan(self, requests: Requests) -> Iterator[Batch]:
        """Group requests into batches; the same requests give the same batches. A server makes its own: one each."""
        return ([request] for request in requests.take(np.arange(len(requests))))

    def send(self, batches: Iterable[Batch]) -> None:
        """Send what is answered without being waited for, as by a batch API; other engines send nothing ahead."""
        return

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Answer every request of the batches, and yield lists of answers in order of completion."""

    def close(self) -> None:
        """Free the model."""

    def when_waiting(self, listener: Callable[[str | None], None]) -> None:
        """Have `listener` told why nothing can be asked, and None when it can again; most engines never wait."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
