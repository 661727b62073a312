"""Stage `score`: responses in, rewards under one student out (PerSyn, section 2.1, Eqs. 1 and 2).

The measurements of a forward pass are kept in the journal. So another alpha or normalisation costs no forward pass,
and a run that was killed goes on where it was.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.grading.opening import check_grader
from persyn_hf.backends.grading.settings import COMMAND_NOT_COVERED, CommandSettings, SandboxSettings
from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.judging.settings import JUDGE_NOT_COVERED
from persyn_hf.core.alpha_sweep import alpha_sweep
from persyn_hf.core.conversations import full_response
from persyn_hf.core.rewards import numbers, recombine
from persyn_hf.errors import InputError
from persyn_hf.schemas import PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context, Result
from persyn_hf.stages.score import quality
from persyn_hf.stages.score.criteria import Cell, Judged
from persyn_hf.stages.score.measuring import likelihood_columns, likelihoods
from persyn_hf.stages.score.settings import Settings


if TYPE_CHECKING:
    from datasets import Dataset


__all__ = ["INPUTS", "LATER", "NOT_COVERED", "OUTPUT", "VERSION", "Settings", "check_files", "run"]

INPUTS = {"prompts": PROMPTS, "responses": RESPONSES}
OUTPUT = REWARDS
# 4: rewards whose two terms cancel tie (zscore, none); 3: values of cells that were not asked are predicted within
# those measured; 2: answers that did not come count against their teacher, and what was said is scored, whatever a
# template does
VERSION = 4
LATER = {
    "failed": "worst",
    "near_tie": 1e-6,
    "command": CommandSettings().model_dump(mode="json"),
    "judge": None,
    "judge.server.api": "openai",
}
NOT_COVERED = frozenset(
    {"device", "batch_tokens", "accelerate", "executor", "reward_model.batch_tokens", "reward_model.server"}
    | {f"command.{key}" for key in COMMAND_NOT_COVERED}
    | {f"judge.{key}" for key in JUDGE_NOT_COVERED}
    | {f"judge.panel.{key}" for key in JUDGE_NOT_COVERED}
)


def check_files(settings: Settings) -> None:
    """Refuse a command that cannot work on this machine, or a rubric that a judge could not be asked by."""
    if "command" in settings.weights:
        check_grader("command", timeout_s=0, command=settings.command, sandbox=SandboxSettings())
    if settings.judge is not None:
        read_rubric(settings.judge.rubric, settings.judge.mode, settings.judge.scale)


def run(settings: Settings, context: Context, prompts: "Dataset", responses: "Dataset") -> Result:
    """Score the selected response of each (prompt, teacher) cell; rows by prompt, then teacher in pool order.

    A cell that was not asked for has no row and counts as missing. A teacher that was asked and did not answer has one
    without a measurement, as the worst answer of all (`failed`). Rewards are normalised over the prompt's measured
    cells, or as if the missing ones had been measured (`in_part`).

    Raises:
        InputError: inputs do not fit together, a value is not finite, or there is nothing to judge answers by.
        RecipeError: the student has no model and learnability is asked for.
    """
    from datasets import Dataset

    pool = [teacher.name for teacher in context.teachers]
    prompt_rows = {row["prompt_id"]: row for row in prompts}
    responded = set(responses["prompt_id"])
    order = [prompt_id for prompt_id in prompt_rows if prompt_id in responded]
    selected, shares, failed = _selected(responses, prompt_rows, pool, settings.failed == "worst")
    rewarded = selected.keys() | failed
    cells = [(prompt_id, name) for prompt_id in order for name in pool if (prompt_id, name) in rewarded]
    answered = [cell for cell in cells if cell in selected]
    columns: dict[str, Sequence[Any]] = {
        "prompt_id": [prompt_id for prompt_id, _ in cells],
        "teacher": [name for _, name in cells],
        "split": [prompt_rows[prompt_id]["split"] for prompt_id, _ in cells],
    }
    conversations = [prompt_rows[prompt_id]["messages"] for prompt_id, _ in answered]
    answers = [Judged(prompt_rows[cell[0]], selected[cell], shares[cell]) for cell in answered]
    found = quality.of_answers(settings, context, answers)
    columns |= quality.columns_of(settings, found, columns, answered, cells)
    numbers(columns, "quality_raw")  # refuses what is no number before the student measures anything
    of_cell = dict(zip(cells, columns["quality_raw"], strict=True))
    _check_judged(settings, [of_cell[cell] for cell in answered])
    measured = None
    if settings.learnability != "none":
        texts = [full_response(selected[cell]) for cell in answered]
        measured = likelihoods(settings, context, list(zip(conversations, texts, strict=True)))
    for name, values in likelihood_columns(measured, len(answered)).items():
        columns[name] = _spread(values, answered, cells, False if name == "truncated" else None)
    columns |= recombine(
        columns, settings.alpha, settings.normalisation, settings.learnability, settings.in_part, settings.near_tie
    )
    schema = OUTPUT.having(columns)
    data = Dataset.from_dict({name: columns[name] for name in schema.names}, features=schema.features)
    counts = {
        "cells": len(cells),
        "missing": len(order) * len(pool) - len(cells),
        "unjudged": sum(value is None for value in columns["quality_raw"]),
        "truncated": int(sum(columns["truncated"])),
        "unrewarded": sum(value is None for value in columns["reward"]),
    }
    if len(cells) > len(answered):
        counts["failed"] = len(cells) - len(answered)
    sweep = alpha_sweep(columns, pool, settings.learnability, settings.alpha)
    metrics = {"teachers": _summary(columns, pool)} | ({"alpha": sweep} if sweep else {})
    told = quality.summary(settings, found)
    return Result(data=data, counts={**counts, **told.counts}, metrics={**metrics, **told.metrics}, cost={**told.cost})


def _check_judged(settings: Settings, judged: Sequence[float | None]) -> None:
    """Raise `InputError` where quality counts and no answer has any, by any criterion."""
    if judged and settings.alpha < 1 and all(value is None for value in judged):
        if [*settings.weights] == ["judge"]:
            raise InputError(
                f"the judge has no verdict on any of the {len(judged)} answers: there is nothing to compare, or its "
                "rubric shows references and the prompts have none; take another rubric or mode, or set `alpha: 1`"
            )
        raise InputError(
            f"`quality: {', '.join(settings.weights)}` found nothing to judge any of the {len(judged)} answers by; "
            "give prompts references, import a quality (`generate.columns.quality`), take a reward model, or set "
            "`alpha: 1`"
        )


def _selected(
    responses: "Dataset", prompts: Mapping[str, Any], pool: Sequence[str], errors_are_wrong: bool
) -> tuple[dict[Cell, Mapping[str, Any]], dict[Cell, float | None], set[Cell]]:
    """Return each cell's selected row, the share of its judged samples that are correct, and the failed cells.

    `errors_are_wrong`: a sample that did not come counts as a wrong one, where others are judged. Without it no cell
    is of the third kind.
    """
    selected: dict[Cell, Mapping[str, Any]] = {}
    verdicts: dict[Cell, list[bool]] = {}
    errors: Counter[Cell] = Counter()
    asked: Counter[Cell] = Counter()
    for row in responses:
        cell = (row["prompt_id"], row["teacher"])
        if row["teacher"] not in pool:
            raise InputError(
                f"the responses name the teacher `{row['teacher']}`, the pool holds {', '.join(pool)}; add it"
            )
        if row["prompt_id"] not in prompts:
            raise InputError(
                f"the responses name the prompt {cell[0]}, which is not among the prompts; give their prompts"
            )
        judged = verdicts.setdefault(cell, [])
        asked[cell] += 1
        errors[cell] += errors_are_wrong and row["status"] == "error"
        if row["is_correct"] is not None:
            judged.append(row["is_correct"])
        if row["selected"] and cell in selected:
            raise InputError(f"prompt {cell[0]} has two selected responses of `{cell[1]}`; generate anew")
        if row["selected"]:
            selected[cell] = row
    shares = {cell: sum(of) / (len(of) + errors[cell]) if of else None for cell, of in verdicts.items()}
    return selected, shares, {cell for cell, number in asked.items() if errors[cell] == number}


def _spread(values: Sequence[Any], answered: Sequence[Cell], cells: Sequence[Cell], otherwise: Any) -> list[Any]:
    """Spread the values of the answered cells over all cells."""
    found = dict(zip(answered, values, strict=True))
    return [found.get(cell, otherwise) for cell in cells]


def _summary(columns: Mapping[str, Sequence[Any]], pool: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return a line per teacher: means over its measured cells, and the share of its rewarded cells that are best."""
    summary = {}
    for name in pool:
        rows = [row for row, teacher in enumerate(columns["teacher"]) if teacher == name]
        ranks = [columns["rank"][row] for row in rows if columns["rank"][row] is not None]
        summary[name] = {
            column: _mean([columns[source][row] for row in rows])
            for column, source in (("quality", "quality_raw"), ("mean_logprob", "mean_logprob"), ("reward", "reward"))
        } | {"best": ranks.count(1) / len(ranks) if ranks else None}
    return summary


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there; None without any."""
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
