"""Measure answers with a model: rows in, a few numbers per row out.

The student's log-probabilities and a reward model's scores are measured alike. A `Scorer` knows the model; this module
cuts the rows into batches. Batches depend on nothing but the rows, so that a resumed run, or one with more processes,
gives the same numbers.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol

from persyn_hf.backends.batches import plan_batches
from persyn_hf.backends.chat import Row, Turn


Values = list[Any]  # what one row measures: plain JSON numbers, booleans, null
Measured = Generator[tuple[list[int], list[Values]]]  # finished rows (by number) with their values, batch by batch

CHARACTERS = 4  # per token, about
WINDOW = 8  # batches per window, about; a window is in memory as tokens at a time and falls to one process
WINDOWS = 64  # windows at least, where there are enough batches, so that many processes share them evenly


class Scorer(Protocol):
    """The interface of a model in memory that measures rows."""

    batch_tokens: int  # of a batch, as suits its device

    def encode(self, rows: Sequence[Row]) -> list[Turn]:
        """Encode rows as token ids, in their order."""

    def measure(self, turns: Sequence[Turn]) -> list[Values]:
        """Measure one batch, in its order."""


def score_rows(
    scorer: Scorer,
    rows: Sequence[Row],
    *,
    batch_tokens: int | None = None,
    skip: frozenset[int] = frozenset(),
    rank: int = 0,
    processes: int = 1,
) -> Measured:
    """Measure the rows that fall to process `rank` of `processes`, longest first, and yield them batch by batch.

    A batch holds rows of similar length, at most `batch_tokens` tokens with padding (None: what suits the device).
    Rows in `skip` are known already: they are not measured but keep their place in the batches.
    """
    batch_tokens = batch_tokens or scorer.batch_tokens
    for number, window in enumerate(_windows(rows, batch_tokens)):
        if number % processes != rank or skip.issuperset(window):
            continue
        turns = dict(zip(window, scorer.encode([rows[row] for row in window]), strict=True))
        for batch in plan_batches([len(turns[row].ids) for row in window], batch_tokens):
            todo = [window[place] for place in batch if window[place] not in skip]
            if todo:
                yield todo, scorer.measure([turns[row] for row in todo])


def _windows(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Yield row numbers by falling length, in parts of about the same work."""
    sizes = [sum(len(turn["content"]) for turn in messages) + len(response) for messages, response in rows]
    batch = CHARACTERS * batch_tokens
    size = min(max(sum(sizes) / WINDOWS, batch), WINDOW * batch)
    window: list[int] = []
    left = size
    for row in sorted(range(len(rows)), key=lambda row: (-sizes[row], row)):
        if window and left < sizes[row]:
            yield window
            window, left = [], size
        window.append(row)
        left -= sizes[row]
    if window:
        yield window
