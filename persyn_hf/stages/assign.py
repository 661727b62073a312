"""Stage `assign`: which teacher answers which prompt. PerSyn and every baseline differ only here.

`all` sends each prompt of calibration and dev to every teacher. The other kinds send each prompt of calibration and
pool to one: calibration prompts were answered and scored already, so PerSyn takes the measured best there.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from persyn_hf.core import assignment as core
from persyn_hf.core.metrics import effective_teachers
from persyn_hf.core.rewards import FloatArray, IntArray, reward_matrix, to_matrix
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe import ROUTED_KINDS, STRATEGY_KINDS, Strict, nearest
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, REWARDS, ROUTER
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS}
OPTIONAL_INPUTS = {"rewards": REWARDS, "pool_rewards": REWARDS, "router": ROUTER, "base": ASSIGNMENTS}
OUTPUT = ASSIGNMENTS

ALPHAS = {"no_learnability": 0.0, "no_quality": 1.0}
NEEDS = {
    **dict.fromkeys(ROUTED_KINDS, "router"),
    "oracle": "pool_rewards",
    "car": "rewards",
    "best_mean_reward": "rewards",
    "reassign": "base",
}


class Settings(Strict):
    """Knobs of this stage. Their defaults live here and nowhere else."""

    kind: Literal["all", *STRATEGY_KINDS] = "all"  # type: ignore[valid-type]  # the tuple is also used at run time
    splits: tuple[Literal["calibration", "dev", "pool"], ...] | None = Field(default=None, strict=False)  # null: above
    alpha: float | None = Field(default=None, ge=0, le=1)  # weight of learnability; null: as `score` combined them
    beta: float = Field(default=3.0, ge=0)  # car: weight of the student's loss
    teacher: str | None = None  # strong, family_strong: named instead of found
    weights: dict[str, float] | None = None  # mix: share per teacher, 0 for those left out; null: uniform
    from_teachers: tuple[str, ...] | None = Field(default=None, strict=False)  # reassign; null: the Long-CoT teachers
    to_teacher: str | None = None  # reassign
    per_prompt: int = Field(default=1, ge=1)  # routed kinds: teachers per routed prompt, best first
    device: str = "auto"  # of the llm router: auto, cpu, cuda, cuda:1, mps


class Decision(NamedTuple):
    """One teacher per prompt: index, scores (NaN: missing; no columns: no scores), margin and who decided."""

    teacher: IntArray
    scores: FloatArray
    margin: FloatArray
    source: list[str]
    report: dict[str, Any]


def run(
    settings: Settings,
    context: Context,
    *,
    prompts: "Dataset",
    rewards: "Dataset | None" = None,
    pool_rewards: "Dataset | None" = None,
    router: Path | None = None,
    base: "Dataset | None" = None,
) -> Result:
    """Assign each prompt of the chosen splits, in prompt order; `all` gives one row per teacher."""
    inputs = {"rewards": rewards, "pool_rewards": pool_rewards, "router": router, "base": base}
    needed = NEEDS.get(settings.kind)
    if needed is not None and inputs[needed] is None:
        raise RecipeError(f"the strategy {settings.kind} needs the input `{needed}`, got none; add it to `inputs`")
    if not context.teachers:
        raise RecipeError("`assign` needs a pool, got no `teachers`; name them in the recipe")
    splits = settings.splits or ("calibration", "dev" if settings.kind == "all" else "pool")
    prompts = prompts.select([i for i, split in enumerate(prompts["split"][:]) if split in splits])
    if not len(prompts):
        raise InputError(f"no prompt is in the splits {', '.join(splits)}, at least one is needed; see `prompts`")
    pool = [teacher.name for teacher in context.teachers]
    if settings.kind == "all":
        decision = _by_rule(np.tile(np.arange(len(pool)), len(prompts)))
        prompts = prompts.select(np.repeat(np.arange(len(prompts)), len(pool)))
    elif settings.kind in ROUTED_KINDS:
        decision = _routed(settings, context, pool, prompts, rewards, router)
        if settings.per_prompt > 1:
            rows, decision = _several(decision, settings.per_prompt)
            prompts = prompts.select(rows)
    elif settings.kind == "oracle":
        decision = _oracle(settings, pool, prompts, rewards, pool_rewards)
    elif settings.kind == "reassign":
        decision = _reassigned(settings, context, pool, prompts, base)
    elif settings.kind == "mix":
        decision = _by_rule(core.mix(len(prompts), _weights(settings, pool), np.random.default_rng(context.seed)))
    else:
        chosen, report = _one_teacher(settings, context, pool, rewards)
        decision = _by_rule(np.full(len(prompts), chosen), report)
    return _result(pool, prompts, decision)


def _result(pool: list[str], prompts: "Dataset", decision: Decision) -> Result:
    from datasets import Dataset

    columns = {
        "prompt_id": prompts["prompt_id"][:],
        "teacher": [pool[index] for index in decision.teacher],
        "scores": [[_number(score) for score in row] for row in decision.scores],
        "margin": [_number(margin) for margin in decision.margin],
        "source": decision.source,
        "split": prompts["split"][:],
    }
    counts = {source: decision.source.count(source) for source in ("router", "oracle", "rule")}
    in_pool = np.array(columns["split"]) == "pool"  # what the strategy decides on its own; calibration is paid for
    shares = core.allocation(decision.teacher[in_pool] if in_pool.any() else decision.teacher, len(pool))
    metrics = {
        "allocation": dict(zip(pool, shares.tolist(), strict=True)),
        "effective_teachers": float(effective_teachers(shares)),
        **decision.report,
    }
    return Result(data=Dataset.from_dict(columns, features=OUTPUT.features), counts=counts, metrics=metrics)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _by_rule(teacher: IntArray, report: dict[str, Any] | None = None) -> Decision:
    number = len(teacher)
    return Decision(teacher, np.zeros((number, 0)), np.full(number, np.nan), ["rule"] * number, report or {})


def _alpha(settings: Settings) -> float | None:
    fixed = ALPHAS.get(settings.kind)
    if fixed is not None and settings.alpha not in (None, fixed):
        raise RecipeError(f"{settings.kind} means alpha {fixed}, got alpha {settings.alpha}; leave `alpha` out")
    return settings.alpha if fixed is None else fixed


def _measured(sets: list["Dataset | None"], pool: list[str], prompts: "Dataset", alpha: float | None) -> FloatArray:
    """Rewards of the prompts (num_prompts, num_teachers), NaN where unmeasured; a later set fills what is missing."""
    row_of = {prompt_id: row for row, prompt_id in enumerate(prompts["prompt_id"][:])}
    found = np.full((len(row_of), len(pool)), np.nan)
    for rewards in sets:
        if rewards is None or not len(rewards):
            continue
        ids, matrix = reward_matrix(rewards[:], pool, alpha)
        here = [(row_of[prompt_id], row) for row, prompt_id in enumerate(ids) if prompt_id in row_of]
        for target, row in here:
            if np.isnan(found[target]).all():
                found[target] = matrix[row]
    return found


def _routed(
    settings: Settings,
    context: Context,
    pool: list[str],
    prompts: "Dataset",
    rewards: "Dataset | None",
    folder: Path | None,
) -> Decision:
    """The measured best where rewards exist, the router's best elsewhere."""
    from persyn_hf.backends.routers import load

    assert folder is not None  # `run` checked it
    scores = _measured([rewards], pool, prompts, _alpha(settings))
    measured = np.isfinite(scores).any(axis=1)
    router = load(folder, settings.device)
    if list(router.teachers) != pool:
        raise InputError(
            f"the router was trained for the teachers {', '.join(router.teachers)}, the pool is {', '.join(pool)}; "
            f"train it again, or name the same teachers in the same order"
        )
    teacher = np.zeros(len(prompts), dtype=np.int64)
    margin = np.full(len(prompts), np.nan)
    if not measured.all():
        rest = prompts.select(np.flatnonzero(~measured))
        context.progress.start("routing prompts", len(rest))
        scores[~measured] = router.scores(rest["messages"][:], context.progress.advance)
        teacher[~measured], margin[~measured] = core.route(scores[~measured])
    if measured.any():
        teacher[measured], margin[measured] = core.route(scores[measured])
    return Decision(teacher, scores, margin, np.where(measured, "oracle", "router").tolist(), {})


def _several(decision: Decision, per_prompt: int) -> tuple[IntArray, Decision]:
    """Give every routed prompt to its best teachers; measured prompts keep the one that was measured best."""
    number = np.where(np.array(decision.source) == "router", per_prompt, 1)
    order = core.best_first(decision.scores, decision.teacher)
    rows = np.repeat(np.arange(len(number)), number)
    teacher = np.concatenate([order[row, :k] for row, k in enumerate(number)])
    source = np.array(decision.source)[rows].tolist()
    return rows, Decision(teacher, decision.scores[rows], decision.margin[rows], source, decision.report)


def _oracle(
    settings: Settings, pool: list[str], prompts: "Dataset", rewards: "Dataset | None", pool_rewards: "Dataset | None"
) -> Decision:
    """The measured best everywhere; a prompt that nobody's response could be judged on goes to the best on average."""
    sets = [rewards, pool_rewards]
    known = {prompt_id for rows in sets if rows is not None for prompt_id in rows["prompt_id"][:]}
    without = [prompt_id for prompt_id in prompts["prompt_id"][:] if prompt_id not in known]
    if without:
        raise InputError(
            f"oracle needs rewards of every prompt, {len(without)} have none (first {without[0]}); "
            f"generate and score all teachers on them, or leave their split out of `splits`"
        )
    scores = _measured(sets, pool, prompts, _alpha(settings))
    teacher, margin = core.route(scores)
    source = np.where(np.isnan(scores).all(axis=1), "rule", "oracle").tolist()
    return Decision(teacher, scores, margin, source, {})


def _reassigned(
    settings: Settings, context: Context, pool: list[str], prompts: "Dataset", base: "Dataset | None"
) -> Decision:
    """The base's assignments, some teachers' prompts sent to another; scores stay, the margin goes where changed."""
    assert base is not None  # `run` checked it
    if settings.to_teacher is None:
        raise RecipeError("the strategy reassign needs `to_teacher`, got none; name the teacher that takes over")
    leaving = settings.from_teachers or tuple(teacher.name for teacher in context.teachers if teacher.long_cot)
    if not leaving:
        raise RecipeError("reassign found no Long-CoT teacher in the pool; name whom to replace in `from_teachers`")
    rows = {prompt_id: row for row, prompt_id in enumerate(base["prompt_id"][:])}
    missing = [prompt_id for prompt_id in prompts["prompt_id"][:] if prompt_id not in rows]
    if missing or len(rows) != len(base):
        raise InputError(
            f"reassign needs a base with one assignment per prompt, found {len(base)} rows for {len(rows)} prompts "
            f"and {len(missing)} prompts without; give the assignments of a strategy over the same splits"
        )
    base = base.select([rows[prompt_id] for prompt_id in prompts["prompt_id"][:]])
    before = np.array([_index(pool, name, "base") for name in base["teacher"][:]])
    after = core.reassign(
        before,
        [_index(pool, name, "from_teachers") for name in leaving],
        _index(pool, settings.to_teacher, "to_teacher"),
    )
    moved = before != after
    scores = np.array([[np.nan if x is None else x for x in row] for row in base["scores"][:]], dtype=np.float64)
    margin = np.array([np.nan if x is None else x for x in base["margin"][:]], dtype=np.float64)
    source = np.where(moved, "rule", np.array(base["source"][:])).tolist()
    report = {"reassigned": int(moved.sum()), "from_teachers": list(leaving), "to_teacher": settings.to_teacher}
    return Decision(after, scores, np.where(moved, np.nan, margin), source, report)


def _one_teacher(
    settings: Settings, context: Context, pool: list[str], rewards: "Dataset | None"
) -> tuple[int, dict[str, Any]]:
    """Index of the one teacher for all prompts; its name and every teacher's value under the rule."""
    if settings.teacher is not None:
        chosen = _index(pool, settings.teacher, "teacher")
        return chosen, {"chosen": pool[chosen], "values": {}}
    if settings.kind == "car":
        quality, logprob = (_calibration(rewards, pool, column) for column in ("quality_raw", "mean_logprob"))
        ranking = core.car(quality, -logprob, settings.beta)
    elif settings.kind == "best_mean_reward":
        ranking = core.best_mean(reward_matrix(_calibration_rows(rewards), pool, settings.alpha)[1])
    else:
        sizes = [teacher.params_b for teacher in context.teachers]
        means = None if rewards is None else core.column_means(_calibration(rewards, pool, "quality_raw"))
        ranking = core.strong(pool, sizes, means)
        if settings.kind == "family_strong":
            if context.student is None:
                raise RecipeError("family_strong needs a student with a `family`, got none; name one teacher instead")
            families = [teacher.family for teacher in context.teachers]
            ranking = core.family_strong(pool, families, sizes, context.student.family, ranking.teacher, means)
    values = dict(zip(pool, (_number(value) for value in ranking.values), strict=True))
    return ranking.teacher, {"chosen": pool[ranking.teacher], "values": values}


def _calibration_rows(rewards: "Dataset | None") -> dict[str, list[Any]]:
    """Columns of the calibration prompts' rewards: choosing a teacher may look at neither dev nor pool."""
    assert rewards is not None  # `run` checked it
    columns = rewards.select([i for i, split in enumerate(rewards["split"][:]) if split == "calibration"])[:]
    if not columns["prompt_id"]:
        raise InputError("the rewards hold no calibration prompt, some are needed to choose a teacher; run `score`")
    return dict(columns)


def _calibration(rewards: "Dataset | None", pool: list[str], column: str) -> FloatArray:
    columns = _calibration_rows(rewards)
    return to_matrix(columns["prompt_id"], columns["teacher"], columns[column], pool)[1]


def _weights(settings: Settings, pool: list[str]) -> list[float]:
    if settings.weights is None:
        return [1.0] * len(pool)
    shares = {_index(pool, name, "weights"): share for name, share in settings.weights.items()}
    return [shares.get(index, 0.0) for index in range(len(pool))]


def _index(pool: list[str], name: str, where: str) -> int:
    if name not in pool:
        raise RecipeError(f"`{where}` names the teacher `{name}`{nearest(name, pool)}")
    return pool.index(name)
