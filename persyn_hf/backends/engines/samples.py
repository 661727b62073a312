"""Turn a teacher's answers into rows: cut the reasoning off, note the verdicts, select one sample per cell."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persyn_hf.backends.answers import Entry, Request, Said, seed_from
from persyn_hf.backends.thoughts import Tags, split_thoughts
from persyn_hf.core.endings import ending, is_cut, is_whole


ODD = ("unknown_end", "uncounted", "counted_here")  # counts of answers that are told where there are any


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


def to_sample(prompt: Mapping[str, Any], request: Request, entry: Entry, round: int, think_tags: Tags = ()) -> Sample:
    """Make a sample of a journalled answer, its reasoning cut off where the server has not done so."""
    response, reasoning = split_response(request, entry, think_tags)
    return Sample(
        prompt=prompt, index=request.sample_index, entry=entry, response=response, reasoning=reasoning, round=round
    )


def split_response(request: Request, said: Said, think_tags: Tags = ()) -> tuple[str, str | None]:
    """Separate an answer from its reasoning: (answer, reasoning or None).

    A server that keeps reasoning apart may leave some of it in the answer.
    """
    answer, thoughts = split_thoughts(said.text, request.prompt.text, think_tags)
    if said.reasoning is None:
        return answer, thoughts
    return answer, f"{said.reasoning}\n{thoughts}" if thoughts else said.reasoning


def usable(sample: Sample) -> bool:
    """Tell whether there is an answer that is not known to be cut off."""
    return sample.entry.error is None and bool(sample.response.strip()) and not is_cut(sample.entry.finish_reason)


def is_right(sample: Sample) -> bool:
    """Tell whether the answer is correct, and may be trained on."""
    return sample.is_correct is True and usable(sample)


def select(samples: Sequence[Sample], salt: str) -> list[Sample]:
    """Mark the one sample of each cell that is kept (`selected`).

    One that can be trained on stands before one that may have been cut off, and that before one that was, or is empty.
    Of these a correct one is kept, else a wrong one, both drawn, the best judged ones where a quality came along; else
    the first, or the best judged. The draw depends on `salt` and the prompt only.
    """
    kept = set()
    for prompt_id, rows in answered(samples).items():
        draw = random.Random(seed_from(salt, prompt_id))
        rows = contenders(samples, rows)
        judged = _best(rows, [samples[row].quality for row in rows])
        kept.add(draw.choice(judged[:1] if samples[rows[0]].is_correct is None else judged))
    return [replace(sample, selected=row in kept) for row, sample in enumerate(samples)]


def answered(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Return the rows of each prompt's answers, errors left out."""
    cells: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        if sample.entry.error is None:
            cells.setdefault(sample.prompt["prompt_id"], []).append(row)
    return cells


def contenders(samples: Sequence[Sample], rows: list[int]) -> list[int]:
    """Return the rows, among those of a cell's answers, that only a quality tells apart: as usable, and as right."""
    rows = _best(rows, [_merit(samples[row]) for row in rows])
    correct = [row for row in rows if samples[row].is_correct]
    wrong = [row for row in rows if samples[row].is_correct is False]
    return correct or wrong or rows


def _merit(sample: Sample) -> int:
    """Rate a sample. 2: it can be trained on; 1: it may have been cut off; 0: it was, or there is no answer."""
    return usable(sample) * (1 + is_whole(sample.entry.finish_reason))


def _best(rows: list[int], merits: Sequence[float | None]) -> list[int]:
    """Return the rows of the highest merit; all of them where none is known."""
    most = max((merit for merit in merits if merit is not None), default=None)
    return [row for row, merit in zip(rows, merits, strict=True) if merit == most]


def to_row(teacher: str, sample: Sample) -> dict[str, Any]:
    """Make the row of a sample in the responses dataset."""
    entry = sample.entry
    return {
        "prompt_id": sample.prompt["prompt_id"],
        "teacher": teacher,
        "sample_index": sample.index,
        "response": "" if entry.error else sample.response,
        "reasoning": sample.reasoning,
        "finish_reason": ending(entry.finish_reason),
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
    prompt_tokens: int | None = 0  # None: of some answers nobody has counted them
    completion_tokens: int | None = 0
    seconds: float = 0.0

    def add(self, samples: Sequence[Sample]) -> None:
        """Add samples. An error costs what its server had written; where that is nothing, no prompt is charged for."""
        for sample in samples:
            entry, answered = sample.entry, sample.entry.error is None
            asked = answered and entry.finish_reason != "imported"
            self.counts.update(
                requested=1,
                answered=answered,
                errors=not answered,
                truncated=answered and is_cut(entry.finish_reason),
                unknown_end=answered and not is_cut(entry.finish_reason) and not is_whole(entry.finish_reason),
                counted_here=entry.counted_here,
                uncounted=asked and None in (entry.num_prompt_tokens, entry.num_tokens),
                counted=answered and entry.num_tokens is not None,
                correct=sample.is_correct is True,
                unjudged=answered and sample.is_correct is None,
                judged_selected=sample.selected and sample.is_correct is not None,
                right_selected=sample.selected and sample.is_correct is True,
                answered_tokens=(entry.num_tokens or 0) if answered else 0,
            )
            charged = answered or entry.num_tokens
            self.prompt_tokens = add_known(self.prompt_tokens, entry.num_prompt_tokens if charged else 0)
            self.completion_tokens = add_known(self.completion_tokens, entry.num_tokens)
            self.seconds += entry.seconds

    def metrics(self) -> dict[str, Any]:
        """Compute one teacher's line in the card's table; accuracy is over selected samples that could be judged.

        `mean_tokens` is over the answers whose tokens were counted. `ODD`, shares of the answers, are there where
        they are not 0.
        """
        counts, answered = self.counts, max(self.counts["answered"], 1)
        odd = {name: counts[name] / answered for name in ODD if counts[name]}
        counted = counts["counted"] or (0 if counts["answered"] else 1)
        return {
            "rows": counts["requested"],
            "accuracy": counts["right_selected"] / counts["judged_selected"] if counts["judged_selected"] else None,
            "truncated": counts["truncated"] / answered,
            "errors": counts["errors"] / max(counts["requested"], 1),
            "mean_tokens": counts["answered_tokens"] / counted if counted else None,
        } | odd


def add_known(total: int | None, number: int | None) -> int | None:
    """Add to a sum; None where a part of it is not known."""
    return None if total is None or number is None else total + number
