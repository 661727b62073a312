"""Turn a teacher's answers into rows: cut the reasoning off, note the verdicts, select one sample per cell."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persyn_hf.backends.answers import Entry, Request, Said, seed_from
from persyn_hf.backends.chat import split_reasoning
from persyn_hf.core.mixing import CUT_OFF


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response on its way to a row; `prompt` is its row of the prompts dataset."""

    prompt: Mapping[str, Any]
    index: int
    entry: Entry
    response: str
    reasoning: str | None = None
    quality: float | None = None
    is_correct: bool | None = None
    selected: bool = False
    round: int = 0  # 0: assigned; k: the k-th teacher tried after it


def to_sample(prompt: Mapping[str, Any], request: Request, entry: Entry, round: int) -> Sample:
    """Make a sample of a journalled answer; its reasoning is cut off where the server has not done so."""
    response, reasoning = split_response(request, entry)
    return Sample(
        prompt=prompt, index=request.sample_index, entry=entry, response=response, reasoning=reasoning, round=round
    )


def split_response(request: Request, said: Said) -> tuple[str, str | None]:
    """Separate an answer from its reasoning: (answer, reasoning or None)."""
    if said.reasoning is not None:
        return said.text, said.reasoning
    return split_reasoning(said.text, request.prompt.text)


def select(samples: Sequence[Sample], salt: str) -> list[Sample]:
    """Mark the one sample of each cell that is kept (`selected`).

    That is a correct one drawn at random, else a wrong one drawn at random, else the first that is no error. The
    draw depends on `salt` and the prompt only.
    """
    cells: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        if sample.entry.error is None:
            cells.setdefault(sample.prompt["prompt_id"], []).append(row)
    kept = set()
    for prompt_id, rows in cells.items():
        draw = random.Random(seed_from(salt, prompt_id))
        correct = [row for row in rows if samples[row].is_correct]
        wrong = [row for row in rows if samples[row].is_correct is False]
        kept.add(draw.choice(correct or wrong or rows[:1]))
    return [replace(sample, selected=row in kept) for row, sample in enumerate(samples)]


def to_row(teacher: str, sample: Sample) -> dict[str, Any]:
    """Make the row of a sample in the responses dataset."""
    entry = sample.entry
    return {
        "prompt_id": sample.prompt["prompt_id"],
        "teacher": teacher,
        "sample_index": sample.index,
        "response": "" if entry.error else sample.response,
        "reasoning": sample.reasoning,
        "finish_reason": entry.finish_reason,
        "num_prompt_tokens": entry.num_prompt_tokens,
        "num_tokens": entry.num_tokens,
        "is_correct": sample.is_correct,
        "quality": sample.quality,
        "selected": sample.selected,
        "round": sample.round,
        "status": "error" if entry.error else "ok",
        "error": entry.error,
        "split": sample.prompt["split"],
    }


@dataclass
class Totals:
    """The sums over one teacher's samples, for the counts, the card and the ledger."""

    counts: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, samples: Sequence[Sample]) -> None:
        """Add samples. An error costs the tokens that its server had written; its prompt is not charged for."""
        for sample in samples:
            entry, answered = sample.entry, sample.entry.error is None
            self.counts.update(
                requested=1,
                answered=answered,
                errors=not answered,
                truncated=answered and entry.finish_reason in CUT_OFF,
                correct=sample.is_correct is True,
                unjudged=answered and sample.is_correct is None,
                judged_selected=sample.selected and sample.is_correct is not None,
                right_selected=sample.selected and sample.is_correct is True,
                answered_tokens=entry.num_tokens if answered else 0,
            )
            self.prompt_tokens += entry.num_prompt_tokens if answered else 0
            self.completion_tokens += entry.num_tokens
            self.seconds += entry.seconds

    def metrics(self) -> dict[str, Any]:
        """Compute one teacher's line in the card's table; accuracy is over selected samples that could be judged."""
        counts, answered = self.counts, max(self.counts["answered"], 1)
        return {
            "rows": counts["requested"],
            "accuracy": counts["right_selected"] / counts["judged_selected"] if counts["judged_selected"] else None,
            "truncated": counts["truncated"] / answered,
            "errors": counts["errors"] / max(counts["requested"], 1),
            "mean_tokens": counts["answered_tokens"] / answered,
        }
