"""What the Space computes, against the same computed row by row in Python."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from space_samples import COST, EVIL, NUMBER, POOL, assignments, prompt_id, prompts, responses, rewards

from persyn_hf.core import metrics
from persyn_hf.errors import InputError, PersynError, RecipeError, StoreError
from persyn_hf.space import downloads
from persyn_hf.space.allocation import allocate, summary
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.costs import costs
from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.space.explorer import Filter, Sort, choices, every, find
from persyn_hf.space.lineage import origin
from persyn_hf.space.prompt import LONGEST, open_prompt
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


def known() -> list[dict[str, Any]]:
    """Every decision of `persyn` with what it is filtered by, as they lie: one file per split."""
    measured = {(row["prompt_id"], row["teacher"]): row["reward"] for row in rewards()}
    answers = {(row["prompt_id"], row["teacher"]): row for row in responses()}
    about = {row["prompt_id"]: row for row in prompts()}
    rows = []
    for row in assignments("persyn"):
        cell = (row["prompt_id"], row["teacher"])
        found = [value for name in POOL if (value := measured[row["prompt_id"], name]) is not None]
        best = max(found, default=None)
        regret = None if best is None or measured[cell] is None else best - measured[cell]
        of_best = [name for name in POOL if best is not None and measured[row["prompt_id"], name] == best]
        mean = {
            name: np.nanmean([v for (_, t), v in measured.items() if t == name and v is not None]) for name in POOL
        }
        oracle = max(of_best, key=lambda name: (name == row["teacher"], mean[name]), default=None)
        known = {"regret": regret, "answer": answers[cell], "oracle": oracle, "ties": len(of_best)}
        rows.append(row | about[row["prompt_id"]] | known)
    return sorted(rows, key=lambda row: str(row["split"]))


@pytest.mark.parametrize("by", ["all", "split", "topic", "origin", "source"])
@pytest.mark.parametrize("split", ["", "pool"])
def test_allocation_counts_every_row_once(
    database: Database, persyn: Stored, strong: Stored, by: Any, split: str
) -> None:
    found = allocate(database, [persyn, strong], by, split)
    keys = {"all": lambda row: "", "origin": lambda row: "made", "topic": lambda row: row["topic"] or "none"}
    about = {row["prompt_id"]: row for row in prompts()}
    for number, kind in enumerate(("persyn", "strong")):
        rows = [about[row["prompt_id"]] | row for row in assignments(kind) if split in ("", row["split"])]
        expected = Counter((keys.get(by, lambda row: row[by])(row), row["teacher"]) for row in rows)
        got = {
            (group.name, name): int(count)
            for group in found.groups
            for name, count in zip(found.names, group.counts[number], strict=True)
            if count
        }
        assert got == dict(expected)


def test_the_summary_compares_with_the_first(database: Database, persyn: Stored, strong: Stored) -> None:
    shares = allocate(database, [persyn, strong]).groups[0].shares
    (even, moved), (alone, other) = summary(shares)
    assert moved == 0 and alone == pytest.approx(1)
    assert other == pytest.approx(metrics.total_variation(shares[1], shares[0]))
    assert even == pytest.approx(metrics.effective_teachers(shares[0]))


def test_the_csv_holds_no_formula(database: Database, persyn: Stored) -> None:
    desk = Desk(database.shelf)
    scene = desk.scene(desk.read({"by": ["topic"], "split": ["all"], "with": [""]})[0])
    content = b"".join(downloads.make("allocation.csv", scene).content).decode()
    rows = [row for row in csv.DictReader(io.StringIO(content)) if row["assignment"] == persyn.ref]
    assert sum(int(row["prompts"]) for row in rows) == NUMBER
    assert {row["group"] for row in rows} == {"sums", "'=products", "none"}


STRONG = "org/assignments-s-strong@v1"
FILTERS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ({}, lambda row: True),
    ({"teacher": "small"}, lambda row: row["teacher"] == "small"),
    ({"split": "pool", "topic": "sums"}, lambda row: (row["split"], row["topic"]) == ("pool", "sums")),
    ({"margin": 0.5}, lambda row: row["margin"] <= 0.5),
    ({"lead": 0.5}, lambda row: row["margin"] >= 0.5),
    ({"lead": 0.2, "margin": 0.5}, lambda row: 0.2 <= row["margin"] <= 0.5),
    ({"topic": "none"}, lambda row: row["topic"] is None),
    ({"origin": "made"}, lambda row: True),
    ({"origin": "none"}, lambda row: False),
    ({"source": "router"}, lambda row: True),
    ({"source": "rule"}, lambda row: False),
    ({"best": "large"}, lambda row: row["oracle"] == "large"),
    ({"tied": "tied"}, lambda row: row["ties"] > 1),
    ({"tied": "sole"}, lambda row: row["ties"] == 1),
    ({"differs": STRONG}, lambda row: row["teacher"] != "large"),
    ({"differs": STRONG, "there": "small"}, lambda row: False),
    ({"differs": STRONG, "there": "large"}, lambda row: row["teacher"] != "large"),
    ({"among": (prompt_id(3), "none")}, lambda row: row["prompt_id"] == prompt_id(3)),
    ({"among": ()}, lambda row: False),
    ({"agreement": "same"}, lambda row: row["regret"] == 0),
    ({"agreement": "other"}, lambda row: row["regret"] is not None and row["regret"] > 0),
    ({"correct": "right"}, lambda row: row["answer"]["is_correct"] is True),
    ({"correct": "wrong"}, lambda row: row["answer"]["is_correct"] is False),
    ({"correct": "unjudged"}, lambda row: row["answer"]["is_correct"] is None),
    ({"shortest": 50, "longest": 100}, lambda row: 50 <= row["answer"]["num_tokens"] <= 100),
    ({"text": "QUESTION 1"}, lambda row: "question 1" in row["messages"][-1]["content"].lower()),
    ({"text": "<script>"}, lambda row: "<script>" in row["messages"][-1]["content"].lower()),
    ({"text": "' OR 1=1 --"}, lambda row: False),
    ({"text": "100%"}, lambda row: False),
    ({"text": prompt_id(9)}, lambda row: row["prompt_id"] == prompt_id(9)),
    ({"teacher": "none; DROP TABLE made_0"}, lambda row: False),
]


@pytest.mark.parametrize(
    ("wanted", "passes"), FILTERS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_a_filter_lets_through_what_it_says(database: Database, persyn: Stored, wanted: Any, passes: Any) -> None:
    page = find(database, persyn, Filter(**wanted), size=NUMBER)
    expected = [row["prompt_id"] for row in known() if passes(row)]
    assert [row["prompt_id"] for row in page.rows] == expected
    assert page.total == len(expected)


@pytest.mark.parametrize("sort", get_args(Sort))
def test_pages_together_are_all_rows_in_order(database: Database, persyn: Stored, sort: Any) -> None:
    pages = [find(database, persyn, Filter(sort=sort), number, size=7) for number in range(1, 10)]
    rows = [row for page in pages for row in page.rows]
    assert sorted(row["number"] for row in rows) == list(range(1, NUMBER + 1))
    plain = sort.removeprefix("-")
    key = {"place": "number", "tokens": "num_tokens"}.get(plain, plain)
    values = [row[key] for row in rows if row[key] is not None]
    assert values == sorted(values, reverse=(plain in ("regret", "tokens")) != (plain != sort))
    assert [row[key] for row in rows[len(values) :]] == [None] * (NUMBER - len(values))
    assert [row for block in every(database, persyn, Filter(sort=sort), 7) for row in block] == rows
    ids = [row["prompt_id"] for row in rows]
    for row in (0, 1, 30, NUMBER - 1):
        page = find(database, persyn, Filter(sort=sort), 1, 7, ids[row])
        around = [ids[at] if 0 <= at < NUMBER else None for at in (row - 1, row + 1)]
        assert page.place is not None and (page.place.row, page.place.before, page.place.after) == (row, *around)
        assert page.rows == pages[row // 7].rows and page.number == row // 7 + 1
        assert page.place.number == page.rows[row % 7]["number"]
    unknown = find(database, persyn, Filter(sort=sort), 2, 7, "none")
    assert unknown.place is None and unknown.rows == pages[1].rows
    assert find(database, persyn, Filter(sort=sort), 1000, size=7).rows == pages[-1].rows
    assert find(database, persyn, Filter(sort=sort), -3, size=7).rows == pages[0].rows


def test_choices_and_faults_of_a_filter(database: Database, persyn: Stored) -> None:
    prompts = database.shelf.input(persyn, "prompts")
    assert choices(database, prompts, "topic") == ["=products", "sums"]
    assert choices(database, None, "topic") == []
    with pytest.raises(RecipeError, match="`sort` must be one of place, margin, regret, .* got 'x; --'"):
        Filter(sort="x; --")  # type: ignore[arg-type]


def test_one_prompt_shows_every_teacher(database: Database, persyn: Stored) -> None:
    found = open_prompt(database, persyn, prompt_id(9))
    decided = next(row for row in assignments("persyn") if row["prompt_id"] == prompt_id(9))
    cells = {row["teacher"]: row for row in rewards() if row["prompt_id"] == prompt_id(9)}
    assert [candidate.score for candidate in found.candidates] == decided["scores"]
    assert [candidate.teacher.name for candidate in found.chosen] == [decided["teacher"]]
    for candidate in found.candidates:
        assert candidate.measures == {name: cells[candidate.teacher.name][name] for name in candidate.measures}
        assert [answer["num_tokens"] for answer in candidate.answers] == [10 + 27 + POOL.index(candidate.teacher.name)]
    long = open_prompt(database, persyn, prompt_id(7)).candidates[0].answers[0]
    assert (len(long["response"]), long["length"]) == (LONGEST, 1_000_000)


def test_an_unknown_prompt_is_named(database: Database, persyn: Stored) -> None:
    with pytest.raises(InputError, match="org/assignments-s-persyn@v1 holds no prompt `x`; search for it in the list"):
        open_prompt(database, persyn, "x")


def test_cost_against_generate_then_select(database: Database, persyn: Stored, strong: Stored) -> None:
    found = costs(database, persyn)
    cell = {name: line["flops"] / NUMBER for name, line in COST["teachers"].items()}
    labelled = [row for row in assignments("persyn") if row["split"] == "calibration"]
    rest = [row for row in assignments("persyn") if row["split"] == "pool"]
    own = len(labelled) * sum(cell.values()) + sum(cell[row["teacher"]] for row in rest)
    assert found.ways["this assignment"].flops == pytest.approx(own)
    assert found.ways["generate-then-select"].flops == pytest.approx(NUMBER * sum(cell.values()))
    assert found.labelled == len(labelled)
    ruled = costs(database, strong)
    assert ruled.ways["this assignment"].flops == pytest.approx(NUMBER * cell["large"])
    assert ruled.measured == {}


def test_lineage_names_what_is_not_here(filled: Path, database: Database, persyn: Stored) -> None:
    found = origin(database.shelf, persyn)
    assert [branch.node.ref for branch in found.chain.inputs] == ["org/prompts@v1", "org/rewards-s@v1"]
    assert found.absent == {} and "org/assignments-s-persyn" in found.card
    items = {ref: item for ref, item in database.shelf.items.items() if item.kind == "assignments"}
    alone = type(database.shelf)(items=items)
    assert set(origin(alone, persyn).absent) == {"org/prompts@v1", "org/rewards-s@v1"}


def test_one_reference_brings_what_it_was_made_from_and_what_was_made_of_it(filled: Path) -> None:
    shelf = open_shelf(["org/assignments-s-persyn"], Store(filled))
    assert set(shelf.items) == {
        "org/assignments-s-persyn@v1", "org/prompts@v1", "org/rewards-s@v1", "org/responses@v1",
    }  # fmt: skip
    with pytest.raises(StoreError, match="org/prompts holds no assignments, at least one is needed; make some with"):
        open_shelf(["org/prompts"], Store(filled))
    with pytest.raises(
        StoreError, match="org/none is not in the store .*, and what the Hub holds changes; name a tag"
    ):
        open_shelf(["org/none"], Store(filled))
    with pytest.raises(StoreError, match="the store .*empty holds no assignments"):
        open_shelf([], Store(filled.parent / "empty"))


def test_sql_reads_the_artifacts_and_nothing_else(filled: Path, database: Database, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for statement in (
        f"SELECT * FROM read_text('{secret}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'new.csv'}'",
        f"ATTACH '{tmp_path / 'new.db'}'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(PersynError):
            database.rows(statement)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.txt"]
    assert len(EVIL) < NUMBER


def test_each_row_begins_with_its_own_prompt(database: Database, persyn: Stored) -> None:
    """Prompts of two splits lie in two files, so that the same place is that of two prompts."""
    turns = {row["prompt_id"]: row["messages"][-1]["content"] for row in prompts()}
    rows = find(database, persyn, Filter(), size=NUMBER).rows
    assert {row["split"] for row in rows} == {"calibration", "pool"}
    assert [row["text"] for row in rows] == [turns[row["prompt_id"]][:200] for row in rows]
