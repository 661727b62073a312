"""Read from the journal what teachers have said, and keep account of what they were asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from persyn_hf.backends.answers import Chosen, Entry, Request, Requests
from persyn_hf.backends.dataset_rows import AT_A_TIME, in_parts
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines import ask as journalled
from persyn_hf.backends.engines.counting import fill, is_uncounted
from persyn_hf.backends.engines.samples import Sample, is_right, to_sample
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.journal import Journal
from persyn_hf.core.arrays import BoolArray, IntArray
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stages.generate.graded import grade
from persyn_hf.stages.generate.requests import CellRequests, Pair
from persyn_hf.stages.generate.settings import Settings


@dataclass(kw_only=True)
class Asked:
    """The record of what one teacher was asked in this step."""

    teacher: Teacher
    tally: journalled.Tally
    cells: CellRequests | None = None  # all that it was asked, in the order of the prompts
    rounds: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))  # of each cell; 0: assigned
    params_b: float | None = None  # billions of active parameters
    engine: Engine | None = None  # that was opened last; it is closed
    new: int = 0  # answers that this run has paid for

    def add(self, cells: CellRequests, round: int) -> None:
        """Note further cells, none of which it was asked before."""
        rounds = np.full(len(cells.rows), round)
        if self.cells is not None:
            rows = np.concatenate([self.cells.rows, cells.rows])
            order = np.argsort(rows, kind="stable")
            cells = cells.of(rows[order], cells.samples)
            rounds = np.concatenate([self.rounds, rounds])[order]
        self.cells, self.rounds = cells, rounds


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The reader of one step's answers."""

    settings: Settings
    journal: Journal
    grader: Grader | None

    def without_shorter(self, requests: CellRequests) -> Requests:
        """Leave out the requests for which a shorter answer stands."""
        if "truncated" not in self.settings.rerun:
            return requests
        numbers = np.arange(len(requests))
        kept = [np.zeros(0, np.int64)]
        for some in in_parts(numbers):
            made = list(requests.take(some))
            stands = self._shorter(made)
            kept.append(some[[request.key not in stands for request in made]])
        return Chosen(requests, np.concatenate(kept))

    def _shorter(self, requests: Sequence[Request]) -> dict[str, str]:
        """Find the requests for which a shorter answer stands, with `rerun: truncated`.

        Returns the key of a request -> the key of the same request with a smaller `max_tokens`, whose answer came to
        its end and stands for it.
        """
        rerun = self.settings.rerun
        return self.journal.finished_shorter(requests, errors="errors" not in rerun) if "truncated" in rerun else {}

    def entries(self, asked: Asked, requests: Mapping[str, Request]) -> dict[str, Entry]:
        """Read answers by key; tokens that a server has not counted are counted here, where that can be."""
        entries = self.journal.read(requests)
        if asked.engine is None or not any(map(is_uncounted, entries.values())):
            return entries
        return fill(asked.engine.counter, self.journal, requests, entries)

    def right(self, asked: Asked, cells: CellRequests) -> BoolArray:
        """Say of each cell whether an answer is correct, and may be trained on: (number of cells,)."""
        right = [np.zeros(0, dtype=bool)]
        for _, pairs in in_cells(cells):
            samples = self.read(asked, pairs, np.zeros(len(pairs), np.int64))
            names = {sample.prompt["prompt_id"] for sample in samples if is_right(sample)}
            right.append(np.array([request.prompt_id in names for request, _ in pairs]))
        return np.concatenate(right)

    def read(self, asked: Asked, pairs: Sequence[Pair], rounds: IntArray) -> list[Sample]:
        """Read the answers of requests as graded samples; `rounds` are those in which they were asked.

        With `stop_when_correct` a cell's samples end with its first correct one. The journal may hold later ones,
        because another strategy has asked for all of them.
        """
        stands = self._shorter([request for request, _ in pairs])
        keys = [stands.get(request.key, request.key) for request, _ in pairs]
        entries = self.entries(asked, {key: request for key, (request, _) in zip(keys, pairs, strict=True)})
        answered = [
            to_sample(prompt, request, entries[key], round, self.settings.think_tags)
            for (request, prompt), key, round in zip(pairs, keys, rounds.tolist(), strict=True)
            if key in entries or not self.settings.stop_when_correct
        ]
        samples = grade(self.grader, answered) if self.grader is not None else answered
        if not self.settings.stop_when_correct:
            return samples
        kept, right = [], set[str]()
        for sample in samples:
            if sample.prompt["prompt_id"] not in right:
                kept.append(sample)
            if is_right(sample):
                right.add(sample.prompt["prompt_id"])
        return kept


def in_cells(cells: CellRequests, places: IntArray | None = None) -> Iterator[tuple[IntArray, list[Pair]]]:
    """Yield the places of `AT_A_TIME` cells, and their requests with their prompts; null: of all cells."""
    for some in in_parts(np.arange(len(cells.rows)) if places is None else places, AT_A_TIME):
        yield some, list(cells.pairs(cells.numbers(some)))
