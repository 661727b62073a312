"""Stage `train_router`: calibration rewards in, a router out, judged on dev (PerSyn, section 2.3).

Comparisons may take the place of rewards (`inputs: {pairs: NAMESPACE/NAME@TAG}`). The reward of a teacher is then the
share of its comparisons that it wins.

Dev prompts take no part in training: the epoch or the regularisation is chosen on a slice of the calibration prompts.
Where there are none, calibration prompts judge the router that it has not seen (`backends.routers.judging`).
Only `auto` looks at dev, to choose among its candidates, and its record says so and compares all candidates.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from persyn_hf.backends import tracking
from persyn_hf.backends.priors import read_prior
from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load, teacher_means
from persyn_hf.backends.routers.auto import candidates, fit_best
from persyn_hf.backends.routers.extended import extend
from persyn_hf.backends.routers.judging import FOLDS, Judged, check_judges, cross_fitted, held_out, metrics_of
from persyn_hf.backends.routers.trainings import Draw
from persyn_hf.backends.tracking import Tracked, Tracker
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.pairs import preferences, win_shares
from persyn_hf.core.rewards import reward_matrix, to_matrix
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import REF
from persyn_hf.report.router_figures import write_router_figures
from persyn_hf.schemas import PAIRS, PROMPTS, REWARDS, ROUTER
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS}
OPTIONAL_INPUTS = {
    "rewards": REWARDS,  # one of these two
    "pairs": PAIRS,
    "base": ROUTER,  # the router to extend
    "prior": REWARDS,  # what `stacking` learns from beside the rewards
}
OUTPUT = ROUTER
NOT_COVERED = frozenset(
    {"device", "micro_batch_size", "gradient_checkpointing", "save_steps", "accelerate", "executor", "report_to"}
)

LATER = {"prior": None}


class Settings(RouterSettings):
    """The settings of this stage in addition to those of the router itself.

    A new teacher joins a router by `extend`; its rewards on 100 to 200 prompts (`calibration.anchors`) suffice.
    """

    extend: str | None = Field(
        default=None,
        description="A stored router, NAMESPACE/NAME@TAG, that the pool's new teachers join. "
        "Nothing else is trained, and its scores of old teachers stay.",
    )
    prior: str | None = Field(
        default=None, description="Of `stacking`: the file of `calibration.prior`. The recipe's plan sets it."
    )
    alpha: float | None = Field(
        default=None, ge=0, le=1, description="The weight of learnability. Null: the rewards are as `score` made them."
    )
    validation_share: float = Field(
        default=0.15, ge=0, lt=1, description="The share of the calibration prompts that is kept for early stopping."
    )
    seeds: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Of `auto`: how often each candidate is trained, each time with other validation prompts.",
    )
    curve: tuple[Annotated[int, Field(ge=4)], ...] = Field(
        default=(),
        strict=False,
        description="Of `auto`: smaller numbers of calibration prompts to train on as well, for a learning curve. "
        "Larger ones are left out.",
    )

    report_to: tuple[Tracker, ...] = Field(
        default=(),
        strict=False,
        description="Of `llm`: the trackers that get loss, learning rate, gradient norm and validation regret: "
        "trackio, wandb, tensorboard.",
    )

    @field_validator("extend", mode="before")
    @classmethod
    def _is_a_ref(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and REF.fullmatch(value)):
            raise ValueError(f"must name a stored router, NAMESPACE/NAME@TAG, got {value!r}")
        return value

    @model_validator(mode="after")
    def _candidates_are_sound(self) -> "Settings":
        if self.kind == "auto":
            candidates(self)
        if self.report_to and (self.kind != "llm" or self.method == "frozen" or self.extend is not None):
            found = "`extend`" if self.extend is not None else f"kind `{self.kind}`"
            if self.kind == "llm" and self.method == "frozen":
                found = "`method: frozen`"
            raise ValueError(
                f"`report_to` follows the training of an `llm` router, full or by LoRA, and {found} has none to "
                "follow; leave it out"
            )
        return self


def check_files(settings: Settings) -> None:
    """Refuse a tracker whose package is not installed, before anything is paid for."""
    tracking.check(settings.report_to, "train_router.report_to")


def run(
    settings: Settings,
    context: Context,
    *,
    prompts: "Dataset",
    rewards: "Dataset | None" = None,
    pairs: "Dataset | None" = None,
    base: Path | None = None,
    prior: "Dataset | None" = None,
) -> Result:
    """Train on the calibration prompts with at least two measured teachers; return the folder and the dev metrics.

    rewards or pairs, one of the two: what is learned. base: folder of the router to extend. prior: rewards that
    `stacking` learns from, too, on calibration prompts that are measured and on others.

    Raises:
        RecipeError: none or both of rewards and pairs are given, or the settings need the other.
        InputError: fewer than two usable prompts in calibration or dev, or values that are not valid.
    """
    pool, ids, matrices = _matrices(settings, [teacher.name for teacher in context.teachers], rewards, pairs)
    labelled, counts = _labelled(prompts, ids, matrices)
    if prior is not None or settings.prior is not None:
        labelled["calibration"] = _with_prior(prompts, labelled["calibration"], settings.prior or prior, pool)
    ids, calibration = labelled["calibration"]
    draws = _draws(ids, settings, context.seed)
    train, validation = (calibration.take(rows) for rows in draws[len(ids)][0][:2])
    folder, advance = context.work_dir / "router", context.progress.advance
    dev = labelled["dev"][1]
    kind = "extended" if base is not None else settings.kind
    if not len(dev.rewards):
        check_judges(kind, int((~np.isnan(calibration.rewards)).any(axis=1).sum()), settings.validation_share)
    context.progress.start(f"training the {kind} router", _num_steps(settings, draws))
    rng = np.random.default_rng(context.seed)
    tracked = Tracked(settings.report_to, context.recipe, context.step)
    compared: dict[str, Any] = tracking.metrics(tracked)
    cost: dict[str, Any] = {}
    if base is not None:
        record = extend(tuple(pool), base, calibration, folder, settings.device)
        advance(1)
    elif settings.kind == "auto":
        record, compared["comparison"], cost["candidates"] = fit_best(
            settings, tuple(pool), calibration, dev, draws, folder, rng.spawn(1)[0], advance
        )
        write_router_figures(compared["comparison"], folder)
    else:
        record = fit(settings, pool, train, validation, folder, seed=context.seed, advance=advance, tracked=tracked)
    router = load(folder, settings.device)
    if len(dev.rewards):
        judged = Judged(router.scores(dev.conversations), dev.rewards, teacher_means(calibration.rewards))
    elif kind == "llm":
        judged = held_out(router, train, validation)
    else:
        context.progress.start("judging the router on folds of calibration", FOLDS)
        hold_out = partial(_hold_out, share=settings.validation_share)
        judged = cross_fitted(settings, pool, ids, calibration, hold_out, folder, context.seed, advance)
    metrics = metrics_of(judged, pool, router.scale, rng, by_calibration=not len(dev.rewards))
    metrics |= {"training": {"scale": router.scale, **record}, **compared}
    parts = {"train": train, "validation": validation, "dev": dev}
    counts |= {f"{name}_prompts": int((~np.isnan(part.rewards)).any(axis=1).sum()) for name, part in parts.items()}
    return Result(data=folder, counts=counts, metrics=metrics, cost=cost)


def _num_steps(settings: Settings, draws: dict[int, list[Draw]]) -> int:
    """Return the number of units in which training reports its progress: trainings, epochs, or the whole at once."""
    if settings.extend is not None:
        return 1
    if settings.kind == "auto":
        return len(candidates(settings)) * sum(map(len, draws.values()))
    return settings.epochs if settings.kind == "llm" else 1


Split = tuple[list[str], Labelled]  # prompt_ids of a split, and its prompts with their rewards


def _matrices(
    settings: Settings, pool: list[str], rewards: "Dataset | None", pairs: "Dataset | None"
) -> tuple[list[str], list[str], dict[str, FloatArray]]:
    """Return the pool, the prompt_ids, and the matrices of `Labelled` by name, rows as in the prompt_ids."""
    if (rewards is None) == (pairs is None):
        got = "none" if rewards is None else "both"
        raise RecipeError(f"`train_router` needs the input `rewards` or the input `pairs`, got {got}; give one")
    each = candidates(settings).values() if settings.kind == "auto" else [settings]
    is_two_head = any(candidate.objective == "two_head" for candidate in each)
    if rewards is None:
        if is_two_head:
            raise RecipeError("the objective `two_head` needs rewards, got pairs; take `bt`")
        columns = pairs[:]  # type: ignore[index]  # one of the two is given
        pool = pool or sorted({*columns["teacher_a"], *columns["teacher_b"]})
        ids, preferred = preferences(columns, pool)
        return pool, ids, {"rewards": win_shares(preferred), "preferences": preferred}
    columns = rewards[:]
    pool = pool or list(dict.fromkeys(columns["teacher"]))
    ids, matrix = reward_matrix(columns, pool, settings.alpha)
    matrices = {"rewards": matrix}
    for head in ("quality", "learnability") if is_two_head else ():
        matrices[head] = to_matrix(columns["prompt_id"], columns["teacher"], columns[f"{head}_reward"], pool)[1]
    return pool, ids, matrices


def _labelled(
    prompts: "Dataset", ids: list[str], matrices: dict[str, FloatArray]
) -> tuple[dict[str, Split], dict[str, int]]:
    """Return the prompts with at least two rewards, by split, in prompt order; and the counts of what is missing."""
    matrix = matrices["rewards"]
    row_of = {prompt_id: row for row, prompt_id in enumerate(ids)}
    usable = (~np.isnan(matrix)).sum(axis=1) >= 2
    labelled: dict[str, Split] = {}
    for split in ("calibration", "dev"):
        of_split = prompts.select([i for i, name in enumerate(prompts["split"][:]) if name == split])
        rows = [row_of.get(prompt_id, -1) for prompt_id in of_split["prompt_id"][:]]
        keep = [position for position, row in enumerate(rows) if row >= 0 and usable[row]]
        if len(keep) < 2 and (split == "calibration" or len(of_split)):
            raise InputError(
                f"{len(keep)} {split} prompts have rewards of two teachers or more, at least 2 are needed to train a "
                f"router; raise `prompts.{split}`, or look for failures in the rewards"
            )
        kept = of_split.select(keep)
        chosen = [rows[position] for position in keep]
        labelled[split] = (
            kept["prompt_id"][:],
            Labelled(kept["messages"][:], **{name: values[chosen] for name, values in matrices.items()}),
        )
    counts = {"prompts_without_pairs": int((~usable).sum()), "missing_cells": int(np.isnan(matrix).sum())}
    return labelled, counts


def _with_prior(prompts: "Dataset", measured: Split, prior: "Dataset | str", pool: list[str]) -> Split:
    """Add a prior to the calibration prompts, and the prompts that it alone knows; rows stay in prompt order."""
    ids, labelled = measured
    of_split = prompts.select([i for i, name in enumerate(prompts["split"][:]) if name == "calibration"])
    every, conversations = of_split["prompt_id"][:], of_split["messages"][:]
    matrix = read_prior(prior, every, conversations, pool)
    rewards = np.full(matrix.shape, np.nan)
    place = {prompt_id: row for row, prompt_id in enumerate(every)}
    rewards[[place[prompt_id] for prompt_id in ids]] = labelled.rewards
    rows = np.flatnonzero((~np.isnan(rewards) | ~np.isnan(matrix)).any(axis=1)).tolist()
    both = Labelled([conversations[row] for row in rows], rewards[rows], prior=matrix[rows])
    return [every[row] for row in rows], both


def _draws(ids: list[str], settings: Settings, seed: int) -> dict[int, list[Draw]]:
    """Return number of calibration prompts -> one draw of them for each training, the largest number last."""
    sizes, seeds = {len(ids)}, 1
    if settings.kind == "auto":
        sizes, seeds = sizes | {size for size in settings.curve if size < len(ids)}, settings.seeds
    share = settings.validation_share
    return {
        size: [Draw(*_hold_out(ids, share, number, size), seed + number) for number in range(seeds)]
        for size in sorted(sizes)
    }


def _hold_out(ids: list[str], share: float, draw: int = 0, size: int | None = None) -> tuple[list[int], list[int]]:
    """Choose rows to train on and rows to validate on, `size` in all.

    The hash of the prompt decides, so that the choice does not depend on the order of the rows. Of two sizes of one
    draw, the larger holds all rows of the smaller.
    """
    salt = f"{draw}:" if draw else ""
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{salt}{ids[i]}".encode()).hexdigest())[:size]
    cut = len(order) - min(max(round(share * len(order)), 1 if share else 0), len(order) - 1)
    return sorted(order[:cut]), sorted(order[cut:])
