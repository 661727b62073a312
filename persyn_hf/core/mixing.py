"""Assigned responses to training examples: one per prompt, in prompt order, with a reason for each that is dropped."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from persyn_hf.core.conversations import full_response


Row = Mapping[str, Any]

CUT_OFF = ("length", "content_filter")  # finish reasons of text that does not end where the teacher would have
DROP_REASONS = ("missing", "error", "truncated", "empty", "incorrect")


def chosen_responses(
    assigned: Mapping[str, Sequence[str]],
    responses: Iterable[Row],
    rewards: Mapping[tuple[str, str], float | None],
) -> dict[str, Row]:
    """One response per prompt, by prompt_id: of its assigned teachers and of those tried after them (`round` > 0).

    Where several teachers were assigned (`per_prompt`) the highest reward is kept. Else the assigned teacher's answer
    is, unless it failed and a teacher tried later is right. Ties go by the order of assignment. Of a cell's samples
    the selected one stands for it; an unselected one is kept only to tell an error from a missing response.
    """
    cells: dict[str, dict[str, Row]] = {}
    for row in responses:
        prompt_id, teacher = row["prompt_id"], row["teacher"]
        if teacher not in assigned.get(prompt_id, ()) and not row["round"]:
            continue
        found = cells.setdefault(prompt_id, {})
        if teacher not in found or (row["selected"] and not found[teacher]["selected"]):
            found[teacher] = row

    def merit(row: Row) -> tuple[float, ...]:
        teachers = assigned[row["prompt_id"]]
        reward = rewards.get((row["prompt_id"], row["teacher"]))
        place = teachers.index(row["teacher"]) if row["teacher"] in teachers else len(teachers) + row["round"]
        usable = drop_reason(row, keep_incorrect=True) is None
        by_reward = -math.inf if reward is None or len(teachers) == 1 else reward
        return usable, by_reward, len(teachers) == 1 and row["is_correct"] is True, -place

    return {prompt_id: max(found.values(), key=merit) for prompt_id, found in cells.items() if prompt_id in assigned}


def drop_reason(response: Row | None, keep_incorrect: bool) -> str | None:
    """Why a response cannot be trained on; None: it can. Unjudged (`is_correct` null) is not incorrect."""
    if response is None:
        return "missing"
    if response["status"] != "ok" or response["finish_reason"] == "error":
        return "error"
    if not response["selected"]:
        return "missing"
    if response["finish_reason"] in CUT_OFF:
        return "truncated"
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
    *,
    keep_incorrect: bool = True,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Training rows (TRL's prompt-completion form) in the order of `prompts`, and how many fell out for which reason.

    Prompts that are not in `assigned` are left out without a count: they belong to another split. The paper keeps a
    wrong answer where a teacher has no right one, hence `keep_incorrect`.
    """
    rows = []
    dropped = dict.fromkeys(DROP_REASONS, 0)
    for prompt in prompts:
        prompt_id = prompt["prompt_id"]
        if prompt_id not in assigned:
            continue
        response = chosen.get(prompt_id)
        reason = drop_reason(response, keep_incorrect)
        if response is None or reason is not None:
            dropped[reason or "missing"] += 1
            continue
        rows.append(
            {
                "prompt": prompt["messages"],
                "completion": [{"role": "assistant", "content": full_response(response)}],
                "prompt_id": prompt_id,
                "teacher": response["teacher"],
                "reward": rewards.get((prompt_id, response["teacher"])),
            }
        )
    return rows, dropped
