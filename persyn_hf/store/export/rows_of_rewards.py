"""Preferences and difficulties, of a `rewards` artifact and the answers that it was measured on.

The forms are TRL's; those of LLaMA-Factory and ms-swift are made of them.

Every teacher's answers to the calibration prompts were paid for, and say more than which one is best. Dev prompts,
which judge the router, are left out. Answers that a student could not be trained on (errors, cut off, empty) are left
out, too, on both sides: a trainer would learn that they are short, or cut.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from persyn_hf.core.conversations import full_response
from persyn_hf.core.mixing import drop_reason
from persyn_hf.core.preferences import Candidate, labels_of, pairs_of
from persyn_hf.core.references import alternatives
from persyn_hf.store.export.beside import llama_factory, ms_swift
from persyn_hf.store.export.forms import Beside, Form, Row, Wishes, input_of, nothing_beside
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


CHUNK = 100  # prompts whose answers are in memory

Make = Callable[[Row, Sequence[Row], Sequence[Candidate], Wishes, Counter[str]], Iterator[Row]]


def _rows(make: Make) -> Callable[[Store, Stored, Wishes, Counter[str]], Iterator[Row]]:
    """Make the rows of a form from those of each prompt: its row, its answers, and those of them to train on."""

    def rows(store: Store, stored: Stored, wishes: Wishes, counts: Counter[str]) -> Iterator[Row]:
        prompts, responses = (store.read_dataset(input_of(store, stored, word)) for word in ("prompts", "responses"))
        scored = store.read_dataset(stored)
        cells = zip(scored["prompt_id"][:], scored["teacher"][:], strict=True)
        reward = {cell: value for cell, value in zip(cells, scored["reward"][:], strict=True) if value == value}
        places: dict[str, list[int]] = {}
        for place, (prompt_id, split) in enumerate(zip(responses["prompt_id"][:], responses["split"][:], strict=True)):
            if split != "dev":
                places.setdefault(prompt_id, []).append(place)
        asked = [place for place, prompt_id in enumerate(prompts["prompt_id"][:]) if prompt_id in places]
        for start in range(0, len(asked), CHUNK):
            for prompt in prompts.select(asked[start : start + CHUNK]):
                answers = list(responses.select(places[prompt["prompt_id"]]))
                counts["prompts"] += 1
                yield from make(prompt, answers, _usable(answers, reward), wishes, counts)

    return rows


def _usable(answers: Sequence[Row], reward: dict[tuple[str, str], float | None]) -> list[Candidate]:
    """Return the answers that could be trained on; the one of a cell that was scored has its reward."""
    return [
        Candidate(
            teacher=answer["teacher"],
            text=full_response(answer),
            is_correct=answer["is_correct"],
            reward=reward.get((answer["prompt_id"], answer["teacher"])) if answer["selected"] else None,
        )
        for answer in answers
        if drop_reason({**answer, "selected": True}, keep_incorrect=True) is None
    ]


def _dpo(
    prompt: Row, answers: Sequence[Row], usable: Sequence[Candidate], wishes: Wishes, counts: Counter[str]
) -> Iterator[Row]:
    found = pairs_of(usable, most=wishes.pairs, margin=wishes.margin, same_teacher=wishes.same_teacher)
    counts["prompts without a pair"] += not found
    for pair in found:
        yield {"prompt": prompt["messages"], "chosen": _said(pair.chosen), "rejected": _said(pair.rejected)} | {
            "chosen_teacher": pair.chosen.teacher,
            "rejected_teacher": pair.rejected.teacher,
        }


def _reward_model(
    prompt: Row, answers: Sequence[Row], usable: Sequence[Candidate], wishes: Wishes, counts: Counter[str]
) -> Iterator[Row]:
    """Make pairs with the reward between them: of answers that were scored, whose reward and verdict agree."""
    scored = [candidate for candidate in usable if candidate.reward is not None]
    found = pairs_of(scored, most=len(scored) ** 2 or 1, margin=wishes.margin, same_teacher=wishes.same_teacher)
    kept = [pair for pair in found if pair.margin is not None and pair.margin > wishes.margin][: wishes.pairs]
    counts["prompts without a pair"] += not kept
    for pair in kept:
        both = {"chosen": _said(pair.chosen), "rejected": _said(pair.rejected)}
        yield {"prompt": prompt["messages"], **both, "margin": pair.margin}


def _kto(
    prompt: Row, answers: Sequence[Row], usable: Sequence[Candidate], wishes: Wishes, counts: Counter[str]
) -> Iterator[Row]:
    for candidate, label in zip(usable, labels_of(usable, margin=wishes.margin), strict=True):
        counts["answers without a label"] += label is None
        if label is not None:
            yield {"prompt": prompt["messages"], "completion": _said(candidate), "label": label} | {
                "teacher": candidate.teacher
            }


def _grpo(
    prompt: Row, answers: Sequence[Row], usable: Sequence[Candidate], wishes: Wishes, counts: Counter[str]
) -> Iterator[Row]:
    """Make a row of a prompt with a reference; how often teachers are right tells how hard it is."""
    if prompt["reference"] is None:
        counts["prompts without a reference"] += 1
        return
    rates: dict[str, list[bool]] = {}
    for answer in answers:
        if answer["is_correct"] is not None:
            rates.setdefault(answer["teacher"], []).append(answer["is_correct"])
    verdicts = [verdict for of in rates.values() for verdict in of]
    yield {
        "prompt": prompt["messages"],
        "solution": alternatives(prompt["reference"])[0],
        "pass_rate": sum(verdicts) / len(verdicts) if verdicts else None,
        "pass_rates": {teacher: sum(of) / len(of) for teacher, of in rates.items()},
    }


def _said(candidate: Candidate) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": candidate.text}]


def _turned(make: Make, turn: Callable[[Row], Row]) -> Make:
    """Make the rows of another trainer's form out of TRL's."""

    def made(*given: Any) -> Iterator[Row]:
        return map(turn, make(*given))

    return made


def _ranked(row: Row) -> Row:
    """Turn a pair into LLaMA-Factory's: the prompt, and a message for each of the two."""
    return {"messages": row["prompt"], "chosen": row["chosen"][0], "rejected": row["rejected"][0]}


def _tagged(row: Row) -> Row:
    """Turn a labelled answer into LLaMA-Factory's for KTO."""
    return {"messages": [*row["prompt"], *row["completion"]], "kto_tag": row["label"]}


def _rejecting(row: Row) -> Row:
    """Turn a pair into ms-swift's: a conversation, and the text that could have been its last answer."""
    return {"messages": [*row["prompt"], *row["chosen"]], "rejected_response": row["rejected"][0]["content"]}


def _labelled(row: Row) -> Row:
    """Turn a labelled answer into ms-swift's for KTO."""
    return {"messages": [*row["prompt"], *row["completion"]], "label": row["label"]}


def _form(make: Make, beside: Callable[[Store, Stored, Path], Beside] = nothing_beside) -> Form:
    return Form(kind="rewards", rows=_rows(make), beside=beside)


FORMS = {
    "dpo": _form(_dpo),
    "kto": _form(_kto),
    "reward-model": _form(_reward_model),
    "grpo": _form(_grpo),
    "llama-factory-dpo": _form(_turned(_dpo, _ranked), llama_factory("chosen", "rejected", ranking=True)),
    "llama-factory-kto": _form(_turned(_kto, _tagged), llama_factory("kto_tag")),
    "ms-swift-dpo": _form(_turned(_dpo, _rejecting), ms_swift),
    "ms-swift-kto": _form(_turned(_kto, _labelled), ms_swift),
}
