"""The choices that other weights would have made, from rewards measured already: recomputed as a slider moves."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.assignment import allocation, route, several_best
from persyn_hf.core.metrics import effective_teachers
from persyn_hf.core.rewards import NOISE, How, Measure, combine, fill, learnability, normalise
from persyn_hf.errors import InputError, check
from persyn_hf.space.collection import teachers_of
from persyn_hf.space.costs import cell_costs
from persyn_hf.space.database import Database
from persyn_hf.store.stored import Stored


SAMPLE = 10_000  # prompts that are computed live; of more, as many are drawn evenly
ALPHAS = tuple(twentieths / 20 for twentieths in range(21))
RAW = ("quality_raw", "mean_logprob", "sum_logprob", "sum_min_rank")


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity, so that results are kept for each
class Measured:
    """The raw measurements of prompts, (N, n), NaN where either is missing, and a prompt's cost with each teacher."""

    pool: list[str]
    ids: list[str]  # (N,) of the prompts
    quality: FloatArray
    learnability: FloatArray
    measure: Measure
    in_part: bool
    near_tie: float
    settings: Mapping[str, Any]  # of the rewards
    cost: FloatArray | None  # (n,), in `unit`; None: not known of all teachers
    unit: str
    prompts: int  # measured in all, of which `quality` holds a sample


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The oracle's choices under one setting; means over the prompts. `cost`: per prompt; None: not known."""

    shares: FloatArray
    quality: float
    learnability: float
    cost: float | None
    effective_teachers: float
    tied: float  # share of the prompts with several best teachers
    moved: float  # share of the prompts whose teacher by the recipe's weights is no longer a best one


def load(database: Database, assignment: Stored, split: str = "", sample: int = SAMPLE) -> Measured:
    """Return the measured cells of the rewards that go with an assignment.

    Args:
        split: prompts of this split only; "": all.
        sample: the largest number of prompts.

    Raises:
        InputError: no rewards are here, or no cell has both its quality and its learnability.
    """
    rewards, pool = database.shelf.rewards(assignment), [teacher.name for teacher in teachers_of(assignment)]
    if not rewards:
        raise InputError(
            f"no rewards of {assignment.ref} are here, they are needed to choose anew; open them beside it: "
            "persyn space ASSIGNMENTS REWARDS"
        )
    settings = rewards[0].manifest.settings
    measure: Measure = settings.get("learnability") or "mean_logprob"
    most = sample // len(rewards)
    blocks = [_matrices(database, database.view(item), split, pool, measure, most) for item in rewards]
    ids = np.concatenate([ids for _, ids, _, _ in blocks])
    quality = np.concatenate([raw for *_, raw, _ in blocks])
    learned = np.concatenate([raw for *_, raw in blocks])
    both = ~np.isnan(quality) & ~np.isnan(learned)
    if not both.any():
        raise InputError(
            f"no cell of {', '.join(item.ref for item in rewards)} has both its quality and its learnability; "
            "score with a student and a verifier or a reward model"
        )
    complete = both.any(axis=1)
    cost, unit = _costs(database, assignment, pool)
    return Measured(
        pool=pool,
        ids=ids[complete].tolist(),
        quality=np.where(both, quality, np.nan)[complete],
        learnability=np.where(both, learned, np.nan)[complete],
        measure=measure,
        in_part=bool(settings.get("in_part")),
        near_tie=settings.get("near_tie", NOISE),  # manifests leave the default out
        settings=settings,
        cost=cost,
        unit=unit,
        prompts=sum(total for total, *_ in blocks),
    )


@functools.lru_cache(maxsize=64)
def what_if(rewards: Measured, alpha: float, normalisation: How = "minmax", weight: float = 0.0) -> Outcome:
    """Send each prompt to its best teacher under other weights and return the means over the prompts.

    Best is (1 - alpha) quality + alpha learnability - weight * cost, the cost in answers of the pool's mean cost.

    Args:
        alpha: 0 to 1.
        weight: reward given up for one more answer of the pool's mean cost; 0 or more.
    """
    return _outcome(rewards, _scaled(rewards, normalisation), alpha, weight)


@functools.lru_cache(maxsize=16)
def curve(rewards: Measured, normalisation: How = "minmax", weight: float = 0.0) -> dict[float, Outcome]:
    """Return the outcome at every alpha of `ALPHAS`; normalisation and weight as in `what_if`."""
    scaled = _scaled(rewards, normalisation)
    return {alpha: _outcome(rewards, scaled, alpha, weight) for alpha in ALPHAS}


@functools.lru_cache(maxsize=8)
def chosen_here(rewards: Measured) -> IntArray:
    """Return the best teacher of each prompt by the recipe's own weights, (N,).

    It keeps a prompt under other weights wherever it is still one of the best: else blocks of prompts with several
    best teachers would change theirs where two means cross.
    """
    alpha, how = rewards.settings.get("alpha"), rewards.settings.get("normalisation")
    return route(combine(*_scaled(rewards, how or "minmax"), 0.4 if alpha is None else alpha)).teacher


@functools.lru_cache(maxsize=8)
def _scaled(rewards: Measured, normalisation: How) -> tuple[FloatArray, FloatArray]:
    """Return quality and learnability normalised as `core.rewards.recombine` does it, both (N, n).

    They are normalised over the prompt's cells. Where rewards were measured in part, the missing cells count as
    predicted.
    """
    check(normalisation in get_args(How), "normalisation", normalisation, f"one of {', '.join(get_args(How))}")
    raw = (rewards.quality, rewards.learnability)
    filled = (fill(matrix) if rewards.in_part else matrix for matrix in raw)
    both = (normalise(matrix, normalisation, rewards.near_tie) for matrix in filled)
    quality, learned = (np.where(np.isnan(before), np.nan, after) for before, after in zip(raw, both, strict=True))
    return quality, learned


def _outcome(rewards: Measured, scaled: tuple[FloatArray, FloatArray], alpha: float, weight: float) -> Outcome:
    """Return the means over the prompts when each goes to its best teacher."""
    check(weight >= 0, "lambda", weight, "a number of 0 or more")
    reward = combine(*scaled, alpha)
    if weight and rewards.cost is not None:
        reward = reward - weight * rewards.cost / rewards.cost.mean()
    before = chosen_here(rewards)
    teacher = route(reward, stay=before).teacher
    rows = np.arange(len(teacher))
    shares = allocation(teacher, len(rewards.pool))
    return Outcome(
        shares=shares,
        quality=float(rewards.quality[rows, teacher].mean()),
        learnability=float(rewards.learnability[rows, teacher].mean()),
        cost=None if rewards.cost is None else float(shares @ rewards.cost),
        effective_teachers=float(effective_teachers(shares)),
        tied=float(several_best(reward).mean()),
        moved=float((teacher != before).mean()),
    )


def _matrices(
    database: Database, view: str, split: str, pool: Sequence[str], measure: Measure, most: int
) -> tuple[int, Any, FloatArray, FloatArray]:
    """Return how many prompts there are; of at most `most` of them the ids (N,), raw quality and learnability (N, n).

    These are the first by their ids. Ids are hashes, so that is an even sample, and one comparison finds its cells.
    """
    where = "split = $1" if split else "$1 = ''"
    total, number, last = database.rows(
        f"""
        WITH ids AS MATERIALIZED (SELECT DISTINCT prompt_id FROM {view} WHERE {where})
        SELECT (SELECT count(*) FROM ids), count(*), max(prompt_id)
        FROM (SELECT prompt_id FROM ids ORDER BY prompt_id LIMIT {most})
        """,
        [split],
    )[0]
    columns = database.columns(
        f"""
        WITH pool AS (SELECT unnest($2) AS teacher, unnest(range(len($2))) AS col)
        SELECT prompt_id, dense_rank() OVER (ORDER BY prompt_id) - 1 AS row, col, {", ".join(RAW)}
        FROM {view} JOIN pool USING (teacher) WHERE {where} AND prompt_id <= $3
        """,
        [split, list(pool), last],
    )
    values = {name: np.ma.filled(columns[name].astype(np.float64), np.nan) for name in RAW}
    learned = _learnability(values, measure)
    cells = columns["row"].astype(np.int64), columns["col"].astype(np.int64)
    quality, learnable = (np.full((number, len(pool)), np.nan) for _ in range(2))
    quality[cells], learnable[cells] = values["quality_raw"], learned
    ids = np.empty(number, dtype=object)
    ids[cells[0]] = columns["prompt_id"]
    return total, ids, quality, learnable


def _learnability(values: Mapping[str, FloatArray], measure: Measure) -> FloatArray:
    """Return the learnability of cells by one measure, from the columns that it is made of: (num_cells,)."""
    plain = {name: [None if x != x else x for x in column.tolist()] for name, column in values.items()}
    return learnability(plain, measure)


def _costs(database: Database, assignment: Stored, pool: list[str]) -> tuple[FloatArray | None, str]:
    """Return a prompt's cost with each teacher, (n,), in the first unit that is known for all; None and "" without
    one.
    """
    cells, _ = cell_costs(database, assignment, pool)
    for name, unit in (("flops", "FLOPs"), ("completion_tokens", "tokens")):
        spent = [getattr(cell, name) for cell in cells.values()]
        if spent and None not in spent and sum(spent):
            return np.array(spent, dtype=np.float64), unit
    return None, ""
