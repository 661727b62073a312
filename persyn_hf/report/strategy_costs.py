"""The cost of answers: of each teacher, of each strategy, and of the ways that strategies are compared with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from persyn_hf.backends.journal import Spent
from persyn_hf.core import cost as core
from persyn_hf.core.cost import Cost
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strategies import Strategy, answers_seen
from persyn_hf.store.manifest import Manifest


class StrategyCost(NamedTuple):
    """The cost of a strategy's answers to calibration prompts (every teacher's, if it sees them) and to the pool."""

    calibration: Cost
    pool: Cost


class Paid(NamedTuple):
    """The cost of one teacher's answers to this recipe, and the shares of them that were cut off or failed."""

    cost: Cost
    truncated: float
    errors: float
    counted_here: bool = False  # some tokens were counted by a tokenizer here


def teacher_costs(teachers: Iterable[Teacher], manifest: Manifest) -> dict[str, Cost]:
    """Return the cost of a responses artifact per teacher, at the prices of the recipe.

    Of imported responses only the number is known. Teachers without an answer are left out.
    """
    lines = manifest.cost.get("teachers", {})
    costs = {}
    for teacher in teachers:
        rows = sum(manifest.rows.get(teacher.name, {}).values())
        cost = core.from_line(lines[teacher.name]) if teacher.name in lines else core.unmeasured(rows)
        if teacher.price is not None:
            tokens = cost.prompt_tokens, cost.completion_tokens
            cost = replace(cost, money=core.money(teacher.price, *tokens, cost.gpu_seconds))
        if cost.requests:
            costs[teacher.name] = cost
    return costs


def split_costs(recipe: Recipe, manifest: Manifest, split: str) -> dict[str, Cost]:
    """Return the cost of the answers to one split per teacher: its rows at the teacher's mean cost in the artifact."""
    costs = teacher_costs(recipe.teachers, manifest)
    rows = {name: manifest.rows.get(name, {}) for name in costs}
    return {name: costs[name] * (rows[name].get(split, 0) / max(1, sum(rows[name].values()))) for name in costs}


def strategy_cost(
    recipe: Recipe, manifests: Mapping[str, Manifest], student: Student, strategy: Strategy
) -> StrategyCost | None:
    """Return what a strategy costs when it is run alone; None while its responses are not stored."""
    own, matrix = manifests.get(names.responses(student, strategy)), manifests.get(names.matrix_responses())
    everything = generate_then_select(recipe, manifests)
    if own is None or matrix is None or everything is None:
        return None
    seen = answers_seen(strategy, recipe.strategies)
    if seen == "pool":
        return StrategyCost(_total(split_costs(recipe, matrix, "calibration")), everything.pool)
    looked_at = own if seen == "nothing" else matrix
    return StrategyCost(
        _total(split_costs(recipe, looked_at, "calibration")), _total(split_costs(recipe, own, "pool"))
    )


def generate_then_select(recipe: Recipe, manifests: Mapping[str, Manifest]) -> StrategyCost | None:
    """Return the cost if every teacher answers every calibration and pool prompt; None where it is not known.

    Where an oracle had the whole pool answered, the pool counts as it was paid for. Else each of its prompts counts at
    each teacher's mean cost of a calibration prompt. Nothing is known while the answers to calibration prompts are not
    stored.
    """
    matrix, prompts = manifests.get(names.matrix_responses()), manifests.get(names.PROMPTS)
    if matrix is None or prompts is None:
        return None
    paid = split_costs(recipe, matrix, "calibration")
    number = prompts.counts.get("rows_calibration", 0)
    assigned = manifests.get(names.matrix_assignments())
    in_part = assigned.metrics.get("labelling", {}).get("cells", {}) if assigned else {}
    cells = {name: cost * (1 / max(1, in_part.get(name, number))) for name, cost in paid.items()}
    calibration = core.generate_then_select(number, cells) if in_part else _total(paid)
    whole_pool = manifests.get(names.matrix_responses(names.POOL))
    if whole_pool is not None:
        return StrategyCost(calibration, _total(split_costs(recipe, whole_pool, "pool")))
    return StrategyCost(calibration, core.generate_then_select(prompts.counts.get("rows_pool", 0), cells))


def car(recipe: Recipe, manifests: Mapping[str, Manifest]) -> StrategyCost | None:
    """Return the cost if all teachers answer the calibration prompts and one answers the pool; None if not known.

    Which teacher that is does not count: the cost is the mean over all of them.
    """
    everything = generate_then_select(recipe, manifests)
    if everything is None:
        return None
    paid = _total(split_costs(recipe, manifests[names.matrix_responses()], "calibration"))
    return StrategyCost(paid, everything.pool * (1 / len(recipe.teachers)))


def paid(recipe: Recipe, manifests: Mapping[str, Manifest], spent: Mapping[str, Spent]) -> dict[str, Paid]:
    """Return, per teacher, what the recipe has asked for and paid, each answer once.

    Args:
        spent: the journal's account of the recipe, every attempt of all its runs. A teacher that it does not know
            is taken from the manifests: the answers that were new in each step, at the mean cost of all answers of
            the step.
    """
    accounts = {}
    for teacher in recipe.teachers:
        lines = _lines(teacher, manifests)
        if teacher.name in spent:
            accounts[teacher.name] = _from_journal(teacher, spent[teacher.name], [cost for cost, _, _ in lines])
        elif new := sum(fresh for _, fresh, _ in lines):
            cost = sum((cost * (fresh / cost.requests) for cost, fresh, _ in lines), Cost())
            truncated, errors = (
                sum(fresh * rates[key] for _, fresh, rates in lines) / new for key in ("truncated", "errors")
            )
            here = any(rates.get("counted_here") for _, _, rates in lines)
            accounts[teacher.name] = Paid(cost, truncated, errors, here)
    return {name: line for name, line in accounts.items() if line.cost.requests}


def _lines(teacher: Teacher, manifests: Mapping[str, Manifest]) -> list[tuple[Cost, int, Mapping[str, float]]]:
    """Return the cost, the number of new answers and the rates of failure of each artifact that asked a teacher."""
    lines = []
    for manifest in manifests.values():
        line = manifest.cost.get("teachers", {}).get(teacher.name) if manifest.kind == "responses" else None
        if line and line.get("requests"):
            cost = teacher_costs([teacher], manifest)[teacher.name]
            lines.append((cost, line.get("new", 0), manifest.metrics["teachers"][teacher.name]))
    return lines


def _from_journal(teacher: Teacher, spent: Spent, lines: Sequence[Cost]) -> Paid:
    """Return the account of a teacher by the journal, which knows tokens and seconds.

    The size of the model and its GPUs are those of the artifacts, where there are any.
    """
    stored = sum(lines, Cost())
    tokens = (stored.prompt_tokens or 0) + (stored.completion_tokens or 0)
    cost = core.answers_cost(
        spent.requests,
        None if spent.uncounted else spent.prompt_tokens,
        None if spent.uncounted else spent.completion_tokens,
        spent.seconds,
        gpus=stored.gpu_seconds / stored.seconds if stored.gpu_seconds is not None and stored.seconds else None,
        params_b=stored.flops / core.generation_flops(1, tokens) if stored.flops and tokens else teacher.params_b,
        price=teacher.price,
    )
    truncated, errors = (number / max(1, spent.requests) for number in (spent.truncated, spent.errors.total()))
    return Paid(cost, truncated, errors, spent.counted_here > 0)


def _total(costs: Mapping[str, Cost]) -> Cost:
    """Return the sum of several costs."""
    return sum(costs.values(), Cost())
