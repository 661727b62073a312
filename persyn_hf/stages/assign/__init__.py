"""Stage `assign`: choose which teacher answers which prompt. PerSyn and every baseline differ only here.

`all` sends each prompt of calibration and dev to every teacher; with `labelling` it asks only some cells of
calibration. The other kinds send each prompt of calibration and pool to one teacher. Calibration prompts were answered
and scored already, so PerSyn takes the measured best there. Prompts are read, decided on and written some at a time,
in their order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, ROUTER
from persyn_hf.stage import Context, Result
from persyn_hf.stages.assign import rules
from persyn_hf.stages.assign.budget_routing import replay, scores_of, spend
from persyn_hf.stages.assign.cell_costs import cell_costs
from persyn_hf.stages.assign.measured import Measured
from persyn_hf.stages.assign.partial_calibration import in_part
from persyn_hf.stages.assign.routing import Dev, Score, learn_from_dev, routed, score_launched_with, score_with
from persyn_hf.stages.assign.rows import CELL, CHUNK, Decision, chunks, write
from persyn_hf.stages.assign.settings import Settings


if TYPE_CHECKING:
    from datasets import Dataset


__all__ = ["INPUTS", "LATER", "OPTIONAL_INPUTS", "NOT_COVERED", "OUTPUT", "VERSION", "Settings", "decide", "run"]

INPUTS = {"prompts": PROMPTS}
OPTIONAL_INPUTS = {
    "rewards": REWARDS,  # of the calibration and dev prompts; with labelling, those of the round before
    "pool_rewards": REWARDS,  # of the pool, for the oracle
    "router": ROUTER,
    "base": ASSIGNMENTS,  # what reassign changes; with labelling, the assignments of the round before
    "prior": REWARDS,  # of `labelling`, where it is no file
    "calibration": RESPONSES,  # answers to the calibration prompts, by which a budget counts costs
}
OUTPUT = ASSIGNMENTS
NOT_COVERED = frozenset({"device", "accelerate", "executor"})
LATER = {
    "labelling.budget": None,
    "labelling.budget.covers_dev": False,
    "labelling.stop": "never",
    "labelling.price": 0.05,
    "labelling.prior": None,
}
VERSION = 2  # 2: of equal scores the teacher of higher measured rewards wins, not the one of higher scores

LAUNCHED = 1 << 18  # prompts per `accelerate launch`, as each one loads the router again


def run(
    settings: Settings,
    context: Context,
    *,
    prompts: "Dataset",
    rewards: "Dataset | None" = None,
    pool_rewards: "Dataset | None" = None,
    router: Path | None = None,
    base: "Dataset | None" = None,
    calibration: "Dataset | None" = None,
    prior: "Dataset | None" = None,
) -> Result:
    """Assign each prompt of the chosen splits, in prompt order; `all` gives one row per teacher.

    Raises:
        RecipeError: an input, the pool or a setting that the kind needs is missing.
        InputError: inputs do not fit together.
    """
    inputs = {"rewards": rewards, "pool_rewards": pool_rewards, "router": router, "base": base}
    kind = KINDS.get(settings.kind)  # null: `all`
    needed = kind.needs if kind else None
    if needed is not None and inputs[needed] is None:
        raise RecipeError(f"the strategy {settings.kind} needs the input `{needed}`, got none; add it to `inputs`")
    if not context.teachers:
        raise RecipeError("`assign` needs a pool, got no `teachers`; name them in the recipe")
    splits, pool = settings.chosen_splits, [teacher.name for teacher in context.teachers]
    cells = chunks(prompts, splits, CELL)
    report: dict[str, Any] = {}
    match kind.chooses if kind else "all":
        case "all" if settings.labelling is not None:
            decisions = in_part(prompts, settings, context, pool, base, rewards, calibration, prior, report)
        case "all":
            decisions = rules.everyone(cells, len(pool))
        case "draw":
            decisions = rules.mix(cells, settings, context, pool)
        case "measured":
            measured = Measured([rewards, pool_rewards], splits, pool, _alpha(settings))
            decisions = rules.oracle(prompts, splits, measured)
        case "change":
            assert base is not None  # `needs` was checked
            decisions = rules.reassign(prompts, base, settings, context, pool, report)
        case "router":
            assert router is not None  # `needs` was checked
            decisions = _routed(settings, context, pool, prompts, rewards, router, calibration, report)
        case "one_teacher":
            chosen, values = rules.one_teacher(settings, context, pool, rewards)
            report |= values
            decisions = rules.same(cells, chosen)
    data, counts, metrics = write(decisions, pool, context.work_dir / "assignments.arrow")
    if not len(data):
        raise InputError(f"no prompt is in the splits {', '.join(splits)}, at least one is needed; see `prompts`")
    return Result(data=data, counts=counts, metrics={**metrics, **report})


def _alpha(settings: Settings) -> float | None:
    """Return the weight of learnability: the one that the kind fixes, else the settings'; None: as `score` has it."""
    fixed = KINDS[settings.kind].alpha
    if fixed is not None and settings.alpha not in (None, fixed):
        raise RecipeError(f"{settings.kind} means alpha {fixed}, got alpha {settings.alpha}; leave `alpha` out")
    return settings.alpha if fixed is None else fixed


def _routed(
    settings: Settings,
    context: Context,
    pool: list[str],
    prompts: "Dataset",
    rewards: "Dataset | None",
    folder: Path,
    calibration: "Dataset | None",
    report: dict[str, Any],
) -> Iterator[Decision]:
    """Decide by the router in `folder`, within the budget where there is one; `report` gets what dev and it say."""
    from persyn_hf.backends.launching.plan import plan_of
    from persyn_hf.backends.routers import load
    from persyn_hf.backends.routers.llm_model import Llm

    alpha, splits = _alpha(settings), settings.chosen_splits
    measured = Measured([rewards], splits, pool, alpha)
    plan = plan_of(settings, "assign")
    router = load(folder, "cpu" if plan else settings.device, alpha)
    if list(router.teachers) != pool:
        raise InputError(
            f"the router was trained for the teachers {', '.join(router.teachers)}, the pool is {', '.join(pool)}; "
            f"train it again, or name the same teachers in the same order"
        )
    score, at_a_time = score_with(router, context.progress.advance), CHUNK
    if plan is not None and isinstance(router, Llm):  # other routers score thousands of prompts a second
        folders, advance = (folder, alpha, len(pool), context.work_dir), context.progress.advance
        score, at_a_time = score_launched_with(plan, *folders, advance), LAUNCHED
    dev = learn_from_dev(settings, prompts, Measured([rewards], ("dev",), pool, alpha), measured.means, score)
    return decide(settings, context, prompts, measured, score, dev, calibration, report, at_a_time)


def decide(
    settings: Settings,
    context: Context,
    prompts: "Dataset",
    measured: Measured,
    score: Score,
    dev: Dev,
    calibration: "Dataset | None",
    report: dict[str, Any],
    at_a_time: int = CHUNK,
) -> Iterator[Decision]:
    """Decide on prompts by the scores of a router and what dev says of it; `report` gets what dev and budget say.

    measured: the rewards of prompts on which nothing is left to decide. at_a_time: prompts that `score` gets together.

    Raises:
        InputError: the settings ask for a confidence, and dev allows none.
    """
    splits = settings.chosen_splits
    report["confidence"] = dev.report
    if settings.confidence is not None and dev.curve is None:
        raise InputError(
            f"`confidence` needs measured dev prompts, found {dev.report['dev_prompts']}, 20 are needed; "
            f"raise `prompts.dev`, or leave `confidence` out"
        )
    number = sum(map(len, chunks(prompts, splits, ("split",))))
    context.progress.start("routing prompts", number - measured.num_prompts)
    if settings.budget is None and at_a_time == CHUNK:
        return routed(prompts, settings, measured, score, dev.curve)
    scores = scores_of(prompts, splits, measured, score, context.work_dir / "scores", at_a_time)
    if settings.budget is None:
        return routed(prompts, settings, measured, replay(scores), dev.curve)
    unit = settings.budget.cost
    cost = np.zeros(len(context.teachers)) if unit is None else cell_costs(unit, context.teachers, calibration)
    teacher, figures = spend(settings.budget, context.teachers, scores, measured, dev.worth, cost)
    report |= figures
    return routed(prompts, settings, measured, replay(scores), dev.curve, teacher)
