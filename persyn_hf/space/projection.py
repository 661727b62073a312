"""A map of the prompts: the scores that they were decided by, projected onto the two axes that tell most apart.

A prompt is placed by what sets its teachers apart: their scores less the prompt's own mean. The two axes are the first
principal components of that, so prompts for which the same teachers stand out lie together.
"""

import functools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.errors import InputError, check
from persyn_hf.space.collection import teachers_of
from persyn_hf.space.database import Database, quoted
from persyn_hf.space.decisions import decisions
from persyn_hf.space.url_state import BOX_NEEDED, is_box
from persyn_hf.store.stored import Stored


Colour = Literal["teacher", "regret", "topic"]
SAMPLE = 10_000  # prompts that the axes are computed from; of more, as many are drawn by their ids, which are hashes
POINTS = 1_500  # prompts that are drawn
SIDES = 4  # regions each way


@dataclass(frozen=True, kw_only=True, eq=False)
class Axes:
    """The axes of a map. A prompt of scores s (n,) lies at `directions @ s - centre`.

    `directions` is (2, n), each row of length 1, or 0 where nothing is left to tell apart; `explained` (2,) is the
    share of the differences between prompts that each axis shows.
    """

    pool: list[str]
    source: str  # who decided: the scores of a router and measured rewards have no common scale
    directions: FloatArray
    centre: FloatArray
    explained: FloatArray


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of the map and its prompts. `regret` is the mean, `topic` the commonest; None: not read, or none."""

    box: tuple[float, float, float, float]
    prompts: int
    teacher: str
    of_teacher: int  # prompts that go to `teacher`
    regret: float | None
    topic: str | None


def components(scores: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the first two principal components of scores (N, n), less each prompt's mean: (2, n), (2,) and (2,).

    These are the directions, the means along them, and the share of the variance. The largest weight of a direction is
    positive, so the signs are the same on every machine.
    """
    apart = scores - scores.mean(axis=1, keepdims=True)
    middle = apart.mean(axis=0)
    _, sizes, rows = np.linalg.svd(apart - middle, full_matrices=False)
    directions, shares = np.zeros((2, scores.shape[1])), np.zeros(2)
    total = float((sizes**2).sum())
    total = total if total > 1e-18 * float((apart**2).sum()) else 0.0  # less is rounding
    for number in range(min(2, len(sizes))):
        if total > 0 and sizes[number] ** 2 > 1e-12 * total:
            row = rows[number] - rows[number].mean()  # 0 but for rounding: the mean of a prompt's scores plays no part
            largest = int(np.flatnonzero(np.abs(row) > np.abs(row).max() * (1 - 1e-9))[0])
            directions[number] = row / np.linalg.norm(row) * np.sign(row[largest])
            shares[number] = sizes[number] ** 2 / total
    return directions, directions @ middle, shares


@functools.lru_cache(maxsize=32)
def _axes(database: Database, ref: str, split: str) -> Axes:
    assignment = database.shelf.get(ref)
    pool = [teacher.name for teacher in teachers_of(assignment)]
    rows, source = f"FROM {database.view(assignment)} WHERE $1 IN ('', split)", ""
    counts = database.rows(
        f"SELECT source, count(*) {rows} GROUP BY source ORDER BY source = 'router' DESC, 2 DESC", [split]
    )
    for source, _ in counts:
        if database.rows(f"SELECT 1 {rows} AND source = $2 AND len(scores) > 0 LIMIT 1", [split, source]):
            break
    else:
        raise InputError(
            f"the prompts{f' of {split}' if split else ''} of {ref} were decided without scores, which place a prompt "
            "on the map"
        )
    of_source = f"FROM {database.view(assignment)} WHERE source = $1"
    last = database.rows(
        f"SELECT max(prompt_id) FROM (SELECT prompt_id {of_source} ORDER BY prompt_id LIMIT {SAMPLE})", [source]
    )[0][0]
    drawn = database.rows(f"SELECT prompt_id, scores {of_source} AND prompt_id <= $2 ORDER BY 1", [source, last])
    scores = np.array([row for _, row in drawn if len(row) == len(pool) and None not in row], dtype=np.float64)
    scores = scores[np.isfinite(scores).all(axis=1)] if len(scores) else scores
    if not len(scores) or len(pool) < 2:
        raise InputError(f"no prompt of {ref} has a score of each of several teachers, which a map is made from")
    directions, centre, explained = components(scores)
    return Axes(pool=pool, source=source, directions=directions, centre=centre, explained=explained)


def axes(database: Database, assignment: Stored, split: str) -> Axes:
    """Return the axes of an assignment's map; for all splits that a source decided they are the same.

    Raises:
        InputError: no prompt of the split has scores, or there is one teacher.
    """
    return _axes(database, assignment.ref, split)


def places(database: Database, assignment: Stored, found: Axes) -> str:
    """Return the name of a table of all decisions that have every score.

    It has the columns number (as in `decisions`), prompt_id, teacher, split, x and y.
    """
    sums = []
    for direction, centre in zip(found.directions.tolist(), found.centre.tolist(), strict=True):
        terms = (f"scores[{place + 1}] * {_double(weight)}" for place, weight in enumerate(direction))
        sums.append(f"{' + '.join(terms)} - {_double(centre)}")
    rows = f"SELECT row_number() OVER () AS number, * FROM {database.view(assignment)}"
    select = (
        f"SELECT number, prompt_id, teacher, split, {sums[0]} AS x, {sums[1]} AS y FROM ({rows}) "
        f"WHERE source = {quoted(found.source)} AND isfinite(x) AND isfinite(y)"
    )
    return database.table(f"map of {assignment.ref} by {found.source}", select, assignment.ref)


def within(database: Database, assignment: Stored, split: str, box: Sequence[str | float]) -> str:
    """Return SQL of the ids of the prompts that lie in a box of the map, its edges with it.

    Args:
        split: whose map it is; "": of all splits.
        box: left, bottom, right and top, as numbers or as texts of an address.

    Raises:
        InputError: the box is no box, or there is no map.
    """
    check(is_box(box), "box", ",".join(map(str, box)), BOX_NEEDED)
    table = places(database, assignment, axes(database, assignment, split))
    return f"SELECT prompt_id FROM {table} WHERE {_inside(list(map(float, box)))}"


def _inside(box: Sequence[float]) -> str:
    left, bottom, right, top = map(_double, box)
    return f"x BETWEEN {left} AND {right} AND y BETWEEN {bottom} AND {top}"


def points(
    database: Database, assignment: Stored, split: str, parts: Collection[str] = (), most: int = POINTS
) -> list[dict[str, Any]]:
    """Return some prompts of a split: number, prompt_id, x, y, teacher, topic and regret; the first by their ids.

    Args:
        parts: what to read beside: `prompts` for topics, `rewards` for regrets; else these are None.
    """
    table = places(database, assignment, axes(database, assignment, split))
    select = f"SELECT number, prompt_id, x, y, teacher FROM {table} WHERE $1 IN ('', split)"
    drawn = database.rows(f"{select} ORDER BY prompt_id LIMIT {most}", [split])
    numbers = [row[0] for row in drawn]
    about = dict.fromkeys(numbers, (None, None))
    if parts and numbers:
        read = f"SELECT number, {_read(parts)} FROM {decisions(database, assignment, parts, numbers)}"
        about |= {number: (topic, regret) for number, topic, regret in database.rows(read)}
    names = ("number", "prompt_id", "x", "y", "teacher", "topic", "regret")
    return [dict(zip(names, (*row, *about[row[0]]), strict=True)) for row in drawn]


def regions(database: Database, assignment: Stored, split: str, parts: Collection[str] = ()) -> list[Region]:
    """Return the cells of an even grid over the map, column by column from the bottom left, but for empty ones.

    A prompt on an edge is in both cells.

    Args:
        parts: as for `points`.
    """
    placed = _placed(database, assignment, split, parts)
    boxes = _grid(database, placed, split)
    counts: list[dict[str, Counter[str]]] = [{"teacher": Counter(), "topic": Counter()} for _ in boxes]
    lost, known = [0.0] * len(boxes), [0] * len(boxes)
    edges = ", ".join(f"({number}, {', '.join(map(_double, box))})" for number, box in enumerate(boxes))
    for number, teacher, topic, prompts, total, measured in database.rows(
        f"SELECT box, teacher, topic, count(*), sum(regret), count(regret) FROM {placed} JOIN "
        f"(VALUES {edges}) AS grid(box, l, b, r, t) ON x BETWEEN l AND r AND y BETWEEN b AND t "
        "WHERE $1 IN ('', split) GROUP BY ALL ORDER BY ALL",
        [split],
    ):
        counts[number]["teacher"][teacher] += prompts
        counts[number]["topic"][topic or ""] += prompts
        lost[number], known[number] = lost[number] + (total or 0.0), known[number] + measured
    return [
        Region(
            box=box,
            prompts=here["teacher"].total(),
            teacher=here["teacher"].most_common(1)[0][0],
            of_teacher=here["teacher"].most_common(1)[0][1],
            regret=lost[number] / known[number] if known[number] else None,
            topic=here["topic"].most_common(1)[0][0] or None,
        )
        for number, (box, here) in enumerate(zip(boxes, counts, strict=True))
        if here["teacher"]
    ]


def _read(parts: Collection[str]) -> str:
    """Return SQL of the columns topic and regret, null where the part that holds it is not read."""
    topic = "topic" if "prompts" in parts else "NULL::VARCHAR AS topic"
    return f"{topic}, {'regret' if 'rewards' in parts else 'NULL::DOUBLE AS regret'}"


def _placed(database: Database, assignment: Stored, split: str, parts: Collection[str]) -> str:
    """Return SQL, in brackets, of what lies on the map: teacher, split, x, y, topic and regret."""
    table = places(database, assignment, axes(database, assignment, split))
    if not parts:
        return f"(SELECT teacher, split, x, y, {_read(parts)} FROM {table})"
    beside = f"SELECT number, {_read(parts)} FROM {decisions(database, assignment, parts)}"
    return f"(SELECT teacher, split, x, y, topic, regret FROM {table} JOIN ({beside}) USING (number))"


def _grid(database: Database, placed: str, split: str) -> list[tuple[float, float, float, float]]:
    """Return the boxes of the grid; their edges are round numbers, the outer ones beyond every prompt."""
    select = f"SELECT min(x), max(x), min(y), max(y) FROM {placed} WHERE $1 IN ('', split)"
    left, right, bottom, top = database.rows(select, [split])[0]
    if left is None:
        return []
    across, up = _edges(left, right), _edges(bottom, top)
    return [
        (x, y, x_end, y_end)
        for x, x_end in zip(across, across[1:], strict=False)
        for y, y_end in zip(up, up[1:], strict=False)
    ]


def _edges(low: float, high: float) -> list[float]:
    """Return round edges from below the least to above the largest value, evenly spaced; two where all are equal."""
    digits = 3 - math.floor(math.log10(high - low)) if high > low else 3
    first, last = math.floor(low * 10**digits) / 10**digits, math.ceil(high * 10**digits) / 10**digits
    if first == last:
        return [first, last]
    return [first, *(round(first + (last - first) * n / SIDES, digits) for n in range(1, SIDES)), last]


def _double(number: float) -> str:
    return f"{float(number)!r}::DOUBLE"
