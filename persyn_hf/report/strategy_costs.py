"""What answers cost: of each teacher, of each strategy, and of the ways to compare them with."""

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
    """What answers to calibration prompts (of every teacher, where the strategy looks at them) and the pool cost."""

    calibration: Cost
    pool: Cost


class Paid(NamedTuple):
    """What one teacher's answers cost this recipe, and the shares of them that were cut or failed."""

    cost: Cost
    truncated: float
    errors: float


def teacher_costs(teachers: Iterable[Teacher], manifest: Manifest) -> dict[str, Cost]:
    """Cost of a responses artifact per teacher, at the prices of the recipe; imported responses are but counted."""
    lines = manifest.cost.get("teachers", {})
    costs = {}
    for teacher in teachers:
        rows = sum(manifest.rows.get(teacher.name, {}).values())
        found = core.from_line(lines[teacher.name]) if teacher.name in lines else core.unmeasured(rows)
        if teacher.price is not None:
            tokens = found.prompt_tokens, found.completion_tokens
            found = replace(found, money=core.money(teacher.price, *tokens, found.gpu_seconds))
        if found.requests:
            costs[teacher.name] = found
    return costs


def split_costs(recipe: Recipe, manifest: Manifest, split: str) -> dict[str, Cost]:
    """Cost of the answers to one split per teacher: its rows at the teacher's mean cost in that artifact."""
    costs = teacher_costs(recipe.teachers, manifest)
    rows = {name: manifest.rows.get(name, {}) for name in costs}
    return {name: costs[name] * (rows[name].get(split, 0) / max(1, sum(rows[name].values()))) for name in costs}


def strategy_cost(
    recipe: Recipe, manifests: Mapping[str, Manifest], student: Student, strategy: Strategy
) -> StrategyCost | None:
    """What the strategy costs when it is run alone; None while its responses are not stored."""
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
    """Every teacher answers every calibration and pool prompt: the pool as it was answered, where an oracle had it
    answered, else at each teacher's mean cost of a calibration prompt. None while calibration is not stored."""
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
    """The calibration prompts as they were paid for; one teacher answers the pool: the mean over which one that is."""
    everything = generate_then_select(recipe, manifests)
    if everything is None:
        return None
    paid = _total(split_costs(recipe, manifests[names.matrix_responses()], "calibration"))
    return StrategyCost(paid, everything.pool * (1 / len(recipe.teachers)))


def paid(recipe: Recipe, manifests: Mapping[str, Manifest], spent: Mapping[str, Spent]) -> dict[str, Paid]:
    """Per teacher, what the recipe has asked for and paid, each answer once.

    `spent`: the journal's account of the recipe, every attempt of all its runs. A teacher that it does not know is
    taken from the manifests: of each step the answers that were new in it, at the mean cost of all its answers.
    """
    found = {}
    for teacher in recipe.teachers:
        lines = _lines(teacher, manifests)
        if teacher.name in spent:
            found[teacher.name] = _from_journal(teacher, spent[teacher.name], [cost for cost, _, _ in lines])
        elif new := sum(fresh for _, fresh, _ in lines):
            cost = sum((cost * (fresh / cost.requests) for cost, fresh, _ in lines), Cost())
            truncated, errors = (
                sum(fresh * rates[key] for _, fresh, rates in lines) / new for key in ("truncated", "errors")
            )
            found[teacher.name] = Paid(cost, truncated, errors)
    return {name: line for name, line in found.items() if line.cost.requests}


def _lines(teacher: Teacher, manifests: Mapping[str, Manifest]) -> list[tuple[Cost, int, Mapping[str, float]]]:
    """Of each responses artifact that asked the teacher: the cost, how many answers were new, the rates of failure."""
    lines = []
    for manifest in manifests.values():
        line = manifest.cost.get("teachers", {}).get(teacher.name) if manifest.kind == "responses" else None
        if line and line["requests"]:
            cost = teacher_costs([teacher], manifest)[teacher.name]
            lines.append((cost, line["new"], manifest.metrics["teachers"][teacher.name]))
    return lines


def _from_journal(teacher: Teacher, spent: Spent, lines: Sequence[Cost]) -> Paid:
    """The journal knows tokens and seconds; size and GPUs are those of the artifacts, where there are any."""
    known = sum(lines, Cost())
    tokens = (known.prompt_tokens or 0) + (known.completion_tokens or 0)
    cost = core.answers_cost(
        spent.requests,
        spent.prompt_tokens,
        spent.completion_tokens,
        spent.seconds,
        gpus=known.gpu_seconds / known.seconds if known.gpu_seconds is not None and known.seconds else None,
        params_b=known.flops / core.generation_flops(1, tokens) if known.flops and tokens else teacher.params_b,
        price=teacher.price,
    )
    return Paid(cost, spent.truncated / max(1, spent.requests), spent.errors.total() / max(1, spent.requests))


def _total(costs: Mapping[str, Cost]) -> Cost:
    return sum(costs.values(), Cost())
