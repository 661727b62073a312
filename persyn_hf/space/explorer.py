"""Search, filter and page the decisions of an assignment."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

from persyn_hf.errors import check
from persyn_hf.space.collection import asks_several
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import CHOSEN, PARTS, decisions
from persyn_hf.store.stored import Stored


Sort = Literal[  # with a minus: the other way round
    "place", "margin", "regret", "confidence", "tokens", "-place", "-margin", "-regret", "-confidence", "-tokens"
]  # fmt: skip
Agreement = Literal["", "same", "other"]
Tied = Literal["", "tied", "sole"]
Correct = Literal["", "right", "wrong", "unjudged"]
SORTS = {"place": "number", "margin": "margin", "regret": "-regret", "confidence": "confidence"}
SORTS |= {"tokens": "-num_tokens"}
SORTS |= {f"-{name}": f"-({key})" for name, key in SORTS.items()}
PREVIEW = 200  # characters of a prompt in the list
TEXT = "messages[len(messages)].content"  # the last user turn


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The conditions that a decision must meet to be listed; the defaults let every decision through.

    `text` is looked for in the last user turn, or is a whole prompt_id.
    """

    teacher: str = ""
    best: str = ""  # the best measured teacher, as `decisions` names it in `oracle`
    split: str = ""
    topic: str = ""  # "none": without one
    origin: str = ""
    source: str = ""
    text: str = ""
    margin: float | None = None  # the lead of the best score is at most this,
    lead: float | None = None  # and at least this
    agreement: Agreement = ""  # same: the chosen teacher is as good as the best measured one
    tied: Tied = ""  # tied: several teachers are a best one
    correct: Correct = ""  # of the chosen teacher's answer
    shortest: int | None = None  # tokens of the chosen teacher's answer
    longest: int | None = None
    differs: str = ""  # reference of an assignment that sends the prompt to another teacher,
    there: str = ""  # namely to this one
    among: tuple[str, ...] | None = None  # ids of prompts, as a query over numbers found them
    within: str = ""  # SQL of ids of prompts, made by `projection.within`
    sort: Sort = "place"

    def __post_init__(self) -> None:
        check(self.sort in SORTS, "sort", self.sort, f"one of {', '.join(SORTS)}")
        check(self.agreement in get_args(Agreement), "agreement", self.agreement, "same, other or empty")
        check(self.tied in get_args(Tied), "tied", self.tied, "tied, sole or empty")
        check(self.correct in get_args(Correct), "correct", self.correct, "right, wrong, unjudged or empty")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a prompt stands among those that passed: `row` counts from 0; `before` and `after` are prompts' ids."""

    row: int
    number: int  # of its first decision
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of the rows that passed, as dicts of the columns of `decisions` and `text`; `total`: of all pages.

    `prompts` are fewer than `total` where several teachers answer a prompt: each has a row.

    `place` is that of the prompt that was asked for; None: there is none, or it did not pass.
    """

    rows: list[dict[str, Any]]
    total: int
    prompts: int
    number: int  # from 1
    size: int
    place: Place | None = None

    @property
    def last(self) -> int:
        """The number of the last page, 1 where no row passed."""
        return max(-(-self.total // self.size), 1)


FIELDS = [*CHOSEN, *chain(*PARTS.values())]
ORDER = "spot, number"  # comparing these one by one takes a tenth of the time that comparing them as a pair takes


def find(
    database: Database, assignment: Stored, wanted: Filter, number: int = 1, size: int = 25, prompt: str = ""
) -> Page:
    """Return one page of the decisions that pass the filter; a page beyond the last one is the last one.

    Args:
        prompt: the id of a prompt: where it passes, the page that holds its first row is returned, and its place.
    """
    several = asks_several(assignment)
    once_each = "count(DISTINCT prompt_id)" if several else "count(*)"
    mine = ["prompt_id = ? AS mine"] if prompt else ["false AS mine"]
    passed, values = _passed(database, assignment, wanted, *mine, *(["prompt_id"] if several else []))
    once = f"QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY {ORDER}) = 1" if several else ""
    earlier, later = (
        f"(p.spot {sign} own.spot OR (p.spot = own.spot AND p.number {sign} own.number))" for sign in "<>"
    )
    matches = database.rows(
        f"""
        WITH passed AS MATERIALIZED ({passed}),
        counted AS (SELECT count(*) AS total, {once_each} AS prompts FROM passed),
        own AS (SELECT spot, number FROM passed WHERE mine ORDER BY {ORDER} LIMIT 1),
        firsts AS (SELECT spot, number FROM passed {once}),
        place AS (
            SELECT (SELECT count(*) FROM passed p, own WHERE {earlier}) AS row, number,
                   (SELECT p.number FROM firsts p, own WHERE {earlier} ORDER BY p.spot DESC, p.number DESC LIMIT 1),
                   (SELECT p.number FROM firsts p, own WHERE {later} ORDER BY p.spot, p.number LIMIT 1)
            FROM own
        ),
        page AS (  -- sorted alone: with the columns beside it, sorting a million rows would take 80 MB more
            SELECT number, spot FROM passed ORDER BY {ORDER} LIMIT {size}
            OFFSET {size} * (
                SELECT coalesce((SELECT row // {size} FROM place),
                                least({max(number, 1) - 1}, greatest(total - 1, 0) // {size})) FROM counted)
        )
        SELECT page.number, total, prompts, place.* FROM page, counted LEFT JOIN place ON true
        ORDER BY spot, page.number
        """,
        [*([prompt] if prompt else []), *values],
    )
    _, total, prompts, row, *around = matches[0] if matches else (None, 0, 0, None)
    place = None if row is None else _place(database, assignment, row, *around)
    number = min(max(number, 1), max(-(-total // size), 1)) if place is None else place.row // size + 1
    rows = _rows(database, assignment, [match[0] for match in matches])
    return Page(rows=rows, total=total, prompts=prompts, number=number, size=size, place=place)


def _place(database: Database, assignment: Stored, row: int, own: int, *around: int | None) -> Place:
    """Return a place whose neighbours, (before, after), are known by the numbers of their decisions."""
    numbers = [number for number in around if number is not None]
    table = decisions(database, assignment, [], numbers)
    ids = dict(database.rows(f"SELECT number, prompt_id FROM {table}")) if numbers else {}
    before, after = (None if number is None else ids[number] for number in around)
    return Place(row=row, number=own, before=before, after=after)


def every(database: Database, assignment: Stored, wanted: Filter, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield all decisions that pass the filter in their order, `size` at a time, at least one list."""
    passed, values = _passed(database, assignment, wanted)
    numbers = database.columns(f"SELECT number FROM ({passed}) ORDER BY {ORDER}", values)["number"]
    for start in range(0, max(len(numbers), 1), size):
        yield _rows(database, assignment, numbers[start : start + size].tolist())


def _passed(database: Database, assignment: Stored, wanted: Filter, *more: str) -> tuple[str, list[Any]]:
    """Return SQL for the number of what passes, its spot in the order and more columns, and its parameters' values."""
    condition, values = _condition(database, assignment, wanted)
    used = set(re.findall(r"\w+", f"{condition} {SORTS[wanted.sort]}"))
    parts = [part for part, columns in PARTS.items() if used & set(columns)]
    table = decisions(database, assignment, parts)
    spot = f"coalesce(({SORTS[wanted.sort]})::DOUBLE, 'infinity') AS spot"  # what is not known comes last
    return f"SELECT {', '.join(['number', spot, *more])} FROM {table} WHERE {condition}", values


def _rows(database: Database, assignment: Stored, numbers: list[int]) -> list[dict[str, Any]]:
    """Return decisions by their numbers, in the order of these, with the beginning of each prompt."""
    if not numbers:
        return []
    some = decisions(database, assignment, numbers=numbers)
    rows = {row[0]: row for row in database.rows(f"SELECT {', '.join(FIELDS)} FROM {some}")}
    ids = [row[1] for row in rows.values()]
    texts = previews(database, assignment, ids, list(places_of(database, assignment, ids).values()))
    return [dict(zip(FIELDS, rows[n], strict=True)) | {"text": texts.get(rows[n][1], "")} for n in numbers]


def places_of(database: Database, assignment: Stored, ids: list[str]) -> dict[str, int]:
    """Return the place of some prompts in their file, by id; only the ids are read."""
    prompts = database.shelf.input(assignment, "prompts")
    if prompts is None or not ids:
        return {}
    view, among = database.view(prompts), "prompt_id IN (SELECT unnest($1))"
    return dict(database.rows(f"SELECT prompt_id, file_row_number FROM {view} WHERE {among}", [ids]))


def previews(database: Database, assignment: Stored, ids: list[str], places: Collection[int] = ()) -> dict[str, str]:
    """Return the beginning of the last user turn of some prompts, by id; empty where the prompts are not here.

    Args:
        places: the places of all of them in their files; empty: all prompts are read.
    """
    prompts = database.shelf.input(assignment, "prompts")
    if prompts is None or not ids:
        return {}
    view, among = database.view(prompts), "prompt_id IN (SELECT unnest($1))"
    if places:  # files may be several: other prompts lie at the same places
        among += f" AND file_row_number IN ({', '.join(map(str, places))})"
    return dict(
        database.rows(f"SELECT prompt_id, coalesce(left({TEXT}, {PREVIEW}), '') FROM {view} WHERE {among}", [ids])
    )


def choices(database: Database, stored: Stored | None, column: str) -> list[str]:
    """Return up to 200 values of a column of an artifact, sorted; none where it is not here."""
    return [] if stored is None else database.different(stored, column)[:200]


def _condition(database: Database, assignment: Stored, wanted: Filter) -> tuple[str, list[Any]]:
    """Return the filter as SQL over `decisions`, and the values of its parameters."""
    parts: list[str] = []
    values: list[Any] = []

    def add(part: str, *bound: Any) -> None:
        parts.append(part)
        values.extend(bound)

    for column, value in (("teacher", wanted.teacher), ("oracle", wanted.best), ("split", wanted.split)):
        if value:
            add(f"{column} = ?", value)
    for column in ("topic", "origin", "source"):
        if getattr(wanted, column):
            add(f"coalesce({column}, 'none') = ?", getattr(wanted, column))
    for column, sign, bound in (
        ("margin", "<=", wanted.margin),
        ("margin", ">=", wanted.lead),
        ("num_tokens", ">=", wanted.shortest),
        ("num_tokens", "<=", wanted.longest),
    ):
        if bound is not None:
            add(f"{column} {sign} ?", bound)
    if wanted.agreement:
        add("regret = 0" if wanted.agreement == "same" else "regret > 0")
    if wanted.tied:
        add("ties > 1" if wanted.tied == "tied" else "ties = 1")
    if wanted.correct:
        add({"right": "is_correct", "wrong": "NOT is_correct", "unjudged": "is_correct IS NULL"}[wanted.correct])
    if wanted.differs:
        other = f"SELECT prompt_id, teacher FROM {database.view(database.shelf.get(wanted.differs))}"
        add(f"(prompt_id, teacher) NOT IN ({other})")
        add(f"prompt_id IN (SELECT prompt_id FROM ({other}) WHERE ? IN ('', teacher))", wanted.there)
    if wanted.among is not None:
        add("prompt_id IN (SELECT unnest(?))", list(wanted.among))
    if wanted.within:
        add(f"prompt_id IN ({wanted.within})")
    text, prompts = wanted.text.strip(), database.shelf.input(assignment, "prompts")
    if text and prompts:
        same = f"SELECT prompt_id FROM {database.view(prompts)} WHERE contains(lower({TEXT}), lower(?))"
        add(f"(prompt_id = ? OR prompt_id IN ({same}))", text, text)
    elif text:
        add("prompt_id = ?", text)
    return " AND ".join(parts) or "true", values
