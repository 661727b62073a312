"""What one prompt costs with each teacher, in the unit of a budget, by answers that are there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.cost import answers_cost
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strategies import CostUnit


if TYPE_CHECKING:
    from datasets import Dataset


# The field of `core.cost.Cost` that a budget limits.
FIELD_OF: dict[CostUnit, str] = {
    "generations": "requests",
    "tokens": "completion_tokens",
    "flops": "flops",
    "money": "money",
}


def cell_costs(unit: CostUnit, teachers: Sequence[Teacher], calibration: "Dataset | None") -> FloatArray:
    """Return what one prompt costs with each teacher, (n,): its mean over the calibration prompts, with all samples.

    Raises:
        RecipeError: the calibration answers, a size or a price is missing.
        InputError: a teacher has no calibration answers.
    """
    if calibration is None:
        raise RecipeError(
            f"a budget in {unit} needs the input `calibration`, the teachers' answers to the calibration "
            f"prompts, got none; add it to `inputs`"
        )
    totals = _totals(calibration)
    costs = []
    for teacher in teachers:
        if teacher.name not in totals:
            raise InputError(
                f"the calibration responses hold none of `{teacher.name}`, some are needed to say what its answers "
                f"cost; generate them, or leave it out of `teachers`"
            )
        prompts, requests, prompt_tokens, tokens = totals[teacher.name]
        cost = answers_cost(
            requests, prompt_tokens, tokens, 0.0, gpus=None, params_b=teacher.params_b, price=teacher.price
        )
        value = getattr(cost, FIELD_OF[unit])
        if value is None and None in (prompt_tokens, tokens):
            raise InputError(
                f"a budget in {unit} needs the tokens of every answer, the server of `{teacher.name}` has not "
                "counted all of them; take a budget in generations, or have the server count"
            )
        if value is None:
            needed = "`params_b`" if unit == "flops" else "a `price` per token"
            raise RecipeError(f"a budget in {unit} needs {needed} of every teacher, `{teacher.name}` has none")
        costs.append(value / prompts)
    return np.array(costs, dtype=np.float64)


def _totals(responses: "Dataset") -> dict[str, tuple[int, int, int | None, int | None]]:
    """Return per teacher, over the calibration prompts: prompts, answers, prompt and generated tokens (or None).

    An error without a token is charged nothing, as in the ledger: no server counts the prompt of a failed answer.
    """
    import pyarrow.compute as pc

    columns = ["prompt_id", "teacher", "split", "num_prompt_tokens", "num_tokens", "status"]
    table = responses.select_columns(columns).with_format("arrow")[:]
    table = table.filter(pc.equal(table["split"], "calibration"))
    free = pc.and_(pc.equal(table["status"], "error"), pc.equal(pc.fill_null(table["num_tokens"], 0), 0))
    for name in ("num_prompt_tokens", "num_tokens"):
        table = table.set_column(table.column_names.index(name), name, pc.if_else(free, 0, table[name]))
    all_or_none = pc.ScalarAggregateOptions(skip_nulls=False)
    sums = table.group_by("teacher").aggregate(
        [
            ("prompt_id", "count_distinct"),
            ("prompt_id", "count"),
            ("num_prompt_tokens", "sum", all_or_none),
            ("num_tokens", "sum", all_or_none),
        ]
    )
    names = ("prompt_id_count_distinct", "prompt_id_count", "num_prompt_tokens_sum", "num_tokens_sum")
    return {row["teacher"]: tuple(row[name] for name in names) for row in sums.to_pylist()}
