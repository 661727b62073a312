"""How good the router is: against the metrics of the core, and every number leads to its prompts."""

import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from space_links import counted, example, row, view
from space_samples import POOL, TEACHERS, assignments, fill, rewards

from persyn_hf.core import metrics
from persyn_hf.core.rewards import to_matrix
from persyn_hf.errors import InputError
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.space.router_quality import best_single, leads, router_quality
from persyn_hf.space.views.router import METRICS
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


pytestmark = pytest.mark.heavy  # seconds in all; `make test-fast` has two minutes


def judged() -> tuple[Any, Any, list[str]]:
    """Scores and measured rewards (N, n) of the prompts whose chosen teacher was measured, and these teachers."""
    columns = {name: [row[name] for row in rewards()] for name in ("prompt_id", "teacher", "reward")}
    order, matrix = to_matrix(columns["prompt_id"], columns["teacher"], columns["reward"], POOL)
    by_id = {row["prompt_id"]: row for row in assignments("persyn")}
    rows = [n for n, one in enumerate(order) if not np.isnan(matrix[n, POOL.index(by_id[one]["teacher"])])]
    chosen = [by_id[order[n]] for n in rows]
    return np.array([one["scores"] for one in chosen]), matrix[rows], [one["teacher"] for one in chosen]


def test_it_is_that_of_the_core_metrics(database: Database, persyn: Stored, strong: Stored) -> None:
    found = router_quality(database, persyn)
    scores, matrix, teachers = judged()
    assert found.table["router"]["hit_at_1"]["value"] == pytest.approx(metrics.hit_at_k(scores, matrix, 1).mean())
    assert found.prompts == len(matrix) == int(found.confusion.sum()) == sum(number for _, number, *_ in found.topics)
    lost = matrix[np.arange(len(matrix)), [POOL.index(name) for name in teachers]] < np.nanmax(matrix, axis=1)
    assert int(np.trace(found.confusion)) == int((~lost).sum()) == found.prompts - sum(row[3] for row in found.topics)
    calibration = [row for row in rewards() if row["split"] == "calibration" and row["reward"] is not None]
    means = [np.mean([row["reward"] for row in calibration if row["teacher"] == name]) for name in POOL]
    assert found.always == best_single(database, persyn) == POOL[int(np.argmax(means))]
    assert router_quality(database, persyn) is found  # it is kept
    with pytest.raises(InputError, match="strong@v1 was made by the strategy `strong`, without a router"):
        router_quality(database, strong)


def test_leads_by_hand() -> None:
    assert leads(9, 1.0) == (pytest.approx(math.log(0.6 / 0.4), abs=1e-6), pytest.approx(math.log(2), abs=1e-6))
    assert leads(5, 1.0) == leads(9, 1.0)  # the same pairs, seen from the worse teacher
    assert leads(9, 2.0)[1] == pytest.approx(2 * math.log(2), abs=1e-6) and leads(9, None) == leads(9, 1.0)
    assert leads(7, 1.0) == (0.0, pytest.approx(math.log(8 / 7), abs=1e-6))
    assert leads(14, 1.0) == (pytest.approx(math.log(14), abs=1e-6), None) == leads(0, 1.0)


@pytest.mark.parametrize("split", ["all", "pool", "calibration"])
@pytest.mark.parametrize("where", ["sample", "example"])
def test_every_count_is_the_length_of_its_list(database: Database, where: str, split: str) -> None:
    desk = Desk(database.shelf) if where == "sample" else example()
    shown = view(desk, f"view=router&split={split}")
    found = counted(desk, shown)
    if where == "example" and split == "calibration":
        assert "The router closes" in shown and "None of the prompts of calibration" in shown and not found
        return
    for words in ("best=", "topic=", "lead="):
        assert any(words in address for address in found), words
    assert [pair for pair in found.values() if pair[0] != pair[1]] == []
    cells = {address: pair[0] for address, pair in found.items() if "best=" in address}
    quality = router_quality(
        desk.database, desk.shelf.get(desk.defaults["assignment"]), "" if split == "all" else split
    )
    assert sum(cells.values()) == quality.prompts and f'<p class="note">{quality.prompts:,} prompts.' in shown


def test_dots_lead_to_prompts_of_that_lead() -> None:
    desk = example()
    stored = desk.database.view(desk.shelf.get(desk.defaults["assignment"]))
    margins = [row[0] for row in desk.database.rows(f"SELECT margin FROM {stored} WHERE source = 'router'")]
    shown = view(desk, "view=router&split=all")
    dots = re.findall(r'<a href="([^"]*lead=[^"]*|[^"]*margin=[^"]*)" tabindex="-1"><circle.*?; (\d+) prompts', shown)
    assert len(dots) > 5
    for address, number in dots:
        query = dict(part.split("=") for part in html.unescape(address).removeprefix("?").split("&"))
        low, high = float(query.get("lead", 0)), float(query.get("margin", "inf"))
        assert int(number) == sum(low <= margin <= high for margin in margins)


def test_the_verdict_of_the_example() -> None:
    desk = example()
    found = router_quality(desk.database, desk.shelf.get("tiny/example-assignments-qwen-student-persyn@v1"), "pool")
    gap = found.table["router"]["gap_closed"]
    shown = html.unescape(view(desk, "view=router"))
    low, high = (f"{100 * gap[side]:.0f}" for side in ("low", "high"))
    assert (
        f"<h1>The router closes {100 * gap['value']:.0f} % ({low} to {high}) of the gap between always {found.always} "
        "and a perfect choice</h1>"
    ) in shown
    assert "On 60 dev prompts" in shown and "They are no part of the split pool" in shown
    for title, meaning in METRICS.values():
        assert title in shown and meaning in shown
    assert f"always {found.always}" in row(shown, "metric")
    assert row(shown, "regret")[1] == f"{found.table['router']['regret']['value']:.3f}"


def test_without_a_router_there_are_links_to_one(database: Database) -> None:
    desk = Desk(database.shelf)
    shown = view(desk, "view=router&assignment=org/assignments-s-strong@v1")
    assert "made by the strategy `strong`, which has no router" in html.unescape(shown)
    assert 'href="?view=router"' in shown and "<table" not in shown


@pytest.mark.heavy
def test_many_teachers_have_numbers_above_the_columns(tmp_path: Path) -> None:
    many = [
        {"name": f"a-teacher-with-a-long-name-{n:02d}", "family": "abc"[n % 3], "params_b": n + 1.0} for n in range(19)
    ]
    fill(Store(tmp_path / "store"), teachers=many)
    desk = Desk(open_shelf([], Store(tmp_path / "store")))
    shown = view(desk, "view=router&split=all")
    head = shown.split('class="confusion"')[1].split("</thead>")[0]
    assert re.findall(r">(\d+)<span", head) == [str(n + 1) for n in range(19)]
    assert [pair for pair in counted(desk, shown).values() if pair[0] != pair[1]] == []
    for name in ("map", "whatif"):
        shown = view(desk, f"view={name}&split=all&alpha=1")
        assert [pair for pair in counted(desk, shown).values() if pair[0] != pair[1]] == []


def test_nothing_measured_says_so(tmp_path: Path) -> None:
    fill(Store(tmp_path / "store"), scored=["calibration"], teachers=TEACHERS)
    shown = html.unescape(view(Desk(open_shelf([], Store(tmp_path / "store"))), "view=router&split=pool"))
    assert "The router was not measured here" in shown and "None of the prompts of pool" in shown
