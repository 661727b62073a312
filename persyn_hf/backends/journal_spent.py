"""What answers have cost, from the tables of the journal: sums that triggers keep, and tokens that were counted here.

A server that counts no tokens leaves answers behind whose cost nobody knows (`uncounted`). Where a tokenizer of the
model is at hand they are counted by it, into a table of their own: what the server said stays as it was.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from persyn_hf.backends import journal_file as file


class Count(NamedTuple):
    """The tokens of one answer that its server did not count; 0 for those that it did."""

    prompt: int
    generated: int


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The cost of one teacher's answers to one recipe, with every attempt counted.

    The prompt of a request that failed before its first token is not counted: no server charges for it.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    truncated: int
    uncounted: int = 0  # answers whose tokens nobody has counted: they are in none of the sums
    counted_here: int = 0  # answers whose tokens no server has counted, but a tokenizer here
    errors: Counter[str] = field(default_factory=Counter)  # by the first 80 characters of the reason


PUT = """
INSERT INTO counts SELECT key, ?, recipe, teacher, ?, ?, ? FROM answers WHERE key = ? AND NOT failed
    AND (num_tokens = 0 OR num_prompt_tokens = 0)
"""


def put_counts(db: sqlite3.Connection, counts: Mapping[str, Count], tokenizer: str) -> None:
    """Note the tokens of answers by key, inside the open transaction; an earlier count of theirs goes."""
    for key, count in counts.items():
        name = file.stored(key)
        db.execute("DELETE FROM counts WHERE key = ?", (name,))
        db.execute(PUT, (tokenizer, *count, file.checksum(name, tokenizer, *count), name))


def counts_of(db: sqlite3.Connection, keys: Iterable[str], tokenizer: str) -> dict[str, Count]:
    """Return the tokens of the answers that this tokenizer has counted, by key."""
    found = {}
    query = "SELECT num_prompt_tokens, num_tokens, checksum FROM counts WHERE key = ? AND tokenizer = ?"
    for key in keys:
        row = db.execute(query, (file.stored(key), tokenizer)).fetchone()
        if row is not None:
            if file.checksum(file.stored(key), tokenizer, *row[:2]) != row[2]:
                raise file.Damage(f"the count of answer {key} is not what was written")
            found[key] = Count(*row[:2])
    return found


def spent_of(db: sqlite3.Connection, recipe: str) -> dict[str, Spent]:
    """Return what a recipe has paid for so far, by teacher."""
    tables = file.tables(db)
    uncounted = file.UNCOUNTED_OF_SPENT if "uncounted" in tables else "0"
    joined = "LEFT JOIN counted USING (recipe, teacher)" if "counted" in tables else ""
    answers, prompt, generated = (
        f"coalesce(counted.{name}, 0)" if joined else "0" for name in ("answers", "prompt_tokens", "completion_tokens")
    )
    values = {
        "requests": "requests",
        "prompt_tokens": f"spent.prompt_tokens + {prompt}",
        "completion_tokens": f"spent.completion_tokens + {generated}",
        "seconds": "seconds",
        "truncated": "truncated",
        "uncounted": f"{uncounted} - {answers}",
        "counted_here": answers,
    }
    spent: dict[str, Spent] = {}
    for teacher, reason, times, *line in db.execute(  # one statement, so that no answer is written meanwhile
        f"SELECT teacher, reason, times, {', '.join(values.values())} "
        f"FROM spent LEFT JOIN spent_errors USING (recipe, teacher) {joined} WHERE recipe = ?",
        (recipe,),
    ):
        found = spent.setdefault(teacher, Spent(**dict(zip(values, line, strict=True))))
        if reason is not None:
            found.errors[reason] = times
    return spent
