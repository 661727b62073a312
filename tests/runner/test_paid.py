"""A run does not pay again for what a lost journal has held, unless it is told to."""

from pathlib import Path
from typing import Any

import pytest
from journal_samples import answer, request
from store_samples import dataset_of, fields, rows_of

from persyn_hf.backends.journal import Journal
from persyn_hf.errors import StoreError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.runner.checks import check_paid
from persyn_hf.runner.plan import make_plan
from persyn_hf.schemas import RESPONSES
from persyn_hf.store.local import Store


def recipe(**more: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "r",
        "teachers": [{"name": "a", "model": "m/a"}, {"name": "b", "model": "m/b"}],
        "students": [{"name": "s", "model": "m/s"}],
        "prompts": {"path": "p.jsonl", "calibration": 2, "dev": 1, "pool": 1},
    }
    return Recipe(**(values | more))


def check(store: Store, recipe: Recipe) -> None:
    for step in make_plan(recipe):
        check_paid(step, recipe, store)


@pytest.fixture
def paid(tmp_path: Path) -> Store:
    """A store of the recipe local/r, which has paid for 11 of 12 answers."""
    store = Store(tmp_path / "store")
    cost = {"total": {"requests": 12, "new": 11}}
    data = dataset_of(RESPONSES, rows_of(RESPONSES, 3))
    store.put(repo="local/r-responses", schema=RESPONSES, data=data, fields=fields(recipe="r", cost=cost))
    return store


@pytest.mark.parametrize("how", ["deleted", "emptied", "of another recipe"])
def test_a_lost_journal_is_told_before_anything_is_paid_again(paid: Store, how: str) -> None:
    journal = paid.state_dir / "journal.sqlite"
    if how != "deleted":
        with Journal(journal, recipe="local/other") as db:
            db.write([answer(request())][: how == "of another recipe"], teacher="a")
    with pytest.raises(StoreError, match=f"^local/r has paid for 11 answers or more.* {journal}: .* --new-journal$"):
        check(paid, recipe())


@pytest.mark.parametrize(
    "own", [{"name": "q"}, {"namespace": "me"}, {"generate": {"engine": "import", "path": "answers.jsonl"}}]
)
def test_who_has_paid_for_nothing_is_not_held_up(paid: Store, own: dict[str, Any]) -> None:
    check(paid, recipe(**own))


def test_what_the_journal_holds_is_not_lost(paid: Store) -> None:
    with Journal(paid.state_dir / "journal.sqlite", recipe="local/r") as db:
        db.write([answer(request())], teacher="a")
    check(paid, recipe())


def test_what_cost_nothing_cannot_be_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    data = dataset_of(RESPONSES, rows_of(RESPONSES, 3))
    costs: tuple[Any, ...] = ({}, {"total": {}}, {"total": {"requests": 12, "new": 0}})
    for seed, cost in enumerate(costs):
        store.put(
            repo="local/r-responses", schema=RESPONSES, data=data, fields=fields(recipe="r", cost=cost, seed=seed)
        )
    check(store, recipe())
