"""Stage `score`: responses in, rewards under one student out (PerSyn, section 2.1, Eqs. 1 and 2).

What a response's forward pass gives is kept in the journal: another alpha or normalisation costs no forward pass, and
a run that was killed goes on where it was.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from persyn_hf.backends import chat
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.learnability import Likelihoods, LoadedStudent, score_responses
from persyn_hf.core.conversations import full_response
from persyn_hf.core.rewards import combine, normalise, rank_rewards
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe import Strict
from persyn_hf.schemas import PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS, "responses": RESPONSES}
OUTPUT = REWARDS

MEASURES = ("sum_logprob", "num_tokens", "sum_min_rank", "truncated")


class Settings(Strict):
    """What a reward is made of."""

    quality: Literal["math", "pass_rate", "column"] = "math"
    learnability: Literal["mean_logprob", "rank_surprisal", "none"] = "mean_logprob"
    normalisation: Literal["minmax", "zscore", "rank", "none"] = "minmax"
    alpha: float = Field(default=0.4, ge=0, le=1)  # weight of learnability, Eq. 2; the paper's choice
    max_length: int = Field(default=4096, ge=2)  # tokens of prompt and response, as in student training
    batch_tokens: int = Field(default=16384, ge=1)  # rows x longest row of one batch
    dtype: chat.Dtype = "auto"
    device: str = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.learnability == "none" and self.alpha != 0:
            raise ValueError(
                f"`learnability: none` leaves nothing for alpha {self.alpha} to weigh; set `alpha: 0`, or measure it"
            )
        return self


def run(settings: Settings, context: Context, prompts: "Dataset", responses: "Dataset") -> Result:
    """Score the selected response of each (prompt, teacher) cell; rows by prompt, then teacher in pool order.

    A cell without a selected response has no row and counts as missing. Rewards are normalised over the prompt's
    measured cells.
    """
    from datasets import Dataset

    pool = [teacher.name for teacher in context.teachers]
    prompt_rows = {row["prompt_id"]: row for row in prompts}
    responded = set(responses["prompt_id"])
    order = [prompt_id for prompt_id in prompt_rows if prompt_id in responded]
    selected, shares = _selected(responses, prompt_rows, pool)
    cells = [(prompt_id, name) for prompt_id in order for name in pool if (prompt_id, name) in selected]
    columns: dict[str, Sequence[Any]] = {
        "prompt_id": [prompt_id for prompt_id, _ in cells],
        "teacher": [name for _, name in cells],
        "quality_raw": [_quality(settings, selected[cell], shares[cell]) for cell in cells],
        "split": [prompt_rows[prompt_id]["split"] for prompt_id, _ in cells],
    }
    conversations = [prompt_rows[prompt_id]["messages"] for prompt_id, _ in cells]
    measured = _measure(settings, context, conversations, [full_response(selected[cell]) for cell in cells])
    columns |= _likelihood_columns(measured, len(cells))
    learnability = _learnability(settings, measured, len(cells))
    positions = {prompt_id: row for row, prompt_id in enumerate(order)}
    at = ([positions[prompt_id] for prompt_id, _ in cells], [pool.index(name) for _, name in cells])
    columns |= _rewards(settings, columns["quality_raw"], learnability, at, (len(order), len(pool)))
    data = Dataset.from_dict({name: columns[name] for name in OUTPUT.names}, features=OUTPUT.features)
    counts = {
        "cells": len(cells),
        "missing": len(order) * len(pool) - len(cells),
        "unjudged": sum(value is None for value in columns["quality_raw"]),
        "truncated": int(sum(columns["truncated"])),
        "unrewarded": sum(value is None for value in columns["reward"]),
    }
    return Result(data=data, counts=counts, metrics={"teachers": _summary(columns, pool)})


def _selected(
    responses: "Dataset", prompts: Mapping[str, Any], pool: Sequence[str]
) -> tuple[dict[tuple[str, str], Mapping[str, Any]], dict[tuple[str, str], float | None]]:
    """The selected row of each cell, and the share of its judged samples that are correct."""
    selected: dict[tuple[str, str], Mapping[str, Any]] = {}
    verdicts: dict[tuple[str, str], list[bool]] = {}
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
        if row["is_correct"] is not None:
            judged.append(row["is_correct"])
        if row["selected"] and cell in selected:
            raise InputError(f"prompt {cell[0]} has two selected responses of `{cell[1]}`; generate anew")
        if row["selected"]:
            selected[cell] = row
    return selected, {cell: sum(judged) / len(judged) if judged else None for cell, judged in verdicts.items()}


def _quality(settings: Settings, row: Mapping[str, Any], share: float | None) -> float | None:
    """Quality of a cell before normalisation; null is unjudged, never 0."""
    if settings.quality == "pass_rate":
        return share
    value = row["quality"] if settings.quality == "column" else row["is_correct"]
    return None if value is None else float(value)


def _measure(
    settings: Settings, context: Context, conversations: Sequence[Any], responses: Sequence[str]
) -> Likelihoods | None:
    """Likelihoods of all rows, from the journal where it has them; None: learnability is not asked for."""
    if settings.learnability == "none":
        return None
    student = context.student
    if student is None or student.model is None:
        raise RecipeError(
            "`score` needs a student with a `model` to measure learnability; "
            "name one, or set `learnability: none` and `alpha: 0`"
        )
    template = chat.read_template(student.chat_template)
    under = [chat.identify(student.model, student.revision), template, settings.max_length, settings.dtype]
    keys = [_key(under, *pair) for pair in zip(conversations, responses, strict=True)]
    with Journal(context.journal or context.work_dir / "journal.sqlite") as journal:
        known = journal.recall(keys)
        context.progress.start(f"score {student.name}", len(keys), sum(key in known for key in keys))
        if len(known) < len(set(keys)):

            def done(rows: list[int], found: Likelihoods) -> None:
                values = zip(*(getattr(found, name).tolist() for name in MEASURES), strict=True)
                fresh = {keys[row]: list(value) for row, value in zip(rows, values, strict=True)}
                journal.keep(fresh)
                known.update(fresh)
                context.progress.advance(len(rows))

            score_responses(
                LoadedStudent(
                    student.model,
                    student.revision,
                    chat_template=student.chat_template,
                    dtype=settings.dtype,
                    device=settings.device,
                ),
                conversations,
                responses,
                max_length=settings.max_length,
                batch_tokens=settings.batch_tokens,
                skip=frozenset(row for row, key in enumerate(keys) if key in known),
                done=done,
            )
    table = [known[key] for key in keys]
    return Likelihoods(**{name: np.array([row[column] for row in table]) for column, name in enumerate(MEASURES)})


def _key(under: list[Any], conversation: Any, response: str) -> str:
    """Name of a likelihood in the journal: student, template, length, dtype, conversation and response."""
    return hashlib.sha256(json.dumps(["likelihood 1", under, conversation, response]).encode()).hexdigest()


def _likelihood_columns(measured: Likelihoods | None, size: int) -> dict[str, list[Any]]:
    if measured is None:
        return {name: [None] * size for name in ("mean_logprob", *MEASURES[:3])} | {"truncated": [False] * size}
    columns = {name: getattr(measured, name).tolist() for name in MEASURES}
    return columns | {"mean_logprob": _nullable(measured.mean_logprob)}


def _learnability(settings: Settings, measured: Likelihoods | None, size: int) -> np.ndarray:
    """The raw value that is normalised, higher is better; NaN where there is none."""
    if measured is None:
        return np.full(size, np.nan)
    if settings.learnability == "mean_logprob":
        return measured.mean_logprob
    surprisal = np.where(measured.sum_logprob < 0, -measured.sum_logprob, np.nan)
    return -measured.sum_min_rank / surprisal  # rank-surprisal ratio: lower is better


def _rewards(
    settings: Settings,
    quality: Sequence[float | None],
    learnability: np.ndarray,
    at: tuple[list[int], list[int]],
    shape: tuple[int, int],
) -> dict[str, list[Any]]:
    """Normalised and combined rewards and their ranks, one per cell; `at` are the cells' places in `shape`."""
    matrices = [np.full(shape, np.nan), np.full(shape, np.nan)]
    matrices[0][at] = [np.nan if value is None else value for value in quality]
    matrices[1][at] = learnability
    quality_reward, learnability_reward = (normalise(matrix, settings.normalisation) for matrix in matrices)
    reward = combine(quality_reward, learnability_reward, settings.alpha)
    ranks = rank_rewards(reward)[at].tolist()
    return {
        "quality_reward": _nullable(quality_reward[at]),
        "learnability_reward": _nullable(learnability_reward[at]),
        "reward": _nullable(reward[at]),
        "rank": [rank or None for rank in ranks],
    }


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _summary(columns: Mapping[str, Sequence[Any]], pool: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """One line per teacher: means over its measured cells, and the share of its rewarded cells that are best."""
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
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
