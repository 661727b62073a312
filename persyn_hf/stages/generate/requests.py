"""Make the requests of cells: what one teacher is asked about its prompts, sample by sample."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from persyn_hf.backends.answers import Request, Sampling, seed_from
from persyn_hf.backends.dataset_rows import AT_A_TIME, Rows, in_parts
from persyn_hf.backends.engines import Engine
from persyn_hf.core.arrays import IntArray
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stages.generate.settings import Settings, num_samples


Prompt = Mapping[str, Any]  # a row of the prompts dataset
Pair = tuple[Request, Prompt]
Make = Callable[[Prompt, Iterable[int]], list[Request]]  # the requests of a cell, of these samples


class CellRequests:
    """The requests of cells of one teacher, made anew whenever they are asked for: a driver cannot hold millions.

    Number n is of the prompt in row `rows[n // len(samples)]`, and its sample `samples[n % len(samples)]`. The latest
    ones are kept, so that those of a step of `AT_A_TIME` cells are made once.
    """

    def __init__(self, make: Make, prompts: Rows, rows: IntArray, samples: range) -> None:
        self._make, self._prompts = make, prompts
        self.rows, self.samples = rows, samples
        self._latest: dict[int, Pair] = {}

    def __len__(self) -> int:
        return len(self.rows) * len(self.samples)

    def of(self, rows: IntArray, samples: range) -> "CellRequests":
        """Return requests of other rows and samples, made in the same way."""
        return CellRequests(self._make, self._prompts, rows, samples)

    def numbers(self, places: IntArray) -> IntArray:
        """Return the numbers of all requests of the cells at these places in `rows`."""
        return np.add.outer(places * len(self.samples), np.arange(len(self.samples))).ravel()

    def take(self, numbers: IntArray) -> Iterator[Request]:
        """Yield the requests of these numbers, in their order."""
        return (request for request, _ in self.pairs(numbers))

    def pairs(self, numbers: IntArray) -> Iterator[Pair]:
        """Yield requests as `take`, each with the row of its prompt."""
        for some in in_parts(numbers, AT_A_TIME * len(self.samples)):
            wanted = some.tolist()
            if any(number not in self._latest for number in wanted):
                self._latest = self._made(some)
            latest = self._latest
            yield from (latest[number] for number in wanted)

    def _made(self, numbers: IntArray) -> dict[int, Pair]:
        each, places = len(self.samples), np.unique(numbers // len(self.samples))
        samples: dict[int, list[int]] = {}
        for number in numbers.tolist():
            samples.setdefault(number // each, []).append(self.samples[number % each])
        made: dict[int, Pair] = {}
        for place, prompt in zip(places.tolist(), self._prompts.at(self.rows[places]), strict=True):
            for request in self._make(prompt, samples[place]):
                made[place * each + self.samples.index(request.sample_index)] = (request, prompt)
        return made


def cell_requests(
    settings: Settings,
    seed: int,
    engine: Engine,
    teacher: Teacher,
    prompt: Prompt,
    samples: Iterable[int] | None = None,
) -> list[Request]:
    """Make the requests of one cell, one per sample; `persyn plan` and the step itself look them up by their keys.

    Their seeds follow from the recipe's seed, the prompt and the sample's index. Greedy answers depend on no seed, so
    they all have seed 0, and runs of any seed share them. samples: null is all of them.
    """
    prompt_id = prompt["prompt_id"]
    prepared = engine.prepare(prompt["messages"])
    settings = settings.of(teacher)
    greedy = settings.temperature == 0
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=1.0 if greedy else settings.top_p,
        top_k=0,
        max_tokens=settings.max_tokens,
        seed=0,
    )
    return [
        Request(
            prompt_id=prompt_id,
            model=engine.model,
            engine=engine.kind,
            sample_index=index,
            prompt=prepared,
            sampling=sampling if greedy else replace(sampling, seed=seed_from(seed, prompt_id, index)),
        )
        for index in (range(num_samples(settings, teacher)) if samples is None else samples)
    ]
