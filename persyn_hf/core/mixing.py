"""Assigned responses to training examples: one per prompt, in prompt order, with a reason for each that is dropped."""

from collections.abc import Iterable, Mapping
from typing import Any

from persyn_hf.core.conversations import full_response


Row = Mapping[str, Any]

DROP_REASONS = ("missing", "error", "truncated", "empty", "incorrect")


def chosen_responses(assigned: Mapping[str, str], responses: Iterable[Row]) -> dict[str, Row]:
    """The response of each prompt's assigned teacher, by prompt_id.

    A selected sample goes before one that is not selected; an unselected one is kept only to tell an error from a
    missing response. A cell that is there twice (calibration and pool hold the same journalled answer) counts once.
    """
    chosen: dict[str, Row] = {}
    for row in responses:
        prompt_id = row["prompt_id"]
        if assigned.get(prompt_id) != row["teacher"]:
            continue
        if prompt_id not in chosen or (row["selected"] and not chosen[prompt_id]["selected"]):
            chosen[prompt_id] = row
    return chosen


def drop_reason(response: Row | None, keep_incorrect: bool) -> str | None:
    """Why a response cannot be trained on; None: it can. Unjudged (`is_correct` null) is not incorrect."""
    if response is None:
        return "missing"
    if response["status"] != "ok" or response["finish_reason"] == "error":
        return "error"
    if not response["selected"]:
        return "missing"
    if response["finish_reason"] == "length":
        return "truncated"
    if not response["response"].strip():
        return "empty"
    if response["is_correct"] is False and not keep_incorrect:
        return "incorrect"
    return None


def sft_rows(
    prompts: Iterable[Row],
    assigned: Mapping[str, str],
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
        teacher = assigned.get(prompt_id)
        if teacher is None:
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
                "teacher": teacher,
                "reward": rewards.get((prompt_id, teacher)),
            }
        )
    return rows, dropped
