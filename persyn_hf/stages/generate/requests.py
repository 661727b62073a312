"""Make the requests of a cell: what one teacher is asked about one prompt, sample by sample."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from persyn_hf.backends.answers import Request, Sampling, seed_from
from persyn_hf.backends.engines import Engine
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stages.generate.settings import Settings, num_samples


Prompt = Mapping[str, Any]  # a row of the prompts dataset


def cell_requests(settings: Settings, seed: int, engine: Engine, teacher: Teacher, prompt: Prompt) -> list[Request]:
    """Make the requests of one cell, one per sample; `persyn plan` and the step itself look them up by their keys.

    Their seeds follow from the recipe's seed, the prompt and the sample's index. Greedy answers depend on no seed, so
    they all have seed 0, and runs of any seed share them.
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
        for index in range(num_samples(settings, teacher))
    ]
