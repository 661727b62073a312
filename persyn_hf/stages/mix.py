"""Stage `mix`: assignments and responses in, supervised fine-tuning rows out (PerSyn, section 2.2)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic import Field

from persyn_hf.backends.dataset_rows import Grouped, NameIndex, Rows, in_parts
from persyn_hf.core.arrays import IntArray
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
Cell = tuple[str, str]  # prompt_id, teacher
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
    from datasets import Dataset

    tables = _Tables(prompts, assignments, responses, rewards, pool_rewards, calibration, pool)
    assigned = _check_assigned(tables, assignments)
    path, totals = context.work_dir / "sft.arrow", _Totals()
    order = [teacher.name for teacher in context.teachers]
    with OUTPUT.writer(path) as writer:
        for some in in_parts(assigned):
            for row in _mix(settings, tables, some, order, totals):
                writer.write(row)
    dropped = totals.dropped
    if not totals.kept:
        hint = ", or let `mix: {unknown_ends: true}` take what may be cut off" if dropped["unknown_end"] else ""
        found = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number)
        raise InputError(
            f"none of {len(assigned)} assigned prompts has a response to train on ({found}); see `generate`{hint}"
        )
    counts = {"assigned": len(assigned)}
    counts |= {f"dropped_{reason}": number for reason, number in dropped.items() if number or reason != "unknown_end"}
    if settings.answers_per_prompt != AnswersPerPrompt():
        counts["further"] = totals.further
    counts |= {name: totals.counts[name] for name in ("incorrect", "unjudged", "escalated")}
    return Result(data=Dataset.from_file(str(path)), counts=counts, metrics=totals.metrics(order))


class _Tables:
    """The inputs, of which the rows about some prompts are read together."""

    def __init__(self, prompts: "Dataset", assignments: "Dataset", responses: "Dataset", *others: Any) -> None:
        index = NameIndex.of(prompts)
        rewards, pool_rewards, calibration, pool = others
        self.prompts = Rows(prompts, ["prompt_id", "messages", "split"])
        self.assignments = Grouped.by_prompt(assignments, index, ["prompt_id", "teacher", "source", "scores"])
        self.responses = Grouped.by_prompt(responses, index)
        self._rewards = [
            Grouped.by_prompt(some, index, ["prompt_id", "teacher", "reward"])
            for some in (rewards, pool_rewards)
            if some is not None
        ]
        self._further = [Grouped.by_prompt(some, index) for some in (calibration, pool) if some is not None]

    def measured(self, prompts: IntArray) -> dict[Cell, float | None]:
        """Return the rewards of the cells of some prompts; those of the pool go before others."""
        rows = (row for some in self._rewards for row in _flat(some, prompts))
        return {(row["prompt_id"], row["teacher"]): row["reward"] for row in rows}

    def paid(self, prompts: IntArray) -> Iterator[Row]:
        """Yield all answers to some prompts; one that is in two inputs comes twice."""
        return (row for some in (self.responses, *self._further) for row in _flat(some, prompts))


def _flat(rows: Grouped, prompts: IntArray) -> Iterator[Row]:
    return chain.from_iterable(rows.of(prompts))


@dataclass
class _Totals:
    """The sums over what is trained on."""

    dropped: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    kept: int = 0  # responses
    further: int = 0
    number: Counter[str] = field(default_factory=Counter)  # of each teacher
    counted: Counter[str] = field(default_factory=Counter)  # of these, with a known number of tokens
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, response: Row) -> None:
        """Count a response that is kept."""
        self.kept += 1
        verdict, teacher, tokens = response["is_correct"], response["teacher"], response["num_tokens"]
        self.counts.update(
            incorrect=verdict is False,
            unjudged=verdict is None,
            correct=verdict is True,
            escalated=response["round"] > 0,
        )
        self.number[teacher] += 1
        if tokens is not None:
            self.counted[teacher] += 1
            self.tokens[teacher] += tokens

    def metrics(self, order: list[str]) -> dict[str, Any]:
        """Return the share of right answers among the judged, and per teacher its share of rows and mean tokens."""
        judged = self.counts["correct"] + self.counts["incorrect"]
        teachers = [*order, *sorted(set(self.number) - set(order))]
        tokens = {name: self.tokens[name] / self.counted[name] if self.counted[name] else None for name in teachers}
        return {
            "correct_share": self.counts["correct"] / judged if judged else None,
            "allocation": {teacher: self.number[teacher] / self.kept for teacher in teachers},
            "mean_tokens": {teacher: mean for teacher, mean in tokens.items() if self.number[teacher]},
        }


def _mix(
    settings: Settings, tables: _Tables, some: IntArray, order: list[str], totals: _Totals
) -> Sequence[Mapping[str, Any]]:
    """Make the training rows of some assigned prompts, and add them to the totals."""
    prompts, decided = tables.prompts.at(some), list(_flat(tables.assignments, some))
    measured = tables.measured(some)
    assigned: dict[str, list[str]] = {}
    for row in decided:
        assigned.setdefault(row["prompt_id"], []).append(row["teacher"])
    chosen = chosen_responses(assigned, _flat(tables.responses, some), measured, unknown_ends=settings.unknown_ends)
    keep = {"keep_incorrect": settings.keep_incorrect, "unknown_ends": settings.unknown_ends}
    known = _oracle_rewards(decided, order) | measured
    usable = {name: row for name, row in chosen.items() if drop_reason(row, **keep) is None}
    each = settings.answers_per_prompt.model_dump()
    wanted = {row["prompt_id"]: each.get(row["split"], 1) for row in prompts if each.get(row["split"], 1) > 1}
    further: dict[str, list[Row]] = {}
    if wanted:
        paid = tables.paid(some)
        further = further_responses(usable, paid, known, wanted, unknown_ends=settings.unknown_ends)
    rows, dropped = sft_rows(prompts, assigned, chosen, known, further, **keep)
    more = list(chain.from_iterable(further.values()))
    totals.dropped.update(dropped)
    totals.further += len(more)
    for response in (*usable.values(), *more):
        totals.add(response)
    return rows


def _check_assigned(tables: _Tables, assignments: "Dataset") -> IntArray:
    """Return the assigned prompts, by their rows.

    Refuses prompts that are not in `prompts`, and prompts of several teachers of which none has a reward.
    """
    strange = tables.assignments.strangers
    if len(strange):
        unknown = set(assignments.select(strange)["prompt_id"])
        raise InputError(
            f"{len(unknown)} assigned prompts (first {min(unknown)}) are not in `prompts`; "
            f"give the prompts that the assignments were made from"
        )
    assigned = tables.assignments.groups
    several = assigned[tables.assignments.sizes(assigned) > 1]
    blind: list[str] = []
    for some in in_parts(several):
        measured = tables.measured(some)
        cells = zip(tables.prompts.at(some), tables.assignments.of(some), strict=True)
        blind += [
            prompt["prompt_id"]
            for prompt, rows in cells
            if not any((row["prompt_id"], row["teacher"]) in measured for row in rows)
        ]
    if blind:
        raise InputError(
            f"{len(blind)} prompts (first {min(blind)}) are assigned to several teachers, and no reward says whose "
            "answer to keep; give `pool_rewards`, the rewards of their responses, or assignments of one teacher each"
        )
    return assigned


def _oracle_rewards(assigned: Iterable[Row], order: list[str]) -> dict[Cell, float | None]:
    """Return the reward of each cell that was assigned by it: the scores of an oracle are the measured rewards.

    No stage reads the column `reward` of its training rows, so that what was stored without it is as good for training
    and `VERSION` stays.
    """
    return {
        (row["prompt_id"], row["teacher"]): row["scores"][order.index(row["teacher"])]
        for row in assigned
        if row["source"] == "oracle" and len(row["scores"]) == len(order) and row["teacher"] in order
    }
