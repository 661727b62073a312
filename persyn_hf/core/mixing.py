"""Turn assigned responses into training examples, in prompt order; every dropped one has a reason.

A prompt has one example, and where more are wanted, further answers that were paid for anyway.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from persyn_hf.core.conversations import full_response
from persyn_hf.core.endings import is_cut, is_whole
from persyn_hf.core.wording import words_of


Row = Mapping[str, Any]

DROP_REASONS = ("missing", "error", "truncated", "unknown_end", "empty", "incorrect")


def chosen_responses(
    assigned: Mapping[str, Sequence[str]],
    responses: Iterable[Row],
    rewards: Mapping[tuple[str, str], float | None],
    *,
    unknown_ends: bool = False,
) -> dict[str, Row]:
    """Choose one response per prompt, among its assigned teachers' and those of teachers tried later (`round` > 0).

    Args:
        assigned: prompt_id -> the teachers assigned to it, best first.
        responses: rows of a responses dataset.
        rewards: (prompt_id, teacher) -> reward.

    Returns:
        prompt_id -> the response kept; a prompt without any response is not in it.

    A usable answer goes before one that cannot be trained on. Then, where several teachers were assigned
    (`per_prompt`), the highest reward decides; where one was, an answer that is right goes before one that is not.
    Ties go by the order of assignment, then of rounds. The selected sample of a cell stands for it; an unselected one
    is kept only to tell an error from a missing response.
    """
    cells: dict[str, dict[str, Row]] = {}
    for row in responses:
        prompt_id, teacher = row["prompt_id"], row["teacher"]
        if teacher not in assigned.get(prompt_id, ()) and not row["round"]:
            continue
        answers = cells.setdefault(prompt_id, {})
        if teacher not in answers or (row["selected"] and not answers[teacher]["selected"]):
            answers[teacher] = row

    def merit(row: Row) -> tuple[float, ...]:
        """Order a prompt's answers: usable, higher reward of several assigned, right where one is, asked earlier."""
        teachers = assigned[row["prompt_id"]]
        reward = rewards.get((row["prompt_id"], row["teacher"]))
        place = teachers.index(row["teacher"]) if row["teacher"] in teachers else len(teachers) + row["round"]
        usable = drop_reason(row, keep_incorrect=True, unknown_ends=unknown_ends) is None
        by_reward = -math.inf if reward is None or len(teachers) == 1 else reward
        return usable, by_reward, len(teachers) == 1 and row["is_correct"] is True, -place

    return {name: max(answers.values(), key=merit) for name, answers in cells.items() if name in assigned}


def further_responses(
    chosen: Mapping[str, Row],
    responses: Iterable[Row],
    rewards: Mapping[tuple[str, str], float | None],
    at_most: Mapping[str, int],
    *,
    unknown_ends: bool = False,
) -> dict[str, list[Row]]:
    """Choose the answers that a prompt is trained on beside the one that `chosen_responses` chose.

    Args:
        chosen: prompt_id -> the response that is kept already, where it can be trained on.
        responses: rows of responses datasets; any teacher's and any sample may be taken.
        rewards: (prompt_id, teacher) -> reward.
        at_most: prompt_id -> how many answers it may have in all; other prompts get none.

    Returns:
        prompt_id -> further responses, best first. None of them is wrong, cut off or empty, and no two answers to a
        prompt have the same words (`core.wording`), the kept one among them. Right ones go before unjudged ones, then
        the higher reward, then the selected sample, then one of higher quality, then the order of `responses`.
    """
    found: dict[str, list[Row]] = {}
    for row in responses:
        sample = {**row, "selected": True}
        if row["prompt_id"] in at_most and not drop_reason(sample, keep_incorrect=False, unknown_ends=unknown_ends):
            found.setdefault(row["prompt_id"], []).append(row)

    def merit(row: Row) -> tuple[bool, float, bool, float]:
        reward, quality = rewards.get((row["prompt_id"], row["teacher"])), row["quality"]
        by = [-math.inf if value is None else value for value in (reward, quality)]
        return row["is_correct"] is True, by[0], row["selected"], by[1]

    further: dict[str, list[Row]] = {}
    for prompt_id, rows in found.items():
        kept = [chosen[prompt_id]] if prompt_id in chosen else []
        said = {tuple(words_of(full_response(row))) for row in kept}
        for row in sorted(rows, key=merit, reverse=True):
            words = tuple(words_of(full_response(row)))
            if len(said) < at_most[prompt_id] and words not in said:
                said.add(words)
                further.setdefault(prompt_id, []).append(row)
    return further


def drop_reason(response: Row | None, keep_incorrect: bool, unknown_ends: bool = False) -> str | None:
    """Return why a response cannot be trained on, one of `DROP_REASONS`, or None where it can.

    An unjudged response (`is_correct` null) is not incorrect. With `unknown_ends` one is taken whose server does not
    say how it ended, or says nothing that is known: it may be cut off.
    """
    if response is None:
        return "missing"
    if response["status"] != "ok" or response["finish_reason"] == "error":
        return "error"
    if not response["selected"]:
        return "missing"
    if is_cut(response["finish_reason"]):
        return "truncated"
    if not (unknown_ends or is_whole(response["finish_reason"])):
        return "unknown_end"
    if not response["response"].strip():
        return "empty"
    if response["is_correct"] is False and not keep_incorrect:
        return "incorrect"
    return None


def sft_rows(
    prompts: Iterable[Row],
    assigned: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Row],
    rewards: Mapping[tuple[str, str], float | None],
    further: Mapping[str, Sequence[Row]] | None = None,
    *,
    keep_incorrect: bool = True,
    unknown_ends: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Make training rows in TRL's prompt-completion form.

    Args:
        prompts: rows of a prompts dataset; the result has their order. A prompt that is not in `assigned` belongs to
            another split, and is left out without a count.
        assigned, rewards: as for `chosen_responses`.
        chosen: what that returned.
        further: what `further_responses` returned; their rows follow the prompt's first one.
        keep_incorrect: train on wrong answers, too. The paper does where a teacher has no right one.

    Returns:
        The rows, and how many prompts were dropped for which reason (`DROP_REASONS`).
    """
    rows = []
    dropped = dict.fromkeys(DROP_REASONS, 0)
    for prompt in prompts:
        prompt_id = prompt["prompt_id"]
        if prompt_id not in assigned:
            continue
        response = chosen.get(prompt_id)
        reason = drop_reason(response, keep_incorrect, unknown_ends)
        kept = [] if response is None or reason is not None else [response]
        if not kept:
            dropped[reason or "missing"] += 1
        rows += [
            {
                "prompt": prompt["messages"],
                "completion": [{"role": "assistant", "content": full_response(answer)}],
                "prompt_id": prompt_id,
                "teacher": answer["teacher"],
                "reward": rewards.get((prompt_id, answer["teacher"])),
            }
            for answer in [*kept, *(further or {}).get(prompt_id, ())]
        ]
    return rows, dropped
