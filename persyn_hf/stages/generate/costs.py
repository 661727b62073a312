"""Make the cost ledger of a `generate` step, and say what other ways to choose teachers would have cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.engines.samples import Totals, add_known
from persyn_hf.core.cost import Cost, answers_cost, counterfactual, ledger, unmeasured
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stages.generate.reading import Asked
from persyn_hf.stages.generate.settings import Settings, num_gpus, num_samples


if TYPE_CHECKING:
    from datasets import Dataset


def costs(
    settings: Settings,
    teachers: Sequence[Teacher],
    asked: Mapping[str, Asked],
    totals: Mapping[str, Totals],
    splits: Mapping[str, int],
    calibration: "Dataset | None",
) -> dict[str, Any]:
    """Return what this step's answers have cost, whenever they were paid for, with generate-then-select and CAR.

    Args:
        settings: of the step.
        teachers: the pool.
        asked: teacher -> what it was asked.
        totals: teacher -> sums over its answers.
        splits: the number of prompts by split; dev is not counted, as no strategy trains on it.
        calibration: responses to the calibration prompts. The mean cost of a cell is measured on these where they are
            given, else on this step's own answers.

    Returns:
        `teachers` and `total` of `core.cost.ledger`, and `counterfactual` of `core.cost.counterfactual`.
    """
    spent: dict[str, Cost] = {}
    cells: dict[str, Cost] = {}
    measured = {} if calibration is None else _calibration_totals(calibration)
    for teacher in teachers:
        name, params_b = teacher.name, teacher.params_b
        cells[name] = unmeasured(num_samples(settings, teacher))
        if name in totals:
            total, params_b = totals[name], asked[name].params_b
            spent[name] = answers_cost(
                total.counts["requested"],
                total.prompt_tokens,
                total.completion_tokens,
                total.seconds,
                gpus=num_gpus(settings, teacher),
                params_b=params_b,
                price=teacher.price,
            )
            cells[name] = spent[name] * (1 / max(1, len(asked[name].rounds)))
        if name in measured:
            total, num_cells = measured[name]
            tokens = total.counts["requested"], total.prompt_tokens, total.completion_tokens
            cost = answers_cost(*tokens, 0.0, gpus=None, params_b=params_b, price=teacher.price)
            cells[name] = replace(cost, seconds=None) * (1 / num_cells)  # rows do not say how long they took
    trained = sum(number for split, number in splits.items() if split != "dev")
    lines = ledger(spent, {name: asked[name].new for name in spent})
    return {**lines, "counterfactual": counterfactual(trained, splits.get("calibration", 0), cells)}


def _calibration_totals(responses: "Dataset") -> dict[str, tuple[Totals, int]]:
    """Return, per teacher, the sums over its answers to calibration prompts, and the number of these prompts."""
    totals: dict[str, Totals] = {}
    prompts: dict[str, set[str]] = {}
    columns = ("prompt_id", "teacher", "split", "num_prompt_tokens", "num_tokens", "status")
    for prompt_id, teacher, split, prompt_tokens, tokens, status in zip(*(responses[c] for c in columns), strict=True):
        if split == "calibration":
            if status == "error" and not tokens:  # charged nothing, as in `Totals.add`
                prompt_tokens, tokens = 0, 0
            total = totals.setdefault(teacher, Totals())
            total.counts["requested"] += 1
            total.prompt_tokens = add_known(total.prompt_tokens, prompt_tokens)
            total.completion_tokens = add_known(total.completion_tokens, tokens)
            prompts.setdefault(teacher, set()).add(prompt_id)
    return {teacher: (total, len(prompts[teacher])) for teacher, total in totals.items()}
