"""Search, filter and page the decisions of an assignment, and open one prompt."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from persyn_hf.errors import check
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import decisions
from persyn_hf.store.stored import Stored


Sort = Literal["place", "margin", "regret", "confidence", "tokens"]
Agreement = Literal["", "same", "other"]
Correct = Literal["", "right", "wrong", "unjudged"]
SORTS = {"place": "number", "margin": "margin", "regret": "regret DESC", "confidence": "confidence"}
SORTS |= {"tokens": "num_tokens DESC"}
PREVIEW = 200  # characters of a prompt in the list
TEXT = "messages[len(messages)].content"  # the last user turn


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What is looked for; the defaults let everything through. `text`: in the last user turn, or a whole prompt_id."""

    teacher: str = ""
    split: str = ""
    topic: str = ""
    text: str = ""
    margin: float | None = None  # at most
    agreement: Agreement = ""  # same: the chosen teacher is as good as the best measured one
    correct: Correct = ""  # of the chosen teacher's answer
    shortest: int | None = None  # tokens of the chosen teacher's answer
    longest: int | None = None
    sort: Sort = "place"

    def __post_init__(self) -> None:
        check(self.sort in SORTS, "sort", self.sort, f"one of {', '.join(SORTS)}")
        check(self.agreement in get_args(Agreement), "agreement", self.agreement, "same, other or empty")
        check(self.correct in get_args(Correct), "correct", self.correct, "right, wrong, unjudged or empty")


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of the rows that passed, as dicts of the columns of `decisions`, with `text`."""

    rows: list[dict[str, Any]]
    total: int
    number: int  # from 1
    size: int

    @property
    def last(self) -> int:
        return max(-(-self.total // self.size), 1)


FIELDS = (
    *("number", "prompt_id", "teacher", "margin", "confidence", "source", "split", "topic"),
    *("reward", "best", "oracle", "regret", "is_correct", "num_tokens"),
)


def find(database: Database, assignment: Stored, wanted: Filter, number: int = 1, size: int = 25) -> Page:
    """One page of the decisions that pass the filter; a page beyond the last one is the last one."""
    table, (condition, values) = decisions(database, assignment), _condition(database, assignment, wanted)
    total = database.rows(f"SELECT count(*) FROM {table} d WHERE {condition}", values)[0][0]
    last = max(-(-total // size), 1)
    number = min(max(number, 1), last)
    chosen = database.rows(
        f"SELECT {', '.join(FIELDS)} FROM {table} d WHERE {condition} "
        f"ORDER BY {SORTS[wanted.sort]} NULLS LAST, number LIMIT {size} OFFSET {(number - 1) * size}",
        values,
    )
    texts = _texts(database, assignment, [row[1] for row in chosen])
    rows = [dict(zip(FIELDS, row, strict=True)) | {"text": texts.get(row[1], "")} for row in chosen]
    return Page(rows=rows, total=total, number=number, size=size)


def _texts(database: Database, assignment: Stored, ids: list[str]) -> dict[str, str]:
    prompts = database.shelf.input(assignment, "prompts")
    if prompts is None or not ids:
        return {}
    view, among = database.view(prompts), "prompt_id IN (SELECT unnest($1))"
    return dict(database.rows(f"SELECT prompt_id, left({TEXT}, {PREVIEW}) FROM {view} WHERE {among}", [ids]))


def topics(database: Database, assignment: Stored) -> list[str]:
    found = (
        f"SELECT DISTINCT topic FROM {decisions(database, assignment)} WHERE topic IS NOT NULL ORDER BY 1 LIMIT 200"
    )
    return [row[0] for row in database.rows(found)]


def _condition(database: Database, assignment: Stored, wanted: Filter) -> tuple[str, list[Any]]:
    """SQL over `d` with its values."""
    parts: list[str] = []
    values: list[Any] = []

    def add(part: str, *bound: Any) -> None:
        parts.append(part)
        values.extend(bound)

    for column in ("teacher", "split", "topic"):
        if getattr(wanted, column):
            add(f"d.{column} = ?", getattr(wanted, column))
    for column, sign, bound in (
        ("margin", "<=", wanted.margin),
        ("num_tokens", ">=", wanted.shortest),
        ("num_tokens", "<=", wanted.longest),
    ):
        if bound is not None:
            add(f"d.{column} {sign} ?", bound)
    if wanted.agreement:
        add("d.regret = 0" if wanted.agreement == "same" else "d.regret > 0")
    if wanted.correct:
        add({"right": "d.is_correct", "wrong": "NOT d.is_correct", "unjudged": "d.is_correct IS NULL"}[wanted.correct])
    text, prompts = wanted.text.strip(), database.shelf.input(assignment, "prompts")
    if text and prompts:
        same = f"SELECT prompt_id FROM {database.view(prompts)} WHERE contains(lower({TEXT}), lower(?))"
        add(f"(d.prompt_id = ? OR d.prompt_id IN ({same}))", text, text)
    elif text:
        add("d.prompt_id = ?", text)
    return " AND ".join(parts) or "true", values
