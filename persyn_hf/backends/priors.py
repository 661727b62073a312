"""Read a prior: rewards or quality that exist already, as a matrix over prompts and teachers of this recipe.

It is a rewards artifact or a user's file. A row of a file holds `prompt_id` or the text of the `prompt`, a `teacher`,
and a `reward` or else a `quality`; null or an empty cell is a value that nobody knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.source_rows import rows_of_file
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.conversations import user_text
from persyn_hf.core.rewards import LARGEST
from persyn_hf.errors import InputError


if TYPE_CHECKING:
    from datasets import Dataset


SETTING = "calibration.prior"
OF_PROMPT, OF_VALUE = ("prompt_id", "prompt"), ("reward", "quality")  # the first one that a file has


def read_prior(
    prior: "Dataset | str", prompt_ids: Sequence[str], conversations: Sequence[Any], pool: Sequence[str]
) -> FloatArray:
    """Return the values (num_prompts, num_teachers) of a rewards artifact or a file, NaN where it has none.

    Rows of other prompts and teachers are left out.

    Args:
        prior: a dataset of rewards, or the path of a file.
        prompt_ids, conversations: the prompts of this recipe, rows of the matrix.
        pool: the teachers, its columns.

    Raises:
        InputError: a column is missing, a value is no finite number, a cell has two, or no prompt or no teacher is
            one of this recipe.
    """
    if isinstance(prior, str):
        what, rows, (name, value) = prior, *_of_file(prior)
    else:
        what, name, value = "the artifact", "prompt_id", "reward"
        rows = prior.select_columns(["prompt_id", "teacher", "reward"])
    keys = prompt_ids if name == "prompt_id" else [_words(user_text(messages)) for messages in conversations]
    row_of = {key: row for row, key in enumerate(keys)}
    column_of = {teacher: column for column, teacher in enumerate(pool)}
    matrix = np.full((len(prompt_ids), len(pool)), np.nan)
    prompts_met, teachers_met, taken = 0, 0, set()
    for row in rows:
        key, teacher = _words(str(row.get(name))) if name == "prompt" else str(row.get(name)), str(row.get("teacher"))
        place = row_of.get(key), column_of.get(teacher)
        prompts_met, teachers_met = prompts_met + (place[0] is not None), teachers_met + (place[1] is not None)
        number = _number(row.get(value), f"`{SETTING}`: {what} holds", f"`{value}` of prompt {key:.40} by `{teacher}`")
        if None in place or number is None:
            continue
        if place in taken:
            raise InputError(
                f"`{SETTING}`: {what} has two rows of prompt {key:.40} by `{teacher}`, one is needed; leave one out"
            )
        taken.add(place)
        matrix[place] = number
    _check_met(what, name, prompts_met, teachers_met, bool(taken), pool)
    return matrix


def _of_file(path: str) -> tuple[Iterable[Mapping[str, Any]], tuple[str, str]]:
    """Return the rows of a file, and the columns that name its prompts and hold its values."""
    found: list[str] = []

    def choose(columns: Sequence[str]) -> list[str]:
        found[:] = [next((name for name in names if name in columns), "") for names in (OF_PROMPT, OF_VALUE)]
        if "" in found or "teacher" not in columns:
            raise InputError(
                f"`{SETTING}`: {path} has the columns {', '.join(columns)}; needed are `prompt_id` or `prompt`, "
                "`teacher`, and `reward` or `quality`; rename them"
            )
        return [*found, "teacher"]

    rows = list(rows_of_file(Path(path), "calibration", choose, key=SETTING))
    if not rows:
        raise InputError(f"`{SETTING}`: {path} holds no value, some are needed; name another file")
    return rows, (found[0], found[1])


def _number(cell: Any, holds: str, where: str) -> float | None:
    """Read a value; None where there is none."""
    if cell is None or cell == "":
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) <= LARGEST:
        raise InputError(
            f"{holds} {str(cell)!r:.40} as {where}, a finite number up to {LARGEST:g} is needed, or nothing where "
            "none is known; mend the value"
        )
    return number


def _check_met(what: str, name: str, prompts: int, teachers: int, values: bool, pool: Sequence[str]) -> None:
    """Refuse a prior that says nothing of this recipe."""
    if not teachers:
        raise InputError(
            f"`{SETTING}`: {what} holds none of the teachers {', '.join(pool)}; name them as the recipe does, or "
            "leave `prior` out"
        )
    if not prompts:
        raise InputError(
            f"`{SETTING}`: {what} holds none of the calibration prompts (compared by `{name}`); name one over the "
            "same prompts, or leave `prior` out"
        )
    if not values:
        raise InputError(
            f"`{SETTING}`: {what} has no value of a teacher of this recipe on one of its calibration prompts; name "
            "another, or leave `prior` out"
        )


def _words(text: str) -> str:
    return " ".join(text.split())
