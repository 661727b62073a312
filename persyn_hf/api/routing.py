"""Train routers, load them, and let them or another strategy say which teacher is to answer which prompt."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args

from persyn_hf.api.arguments import check_number, check_whole
from persyn_hf.api.progress import shown
from persyn_hf.api.rewarding import labelled, reward_table
from persyn_hf.api.router import Router, assign_by, learn, load_router
from persyn_hf.api.tables import Prompts, Table, columns_of, in_memory, prompt_table
from persyn_hf.errors import InputError, check
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.recipe.strict import nearest, read_section
from persyn_hf.stage import Context, Progress


if TYPE_CHECKING:
    from datasets import Dataset


Strategy = Literal["persyn", "oracle", "strong", "mix", "car", "best_mean_reward", "no_learnability", "no_quality"]


def train_router(
    rewards: Table,
    prompts: "Prompts | None" = None,
    *,
    kind: Literal["logistic", "ridge", "knn", "stacking", "best_per_topic", "global_best", "llm", "auto"] = "logistic",
    dev: float = 0.2,
    seed: int = 0,
    progress: bool | Progress = False,
    **settings: Any,
) -> Router:
    """Train a router on rewards, and judge it on prompts that it did not see.

    Args:
        rewards: a table with `prompt_id` (or the prompt itself), `teacher` and `reward`, one row per cell, as the
            functions `rewards` and `load_artifact` return it. Prompts with rewards of two teachers or more count.
        prompts: the prompts, a list or a table; None: `rewards` has them, in `prompt` or `messages`.
        kind: of router. `llm`, and any over embeddings, needs `pip install 'persyn-hf[models]'`; `auto` trains several
            and keeps the best.
        dev: share of the prompts that are kept to judge the router and to learn how sure it is; a split `dev` in
            `prompts` or `rewards` takes its place.
        seed: decides who is in dev, and of all that is random in the training.
        progress: show a bar.
        settings: any other setting of `train_router` in a recipe, such as `features="embeddings"`.

    Raises:
        InputError: a column is missing, or too few prompts have rewards.
        RecipeError: a setting is not known or not valid.
    """
    from persyn_hf.backends.routers import load
    from persyn_hf.stages import train_router as stage

    check_number("dev", dev)
    check_whole("seed", seed)
    check(0 < dev < 1, "dev", dev, "a share between 0 and 1")
    chosen = read_section(stage.Settings, {"kind": kind, **settings}, "train_router")
    if chosen.extend is not None:
        raise InputError("`extend` is for recipes, which find the router by its name; run a recipe with it")
    heads = ("quality_reward", "learnability_reward")
    known, asked = labelled(rewards, prompts, ("reward",) if chosen.alpha is None else heads)
    if "dev" not in known["split"][:]:
        known, asked = _draw_dev(known, asked, dev, seed)
    home = TemporaryDirectory(prefix="persyn-router-")
    with shown(progress) as bars, TemporaryDirectory() as work_dir:
        context = Context(seed=seed, work_dir=Path(work_dir), progress=bars)
        made = stage.run(chosen, context, prompts=asked, rewards=known)
        assert isinstance(made.data, Path)  # it is a folder
        made.data.rename(folder := Path(home.name) / "router")
        scores = load(folder, chosen.device)
        prior, found = learn(scores, asked, known, chosen.alpha, bars)
    return Router(folder, scores, prior, found, made.metrics, home)


def assign(
    prompts: Prompts,
    router: Router | str | Path | None = None,
    *,
    strategy: Strategy = "persyn",
    rewards: "Table | None" = None,
    teachers: Sequence[str | Mapping[str, Any]] | None = None,
    alpha: float | None = None,
    per_prompt: int = 1,
    confidence: float | None = None,
    budget: Mapping[str, Any] | None = None,
    responses: "Dataset | None" = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: bool | Progress = False,
) -> "Dataset":
    """Choose which teacher answers which prompt, as the stage `assign` does.

    Args:
        prompts: a list or a table. Of a table with a column `split`, prompts of `dev` are not assigned.
        router: for `persyn` and its ablations: a loaded one, or what `load_router` reads, NAMESPACE/NAME@TAG of the
            default store or the Hub, or a folder.
        strategy: `persyn`: the router's best, and the measured best where `rewards` hold one. `oracle`: the measured
            best of every prompt. `car`, `best_mean_reward`: one teacher for all, the best over the rewards of
            calibration. `strong`: the largest. `mix`: a random one.
        rewards: a table as `train_router` reads it; `oracle`, `car` and `best_mean_reward` need it.
        teachers: names, or dicts as in a recipe (`{"name": ..., "params_b": 7, "price": {...}}`); None: those of the
            router, else those of the rewards.
        alpha: weight of learnability in `rewards`; None: as they were combined.
        per_prompt: ask so many teachers, best first. confidence: ask several only where the router is less sure.
        budget: limits on cost and shares, as in a recipe: `{"max": {"qwen-72b": 0.2}}`; one with a `cost` needs
            `responses`, the teachers' answers to the calibration prompts as an artifact holds them.
        weights: of `mix`, the share of each teacher; None: even.
        seed: of `mix`. progress: show a bar.

    Returns:
        A dataset of the `assignments` contract, in the order of calibration, then pool: `prompt_id`, `teacher`,
        `scores`, `margin`, `confidence`, and in `source` who decided: router, oracle (measured) or rule.

    Raises:
        InputError: inputs do not fit together. RecipeError: a setting or an input is missing or not valid.
    """
    from persyn_hf.stages import assign as stage

    if strategy not in get_args(Strategy):
        raise InputError(f"`strategy` {strategy!r} is not known{nearest(str(strategy), get_args(Strategy))}")
    check_whole("seed", seed)
    if isinstance(router, (str, Path)):
        router = load_router(router)
    elif router is not None and not isinstance(router, Router):
        raise InputError(f"`router` must be a Router, NAMESPACE/NAME@TAG or a folder, got {type(router).__name__}")
    if budget is not None and not isinstance(budget, Mapping):
        raise InputError(f"`budget` must be a dict as in a recipe, got {type(budget).__name__}")
    kind = KINDS[strategy]
    if kind.chooses == "router" and router is None:
        raise InputError(f"the strategy {strategy} needs a `router`, got none; see `load_router` and `train_router`")
    if kind.needs in ("rewards", "pool_rewards") and rewards is None:
        raise InputError(f"the strategy {strategy} needs `rewards`, got none; give a table with a row per cell")
    if budget is not None and budget.get("cost") and responses is None:
        raise InputError(
            f"a budget in {budget['cost']} needs `responses`, the teachers' answers to the calibration prompts, got "
            "none; give the artifact that holds them, or limit shares (`min`, `max`) alone"
        )
    given = {"kind": strategy, "alpha": alpha, "per_prompt": per_prompt, "confidence": confidence, "weights": weights}
    settings = read_section(stage.Settings, given | {"budget": budget}, "assign")
    known = None
    if rewards is None:
        asked = prompt_table(prompts, otherwise="pool")
    else:
        known, asked = labelled(rewards, prompts, ("reward",) if alpha is None else None)
    pool = _teachers(teachers, router, rewards)
    if kind.chooses == "router" and router is not None:
        return assign_by(router, asked, known, settings, pool, responses, progress)
    with shown(progress) as bars, TemporaryDirectory() as work_dir:
        context = Context(seed=seed, work_dir=Path(work_dir), teachers=pool, progress=bars)
        every = known if kind.needs == "pool_rewards" else None
        made = stage.run(settings, context, prompts=asked, rewards=known, pool_rewards=every)
        assert not isinstance(made.data, Path)  # it is a dataset
        return in_memory(made.data)


def _draw_dev(known: "Dataset", asked: "Dataset", share: float, seed: int) -> tuple["Dataset", "Dataset"]:
    """Move a share of the measured prompts to dev; the hash of seed and prompt decides."""
    from persyn_hf.schemas import PROMPTS

    columns = known[:]
    places = list(zip(columns["prompt_id"], columns["split"], strict=True))
    measured = {name for name, split in places if split == "calibration"}
    lots = sorted(measured, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    chosen = set(lots[: max(2, round(share * len(lots)))])
    rows = [row | {"split": "dev" if row["prompt_id"] in chosen else row["split"]} for row in asked]
    splits = ["dev" if name in chosen else split for name, split in places]
    return reward_table(columns | {"split": splits}), PROMPTS.dataset(rows)


def _teachers(
    given: Sequence[str | Mapping[str, Any]] | None, router: Router | None, rewards: "Table | None"
) -> tuple[Teacher, ...]:
    """Return the teachers, in the order of the router where there is one."""
    if isinstance(given, str) or not isinstance(given, (Sequence, NoneType)):
        raise InputError(f"`teachers` must be a list of names or dicts, got {type(given).__name__}")
    for each in given or ():
        if not isinstance(each, (str, Mapping)):
            raise InputError(f"`teachers` must hold names or dicts, got {type(each).__name__} {each!r:.60}")
    named = list(given) if given is not None else list(router.teachers) if router is not None else []
    if not named and rewards is not None:
        named = list(dict.fromkeys(columns_of(rewards, "rewards")["teacher"]))
    if not named:
        raise InputError("`assign` needs to know the `teachers`, got none, and no router or rewards; name them")
    entries = [{"name": each} if isinstance(each, str) else each for each in named]
    pool = {teacher.name: teacher for teacher in (read_section(Teacher, each, "teachers") for each in entries)}
    if router is None:
        return tuple(pool.values())
    if pool.keys() != set(router.teachers):
        raise InputError(
            f"the router was trained for the teachers {', '.join(router.teachers)}, `teachers` are {', '.join(pool)}; "
            "name the same ones, or train it again"
        )
    return tuple(pool[name] for name in router.teachers)
