"""Decisions joined with their rewards: read for some rows or for all of them, and what is best among equals."""

from pathlib import Path
from typing import Any

import pytest
from space_samples import POOL, STUDENT, TEACHERS, assignments, prompts, rewards

from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, REWARDS
from persyn_hf.space import database as space_database
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import decisions
from persyn_hf.space.explorer import Filter, find
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


def test_a_page_is_the_same_before_and_after_all_rewards_are_read(filled: Path, persyn: Stored) -> None:
    database = Database(open_shelf([], Store(filled)))
    before = [find(database, persyn, Filter(sort="margin"), number, size=7) for number in (1, 5)]
    assert not database.made(f"rewards of {persyn.ref}") and not database.made(f"answers of {persyn.ref}")
    find(database, persyn, Filter(agreement="other", correct="right", topic="sums"))
    assert database.made(f"rewards of {persyn.ref}") and database.made(f"answers of {persyn.ref}")
    assert [find(database, persyn, Filter(sort="margin"), number, size=7) for number in (1, 5)] == before
    cells = {(row["prompt_id"], row["teacher"]): row["reward"] for row in rewards()}
    for row in [row for page in before for row in page.rows]:
        found = {name: value for name in POOL if (value := cells[row["prompt_id"], name]) is not None}
        assert (row["oracle"], row["best"]) == max(found.items(), key=lambda cell: cell[1])
        assert row["reward"] == found.get(row["teacher"])


def test_the_footers_of_files_are_kept_for_every_statement(database: Database) -> None:
    assert database.rows("SELECT current_setting('parquet_metadata_cache')") == [(True,)]


@pytest.mark.parametrize("few", [0, 1, 255])
def test_texts_are_the_same_however_few_of_them_take_a_byte_each(
    filled: Path, persyn: Stored, database: Database, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    filters = (Filter(), Filter(topic="sums", agreement="other"), Filter(topic="none", source="router"))
    found = [find(database, persyn, wanted, size=1000) for wanted in filters]  # first: a database keeps what differs
    monkeypatch.setattr(space_database, "FEW", few)
    here = Database(open_shelf([], Store(filled)))
    assert [find(here, persyn, wanted, size=1000) for wanted in filters] == found
    kinds = dict(here.rows(f"SELECT DISTINCT column_name, column_type FROM (DESCRIBE {decisions(here, persyn)})"))
    assert (kinds["topic"] == "VARCHAR") is (few < 255) and kinds["teacher"].startswith("ENUM")


def test_of_equal_rewards_the_chosen_teacher_is_best_then_the_better_one(tmp_path: Path) -> None:
    store, prompt = Store(tmp_path), prompts()[0]
    given = {"tied": (1.0, 1.0, 0.0), "chosen": (1.0, 1.0, 0.0), "plain": (0.0, 1.0, 0.5)}  # `large` has the best mean
    cells = [row for row in rewards() if row["prompt_id"] == prompt["prompt_id"]]
    made = [
        row | {"prompt_id": one, "reward": reward, "rank": sorted(of, reverse=True).index(reward) + 1}
        for one, of in given.items()
        for row, reward in zip(cells, of, strict=True)
    ]
    teachers = {"tied": "thinker", "chosen": "small", "plain": "thinker"}
    decided = [assignments("strong")[0] | {"prompt_id": one, "teacher": name} for one, name in teachers.items()]
    fields: dict[str, Any] = {"stage": "made", "teachers": TEACHERS, "student": STUDENT}
    asked = [prompt | {"prompt_id": one} for one in given]
    items: list[Stored] = []
    for schema, rows in ((PROMPTS, asked), (REWARDS, made), (ASSIGNMENTS, decided)):
        inputs = {item.kind: {"ref": item.ref, "digest": item.digest} for item in items}
        put = {"repo": f"o/{schema.kind}", "data": schema.dataset(rows), "fields": fields | {"inputs": inputs}}
        items.append(store.put(schema=schema, **put))
    page = find(Database(open_shelf([], store)), items[-1], Filter())
    assert [(row["oracle"], row["regret"]) for row in page.rows] == [("large", 1.0), ("small", 0.0), ("large", 0.5)]
