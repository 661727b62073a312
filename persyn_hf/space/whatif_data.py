"""What other weights are computed from: the measured cells of an assignment's prompts, as matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.rewards import NOISE, How, Measure, learnability
from persyn_hf.core.unanswered import as_the_worst
from persyn_hf.errors import InputError
from persyn_hf.space.collection import asks_several, teachers_of
from persyn_hf.space.costs import cell_costs
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import measured, teacher_type
from persyn_hf.space.explorer import places_of
from persyn_hf.store.stored import Stored


SAMPLE = 10_000  # prompts that are computed live; of more, as many are drawn evenly
PAPERS = 0.4  # alpha of the paper
RAW: dict[Measure, tuple[str, ...]] = {  # the columns that a measure is made of
    "mean_logprob": ("mean_logprob",),
    "rank_surprisal": ("sum_logprob", "sum_min_rank"),
    "none": ("mean_logprob",),
}


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity, so that results are kept for each
class Measured:
    """The raw measurements of prompts, (N, n), NaN where one is missing, and a prompt's cost with each teacher."""

    pool: list[str]
    ids: list[str]  # (N,) of the prompts
    places: Mapping[str, int]  # of the prompts in their files, by id; empty: the prompts are not here
    chosen: IntArray  # (N,) the teacher that the assignment sends each prompt to
    quality: FloatArray
    learnability: FloatArray
    measure: Measure
    in_part: bool
    near_tie: float
    settings: Mapping[str, Any]  # of the rewards
    cost: FloatArray | None  # (n,), in `unit`; None: not known of all teachers
    unit: str
    prompts: int  # of the assignment that were measured in all,
    drawn: int  # and of them those that were looked at; `ids` leaves out those without any complete cell

    @property
    def alpha(self) -> float:
        """The weight of learnability in the recipe."""
        alpha = self.settings.get("alpha")
        return PAPERS if alpha is None else float(alpha)

    @property
    def how(self) -> How:
        """The normalisation in the recipe."""
        how: How = self.settings.get("normalisation") or "minmax"
        return how


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
    total, ids, chosen = _drawn(database, assignment, split, sample)
    quality, learned = _matrices(database, assignment, ids, pool, measure)
    both = ~np.isnan(quality) & ~np.isnan(learned)
    if not both.any():
        raise InputError(
            f"no cell of {', '.join(item.ref for item in rewards)} has both its quality and its learnability"
            f"{f' for a {split} prompt' if split else ''}; score with a student and a verifier or a reward model"
        )
    complete = both.any(axis=1)
    cost, unit = _costs(database, assignment, pool)
    return Measured(
        pool=pool,
        ids=[ids[row] for row in np.flatnonzero(complete).tolist()],
        places=places_of(database, assignment, ids),
        chosen=np.array([pool.index(name) for name in chosen], dtype=np.int64)[complete],
        quality=quality[complete],
        learnability=learned[complete],
        measure=measure,
        in_part=bool(settings.get("in_part")),
        near_tie=settings.get("near_tie", NOISE),  # manifests leave the default out
        settings=settings,
        cost=cost,
        unit=unit,
        prompts=total,
        drawn=len(ids),
    )


def _drawn(database: Database, assignment: Stored, split: str, most: int) -> tuple[int, list[str], list[str]]:
    """Return how many prompts of an assignment are measured, and of at most `most` the ids and chosen teachers (N,).

    These are the first by their ids. Ids are hashes, so that is an even sample, and one comparison finds its cells.
    """
    cells, split_is = measured(database, assignment, "prompt_id, split"), "$1 IN ('', split)"
    several, teacher = asks_several(assignment), f"teacher::{teacher_type(assignment)} AS teacher"
    # sorting all prompts would take twice the memory of the join: a heap of the first ones does
    total, first = database.rows(
        f"""
        SELECT count(*), arg_min((prompt_id, teacher), prompt_id, {most}) FROM (
            SELECT prompt_id, {"first(teacher) AS teacher" if several else "teacher"}
            FROM (SELECT prompt_id, {teacher} FROM {database.view(assignment)} WHERE {split_is})
            WHERE prompt_id IN (SELECT prompt_id FROM ({cells}) WHERE {split_is})
            {"GROUP BY prompt_id" if several else ""}
        )
        """,
        [split],
    )[0]
    return total, [prompt_id for prompt_id, _ in first or ()], [teacher for _, teacher in first or ()]


def _matrices(
    database: Database, assignment: Stored, ids: Sequence[str], pool: Sequence[str], measure: Measure
) -> tuple[FloatArray, FloatArray]:
    """Return raw quality and learnability of prompts, both (N, n); the ids (N,) are sorted."""
    raw = ("quality_raw", "num_tokens", *RAW[measure])
    cells = measured(database, assignment, ", ".join(("prompt_id", "teacher", *raw)))
    columns = database.columns(
        f"""
        WITH pool AS (SELECT unnest($1) AS teacher, unnest(range(len($1))) AS col),
        drawn AS (SELECT unnest($2) AS prompt_id, unnest(range(len($2))) AS row)
        SELECT row, col, {", ".join(raw)} FROM ({cells})
        JOIN drawn USING (prompt_id) JOIN pool USING (teacher) WHERE prompt_id <= $3
        """,
        [list(pool), list(ids), ids[-1] if ids else ""],
    )
    values = {name: np.ma.filled(columns[name].astype(np.float64), np.nan) for name in raw}
    learned, failed = _learnability(values, measure), np.isnan(values["num_tokens"])
    at = columns["row"].astype(np.int64), columns["col"].astype(np.int64)
    quality, learnable = (np.full((len(ids), len(pool)), np.nan) for _ in range(2))
    unanswered = np.zeros(quality.shape, dtype=bool)
    quality[at], learnable[at] = values["quality_raw"], learned
    unanswered[at] = failed & ~failed.all()  # as `core.rewards.recombine` has it
    return quality, as_the_worst(learnable, unanswered)


def _learnability(values: Mapping[str, FloatArray], measure: Measure) -> FloatArray:
    """Return the learnability of cells by one measure, from the columns that it is made of: (num_cells,)."""
    plain = {name: [None if x != x else x for x in values[name].tolist()] for name in RAW[measure]}
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
