"""Search, filter and page the decisions of an assignment."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

from persyn_hf.errors import check
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import CHOSEN, PARTS, decisions
from persyn_hf.store.stored import Stored


Sort = Literal["place", "margin", "regret", "confidence", "tokens"]
Agreement = Literal["", "same", "other"]
Tied = Literal["", "tied", "sole"]
Correct = Literal["", "right", "wrong", "unjudged"]
SORTS = {"place": "number", "margin": "margin", "regret": "-regret", "confidence": "confidence"}
SORTS |= {"tokens": "-num_tokens"}
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
class Page:
    """One page of the rows that passed, as dicts of the columns of `decisions` and `text`; `total`: of all pages."""

    rows: list[dict[str, Any]]
    total: int
    number: int  # from 1
    size: int

    @property
    def last(self) -> int:
        """The number of the last page, 1 where no row passed."""
        return max(-(-self.total // self.size), 1)


FIELDS = [*CHOSEN, *chain(*PARTS.values())]


def find(database: Database, assignment: Stored, wanted: Filter, number: int = 1, size: int = 25) -> Page:
    """Return one page of the decisions that pass the filter; a page beyond the last one is the last one."""
    condition, values = _condition(database, assignment, wanted)
    used = set(re.findall(r"\w+", f"{condition} {SORTS[wanted.sort]}"))
    parts = [part for part, columns in PARTS.items() if used & set(columns)]
    matches = database.rows(
        f"""
        WITH passed AS MATERIALIZED (
            SELECT number, {SORTS[wanted.sort]} AS key FROM {decisions(database, assignment, parts)} WHERE {condition}
        ),
        counted AS (SELECT count(*) AS total FROM passed)
        SELECT number, total FROM passed, counted ORDER BY key NULLS LAST, number LIMIT {size}
        OFFSET (SELECT least({max(number, 1) - 1}, greatest(total - 1, 0) // {size}) * {size} FROM counted)
        """,
        values,
    )
    total = matches[0][1] if matches else 0
    number = min(max(number, 1), max(-(-total // size), 1))
    return Page(rows=_rows(database, assignment, [row[0] for row in matches]), total=total, number=number, size=size)


def every(database: Database, assignment: Stored, wanted: Filter, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield all decisions that pass the filter in their order, `size` at a time, at least one list."""
    first = find(database, assignment, wanted, 1, size)
    yield first.rows
    for number in range(2, first.last + 1):
        yield find(database, assignment, wanted, number, size).rows


def _rows(database: Database, assignment: Stored, numbers: list[int]) -> list[dict[str, Any]]:
    """Return decisions by their numbers, in the order of these, with the beginning of each prompt."""
    if not numbers:
        return []
    some = decisions(database, assignment, numbers=numbers)
    rows = {row[0]: row for row in database.rows(f"SELECT {', '.join(FIELDS)} FROM {some}")}
    texts = _texts(database, assignment, [row[1] for row in rows.values()])
    return [dict(zip(FIELDS, rows[n], strict=True)) | {"text": texts.get(rows[n][1], "")} for n in numbers]


def _texts(database: Database, assignment: Stored, ids: list[str]) -> dict[str, str]:
    """Return the beginning of the last user turn of some prompts, by id; empty where the prompts are not here."""
    prompts = database.shelf.input(assignment, "prompts")
    if prompts is None or not ids:
        return {}
    view, among = database.view(prompts), "prompt_id IN (SELECT unnest($1))"
    return dict(database.rows(f"SELECT prompt_id, left({TEXT}, {PREVIEW}) FROM {view} WHERE {among}", [ids]))


def topics(database: Database, assignment: Stored) -> list[str]:
    """Return up to 200 topics of an assignment's prompts, sorted."""
    table = decisions(database, assignment, ["prompts"])
    select = f"SELECT DISTINCT topic FROM {table} WHERE topic IS NOT NULL ORDER BY 1 LIMIT 200"
    return [row[0] for row in database.rows(select)]


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
