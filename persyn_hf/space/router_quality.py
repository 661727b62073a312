"""The quality of a router's choices, on prompts whose rewards were measured as well."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from persyn_hf.core.pair_calibration import BINS, fit_temperature, preference_bins, preference_pairs
from persyn_hf.core.router_table import BASELINE, Table, router_table
from persyn_hf.errors import InputError
from persyn_hf.recipe.strategies import ROUTED_KINDS
from persyn_hf.space.collection import asks_several, teachers_of
from persyn_hf.space.database import Database, quoted
from persyn_hf.space.decisions import decisions, measured
from persyn_hf.store.manifest_parts import router_row
from persyn_hf.store.stored import Stored


SAMPLE = 3_000  # prompts of the table with intervals; of more, as many are drawn by their ids, which are hashes
RESAMPLES = 500
MANY = 30  # topics that are shown


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The metrics of a router's decisions. `confusion`: prompts by chosen and best teacher, (n, n)."""

    pool: list[str]
    always: str  # the one teacher that one would take for all prompts, see `best_single`
    prompts: int
    sampled: int
    table: Table
    reliability: list[dict[str, float]]
    error: float  # calibration error
    temperature: float | None  # None: scores are compared as log-odds, as they are
    confusion: Any
    topics: list[tuple[str, int, float, int]]  # topic, prompts, mean regret, prompts with a regret


def router_quality(database: Database, assignment: Stored, split: str = "") -> Quality:
    """Compare scores with measured rewards on the prompts that a router decided; it is kept.

    Args:
        split: the prompts of this split only; "": all.

    Raises:
        InputError: the assignment has no router, or none of its prompts was measured.
    """
    kind = assignment.manifest.settings.get("kind")
    if kind not in ROUTED_KINDS:
        raise InputError(
            f"{assignment.ref} was made by the strategy `{kind}`, without a router; "
            f"choose one of {', '.join(ROUTED_KINDS)}"
        )
    return _quality(database, assignment.ref, split)


def best_single(database: Database, assignment: Stored) -> str:
    """Return the teacher of the best mean reward on the calibration prompts; "" where none of these is measured."""
    pool = [teacher.name for teacher in teachers_of(assignment)]
    return _best(pool, _means(database, assignment, pool))


def leads(bin_of: int, temperature: float | None) -> tuple[float, float | None]:
    """Return which leads of the best score over the second a bin of predicted preferences stands for; None: no end.

    Bins below 1/2 hold the same pairs, seen from the worse teacher. Example: bin 9 of 15 is 0.6 to 0.667, and with a
    temperature of 1 leads from log(0.6 / 0.4) = 0.405 to log 2 = 0.693.
    """
    low, high = (max(bin_of, BINS - 1 - bin_of) + side for side in (0, 1))
    ends = [max(math.log(end / (BINS - end)), 0.0) * (temperature or 1.0) for end in (low, high) if end < BINS]
    return round(ends[0], 6), round(ends[1], 6) if len(ends) > 1 else None


@functools.lru_cache(maxsize=16)
def _quality(database: Database, ref: str, split: str) -> Quality:
    assignment = database.shelf.get(ref)
    pool = [teacher.name for teacher in teachers_of(assignment)]
    table, with_topics = (decisions(database, assignment, parts) for parts in (["rewards"], ["rewards", "prompts"]))
    judged = "source = 'router' AND regret IS NOT NULL" + (f" AND split = {quoted(split)}" if split else "")
    once = "DISTINCT prompt_id" if asks_several(assignment) else "prompt_id"
    # a heap of the first ones: sorting a million ids takes 80 MB
    select = f"SELECT count(*), min(prompt_id, {SAMPLE}) FROM (SELECT {once} FROM {table} WHERE {judged})"
    prompts, drawn = database.rows(select)[0]
    if not prompts:
        raise InputError(
            f"none of the prompts{f' of {split}' if split else ''} that the router decided in {assignment.ref} has "
            "measured rewards; the strategy `oracle` of a recipe measures the pool"
        )
    scores, rewards = _matrices(database, assignment, drawn, pool)
    means = _means(database, assignment, pool)
    pairs = preference_pairs(scores, rewards)
    log_odds = _is_log_odds(database, assignment)
    temperature = None if log_odds else fit_temperature(pairs)
    error, bins = preference_bins(pairs, temperature or 1.0)
    confusion = np.zeros((len(pool), len(pool)), dtype=np.int64)
    count = f"SELECT teacher, oracle, count(*) FROM {table} WHERE {judged} GROUP BY ALL"
    for teacher, oracle, number in database.rows(f"{count} HAVING oracle IS NOT NULL"):
        confusion[pool.index(teacher), pool.index(oracle)] += number
    topics = database.rows(
        f"SELECT coalesce(topic, 'none'), count(*), avg(regret), count(*) FILTER (regret > 0) FROM {with_topics} "
        f"WHERE {judged} GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT {MANY}"
    )
    rng = np.random.default_rng(0)
    return Quality(
        pool=pool,
        always=_best(pool, means),
        prompts=prompts,
        sampled=len(scores),
        table=router_table(scores, rewards, {BASELINE: means}, rng, resamples=RESAMPLES),
        reliability=bins,
        error=error,
        temperature=temperature,
        confusion=confusion,
        topics=[tuple(row) for row in topics],
    )


def _matrices(database: Database, assignment: Stored, ids: list[str], pool: list[str]) -> tuple[Any, Any]:
    """Return scores and measured rewards of prompts, both (num_prompts, num_teachers)."""
    place = {prompt_id: number for number, prompt_id in enumerate(ids)}
    scores, rewards = (np.full((len(ids), len(pool)), np.nan) for _ in range(2))
    view = database.view(assignment)
    whole = f"len(scores) = {len(pool)} AND list_aggregate(list_transform(scores, lambda x: isfinite(x)), 'bool_and')"
    for prompt_id, row in database.rows(
        f"SELECT prompt_id, scores FROM {view} WHERE prompt_id IN (SELECT unnest($1)) AND {whole}", [ids]
    ):
        scores[place[prompt_id]] = row
    cells = f"SELECT prompt_id, teacher, reward FROM ({measured(database, assignment)}) WHERE isfinite(reward)"
    for prompt_id, teacher, reward in database.rows(f"{cells} AND prompt_id IN (SELECT unnest($1))", [ids]):
        rewards[place[prompt_id], pool.index(teacher)] = reward
    known = ~np.isnan(scores).any(axis=1) & ~np.isnan(rewards).all(axis=1)
    if not known.any():
        raise InputError(
            f"the prompts that the router decided in {assignment.ref} have no finite scores or rewards; make the "
            "assignments anew"
        )
    return scores[known], rewards[known]


def _best(pool: list[str], means: Any) -> str:
    return pool[int(means.argmax())] if means.any() else ""


def _means(database: Database, assignment: Stored, pool: list[str]) -> Any:
    """Return the mean reward of each teacher on the calibration prompts, by which one would choose one: (n,)."""
    where = "split = 'calibration'"
    cells = f"SELECT teacher, avg(reward) FROM ({measured(database, assignment)}) WHERE {where} GROUP BY teacher"
    means = {teacher: mean for teacher, mean in database.rows(cells) if mean is not None}
    if not means:
        return np.zeros(len(pool))
    unmeasured = min(means.values()) - 1.0  # nobody would choose it; finite, as differences are taken
    return np.array([means.get(name, unmeasured) for name in pool], dtype=np.float64)


def _is_log_odds(database: Database, assignment: Stored) -> bool:
    """Tell whether differences of scores are log-odds: only then a router has a calibration error of its own."""
    router = database.shelf.input(assignment, "router")
    error = router_row(router.manifest.metrics, "router").get("calibration_error", {}) if router else {}
    return error.get("value") is not None
