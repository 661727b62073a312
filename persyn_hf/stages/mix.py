"""Stage `mix`: assignments and responses in, supervised fine-tuning rows out (PerSyn, section 2.2)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from persyn_hf.core.mixing import Row, chosen_responses, drop_reason, further_responses, sft_rows
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import Strict
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, SFT
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS, "assignments": ASSIGNMENTS, "responses": RESPONSES}
OPTIONAL_INPUTS = {
    "rewards": REWARDS,  # of the calibration matrix
    "pool_rewards": REWARDS,  # of a strategy's answers, or of all answers to the pool
    "calibration": RESPONSES,  # everybody's, of which `answers_per_prompt` takes further ones
    "pool": RESPONSES,
}
OUTPUT = SFT
VERSION = 2  # 2: answers that may have been cut off are left out; the oracle's rows carry their reward
LATER = {"unknown_ends": False, "answers_per_prompt": {"calibration": 1, "pool": 1}}


class AnswersPerPrompt(Strict):
    """The answers that a prompt is trained on at most, by split. Only those are taken that the strategy pays for."""

    calibration: int = Field(
        default=1, ge=1, le=1000, description="Of a calibration prompt, which several teachers have answered."
    )
    pool: int = Field(
        default=1, ge=1, le=1000, description="Of a pool prompt: samples of its teacher, and of teachers asked later."
    )


class Settings(Strict):
    """The settings of this stage. Their defaults live here and nowhere else."""

    keep_incorrect: bool = Field(
        default=True, description="A wrong answer is trained on where the teacher has no right one, as in the paper."
    )
    unknown_ends: bool = Field(
        default=False,
        description="Answers are trained on whose server does not say how they ended. They may be cut off.",
    )
    answers_per_prompt: AnswersPerPrompt = Field(
        default=AnswersPerPrompt(),
        description="The answers of different wording that a prompt is trained on. The further ones are never wrong.",
    )


def run(
    settings: Settings,
    context: Context,
    *,
    prompts: "Dataset",
    assignments: "Dataset",
    responses: "Dataset",
    rewards: "Dataset | None" = None,
    pool_rewards: "Dataset | None" = None,
    calibration: "Dataset | None" = None,
    pool: "Dataset | None" = None,
) -> Result:
    """Take one response per assigned prompt, in prompt order; count those that cannot be trained on, by reason.

    Rewards choose among several answers to a prompt; `pool_rewards` go before `rewards`. Further answers of
    `answers_per_prompt` come from `responses`, `calibration` and `pool`.

    Raises:
        InputError: inputs do not fit together, or no response can be trained on.
    """
    measured: dict[tuple[str, str], float | None] = {}
    for scored in (rewards, pool_rewards):
        if scored is not None:
            cells = zip(scored["prompt_id"][:], scored["teacher"][:], strict=True)
            measured |= dict(zip(cells, scored["reward"][:], strict=True))
    assigned = _assigned(prompts, assignments, measured)
    chosen = chosen_responses(assigned, responses, measured, unknown_ends=settings.unknown_ends)
    keep = {"keep_incorrect": settings.keep_incorrect, "unknown_ends": settings.unknown_ends}
    order = [teacher.name for teacher in context.teachers]
    known = _oracle_rewards(assignments, order) | measured
    usable = {name: row for name, row in chosen.items() if drop_reason(row, **keep) is None}
    paid = chain.from_iterable(some for some in (responses, calibration, pool) if some is not None)
    further = _further(settings, prompts, assigned, usable, paid, known)
    rows, dropped = sft_rows(prompts, assigned, chosen, known, further, **keep)
    if not rows:
        hint = ", or let `mix: {unknown_ends: true}` take what may be cut off" if dropped["unknown_end"] else ""
        found = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number)
        raise InputError(
            f"none of {len(assigned)} assigned prompts has a response to train on ({found}); see `generate`{hint}"
        )
    counts = {"assigned": len(assigned)}
    counts |= {f"dropped_{reason}": number for reason, number in dropped.items() if number or reason != "unknown_end"}
    more = list(chain.from_iterable(further.values()))
    if settings.answers_per_prompt != AnswersPerPrompt():
        counts["further"] = len(more)
    kept = [*usable.values(), *more]
    counts["incorrect"] = sum(response["is_correct"] is False for response in kept)
    counts["unjudged"] = sum(response["is_correct"] is None for response in kept)
    counts["escalated"] = sum(response["round"] > 0 for response in kept)
    return Result(data=OUTPUT.dataset(rows), counts=counts, metrics=_metrics(kept, order))


def _further(
    settings: Settings,
    prompts: "Dataset",
    assigned: Mapping[str, list[str]],
    usable: Mapping[str, Row],
    paid: Iterable[Row],
    rewards: Mapping[tuple[str, str], float | None],
) -> dict[str, list[Row]]:
    """Return the further answers of each assigned prompt; an answer that is in two inputs is one."""
    each = settings.answers_per_prompt.model_dump()
    wanted = {
        prompt_id: each.get(split, 1)
        for prompt_id, split in zip(prompts["prompt_id"][:], prompts["split"][:], strict=True)
        if prompt_id in assigned and each.get(split, 1) > 1
    }
    if not wanted:
        return {}
    return further_responses(usable, paid, rewards, wanted, unknown_ends=settings.unknown_ends)


def _assigned(
    prompts: "Dataset", assignments: "Dataset", rewards: Mapping[tuple[str, str], float | None]
) -> dict[str, list[str]]:
    """Return prompt_id -> its teachers, best first.

    Refuses prompts that are not in `prompts`, and prompts of several teachers of which none has a reward.
    """
    assigned: dict[str, list[str]] = {}
    for prompt_id, teacher in zip(assignments["prompt_id"][:], assignments["teacher"][:], strict=True):
        assigned.setdefault(prompt_id, []).append(teacher)
    several = {prompt_id: teachers for prompt_id, teachers in assigned.items() if len(teachers) > 1}
    blind = [p for p, teachers in several.items() if not any((p, teacher) in rewards for teacher in teachers)]
    if blind:
        raise InputError(
            f"{len(blind)} prompts (first {min(blind)}) are assigned to several teachers, and no reward says whose "
            "answer to keep; give `pool_rewards`, the rewards of their responses, or assignments of one teacher each"
        )
    unknown = assigned.keys() - set(prompts["prompt_id"][:])
    if unknown:
        raise InputError(
            f"{len(unknown)} assigned prompts (first {min(unknown)}) are not in `prompts`; "
            f"give the prompts that the assignments were made from"
        )
    return assigned


def _oracle_rewards(assignments: "Dataset", order: list[str]) -> dict[tuple[str, str], float | None]:
    """Return the reward of each cell that was assigned by it: the scores of an oracle are the measured rewards.

    No stage reads the column `reward` of its training rows, so that what was stored without it is as good for training
    and `VERSION` stays.
    """
    sources = assignments["source"][:]
    decided = assignments.select([row for row, source in enumerate(sources) if source == "oracle"])
    cells = zip(decided["prompt_id"][:], decided["teacher"][:], decided["scores"][:], strict=True)
    return {
        (prompt_id, teacher): scores[order.index(teacher)]
        for prompt_id, teacher, scores in cells
        if len(scores) == len(order) and teacher in order
    }


def _metrics(kept: list[Any], order: list[str]) -> dict[str, Any]:
    """Return the share of right answers among the judged, and per teacher its share of rows and its mean tokens."""
    judged = [response["is_correct"] for response in kept if response["is_correct"] is not None]
    number = Counter(response["teacher"] for response in kept)
    teachers = [*order, *sorted(set(number) - set(order))]
    counted: dict[str, list[int]] = {teacher: [] for teacher in teachers if number[teacher]}
    for response in kept:
        if response["num_tokens"] is not None:
            counted[response["teacher"]].append(response["num_tokens"])
    tokens = {teacher: float(np.mean(found)) if found else None for teacher, found in counted.items()}
    return {
        "correct_share": sum(judged) / len(judged) if judged else None,
        "allocation": {teacher: number[teacher] / len(kept) for teacher in teachers},
        "mean_tokens": tokens,
    }
