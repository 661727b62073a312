"""Samples on their way from a teacher's answer to a row: reasoning cut off, verified, one per cell selected."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from persyn_hf.backends.engines import seed_from
from persyn_hf.backends.journal import Entry


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


def select(samples: Sequence[Sample], salt: str) -> list[Sample]:
    """Keep one sample of each cell: a correct one, else a wrong one, both drawn; else the first that is no error."""
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
        "status": "error" if entry.error else "ok",
        "error": entry.error,
        "split": sample.prompt["split"],
    }


def count(samples: Sequence[Sample]) -> dict[str, int]:
    answered = [sample for sample in samples if sample.entry.error is None]
    return {
        "requested": len(samples),
        "answered": len(answered),
        "errors": len(samples) - len(answered),
        "truncated": sum(sample.entry.finish_reason == "length" for sample in answered),
        "correct": sum(sample.is_correct is True for sample in answered),
        "unjudged": sum(sample.is_correct is None for sample in answered),
    }


def measure(samples: Sequence[Sample]) -> dict[str, Any]:
    """One teacher's line in the card's table; accuracy is over selected samples that could be judged."""
    counts = count(samples)
    verdicts = [sample.is_correct for sample in samples if sample.selected and sample.is_correct is not None]
    answered = max(counts["answered"], 1)
    return {
        "rows": len(samples),
        "accuracy": sum(verdicts) / len(verdicts) if verdicts else None,
        "truncated": counts["truncated"] / answered,
        "errors": counts["errors"] / max(len(samples), 1),
        "mean_tokens": sum(s.entry.num_tokens for s in samples if s.entry.error is None) / answered,
    }
