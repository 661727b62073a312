"""Which teacher is asked about which prompts: as assigned, and again where no answer is right."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.dataset_rows import AT_A_TIME, NameIndex, Rows, in_parts
from persyn_hf.core.arrays import IntArray
from persyn_hf.core.assignment import best_first
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stage import Context
from persyn_hf.stages.generate.asking import Asking
from persyn_hf.stages.generate.settings import Settings


if TYPE_CHECKING:
    from datasets import Dataset


def assigned_cells(index: NameIndex, assignments: "Dataset", teachers: Sequence[Teacher]) -> dict[str, IntArray]:
    """Return the rows of the prompts assigned to each teacher, ascending; a name that is not known is refused.

    index: of the names of the prompts.
    """
    pool = [teacher.name for teacher in teachers]
    rows: dict[str, list[IntArray]] = {name: [np.zeros(0, np.int64)] for name in pool}
    for table in assignments.select_columns(["prompt_id", "teacher"]).with_format("arrow").iter(AT_A_TIME):
        prompts, names = table["prompt_id"].to_numpy(), table["teacher"].to_numpy()
        found = index.rows(prompts)
        for name in set(names) - set(pool):
            raise InputError(f"the assignments name the teacher `{name}`, the pool holds {', '.join(pool)}; add it")
        for prompt in prompts[found < 0]:
            raise InputError(f"the assignments name the prompt {prompt}, which is not among the prompts; assign anew")
        for name in pool:
            rows[name].append(found[names == name])
    return {name: np.unique(np.concatenate(parts)) for name, parts in rows.items()}


def escalate(settings: Settings, context: Context, asking: Asking, index: NameIndex, assignments: "Dataset") -> None:
    """Ask the next teacher by router score where no answer to a routed prompt is right, in `escalate` rounds at most.

    Example: `escalate: 2`, a prompt assigned to B, router scores A 0.2, B 0.9, C 0.5. Where B's answers are wrong,
    round 1 asks C; where C's are, too, round 2 asks A. Where B's answers could not be judged, nobody else is asked.
    """
    pool = [teacher.name for teacher in context.teachers]
    routed = _routed(settings, pool, index, assignments)  # row of a prompt -> row of the assignments
    for round in range(1, settings.escalate + 1):
        failed = asking.failed(np.flatnonzero(routed >= 0))
        again: dict[str, list[IntArray]] = {}
        ranks = Rows(assignments, ["scores", "teacher"])
        for rows in in_parts(failed):
            ranked = np.stack([_ranked(row, pool) for row in ranks.at(routed[rows])])
            tried = np.stack([asking.was_asked(name, rows) for name in pool], axis=1)
            left = ~np.take_along_axis(tried, ranked, axis=1)
            following = ranked[np.arange(len(rows)), left.argmax(axis=1)]
            for teacher in np.unique(following[left.any(axis=1)]):
                again.setdefault(pool[teacher], []).append(rows[left.any(axis=1) & (following == teacher)])
        asking.ask_all({name: np.concatenate(parts) for name, parts in again.items()}, round)


def _routed(settings: Settings, pool: Sequence[str], index: NameIndex, assignments: "Dataset") -> IntArray:
    """Return, by the row of a prompt, the last row of the assignments in which a router has sent it; -1: none has."""
    routed = np.full(len(index), -1)
    assigned = Rows(assignments, ["prompt_id", "source", "scores", "confidence"])
    for numbers in in_parts(np.arange(len(assigned))):
        chosen = []
        for number, row in zip(numbers.tolist(), assigned.at(numbers), strict=True):
            if row["source"] != "router":
                continue
            if len(row["scores"]) != len(pool):
                raise RecipeError(
                    f"`escalate` goes by router scores, and the assignment of prompt {row['prompt_id']} has "
                    f"{len(row['scores'])} for {len(pool)} teachers; use the assignments of a router"
                )
            sure, needed = row["confidence"], settings.escalate_below
            if needed is None or sure is None or sure < needed:
                chosen.append((row["prompt_id"], number))
        if chosen:
            names, places = zip(*chosen, strict=True)
            routed[index.rows(names)] = places
    return routed


def _ranked(row: Mapping[str, Any], pool: Sequence[str]) -> IntArray:
    """Return the teachers, best first by the scores of an assignment."""
    return best_first([row["scores"]], [pool.index(row["teacher"])])[0]
