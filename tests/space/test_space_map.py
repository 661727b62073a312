"""The map of prompts: its axes by hand and against scikit-learn, its regions and their lists."""

import html
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from rows import assignment
from space_links import counted, example, total, view
from space_samples import NUMBER, POOL, TEACHERS, assignments, prompts

from persyn_hf.errors import InputError, RecipeError
from persyn_hf.report.colours import DARKEST, LIGHTEST, luminance
from persyn_hf.schemas import ASSIGNMENTS
from persyn_hf.space import projection
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.space.views.map import TOPICS
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


pytestmark = pytest.mark.heavy  # seconds in all; `make test-fast` has two minutes


def test_components_by_hand() -> None:
    # Less their means the rows are (1, -1, 0), (-1, 1, 0) twice over, and (0, 0, 0): all lies on one line.
    scores = np.array([[3.0, 1, 2], [1, 3, 2], [1, -1, 0], [-1, 1, 0], [5, 5, 5]])
    directions, centre, shares = projection.components(scores)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(directions, [[half, -half, 0], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)
    np.testing.assert_allclose(centre, [0, 0], atol=1e-12)


def test_components_are_those_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    scores = np.random.default_rng(0).normal(size=(200, 6)) * [3, 2, 1, 1, 1, 0.5] + 4
    directions, centre, shares = projection.components(scores)
    apart = scores - scores.mean(axis=1, keepdims=True)
    found = decomposition.PCA(2).fit(apart)
    np.testing.assert_allclose(np.abs(directions @ found.components_.T), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(shares, found.explained_variance_ratio_, rtol=1e-9)
    places = scores @ directions.T - centre
    np.testing.assert_allclose(np.abs(places), np.abs(found.transform(apart)), atol=1e-9)
    for direction in directions:
        assert direction[np.abs(direction).argmax()] > 0 and direction.sum() == pytest.approx(0, abs=1e-12)


def test_sql_places_every_prompt_as_numpy_does(database: Database, persyn: Stored) -> None:
    axes = projection.axes(database, persyn, "")
    assert axes.source == "router"
    table = projection.places(database, persyn, axes)
    found = {prompt: (x, y) for prompt, x, y in database.rows(f"SELECT prompt_id, x, y FROM {table}")}
    rows = assignments("persyn")
    expected = np.array([row["scores"] for row in rows]) @ axes.directions.T - axes.centre
    np.testing.assert_allclose([found[row["prompt_id"]] for row in rows], expected, atol=1e-12)


def test_a_box_holds_what_lies_in_it(database: Database, persyn: Stored) -> None:
    table = projection.places(database, persyn, projection.axes(database, persyn, ""))
    places = database.rows(f"SELECT prompt_id, x, y FROM {table}")
    for box in ([-1.0, -1.0, 1.0, 1.0], [0.0, -9.0, 9.0, 9.0], [*places[0][1:], *places[0][1:]]):
        expected = {one for one, x, y in places if box[0] <= x <= box[2] and box[1] <= y <= box[3]}
        found = {row[0] for row in database.rows(projection.within(database, persyn, "", box))}
        assert found == expected and found
        desk = Desk(database.shelf)
        assert total(desk, f"?view=prompts&split=all&box={','.join(map(repr, box))}") == len(expected)


@pytest.mark.parametrize(
    "box", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "0,4,1,2", "0,0,inf,1", "0,0,nan,1", "0,0,1,1);--"]
)
def test_what_is_no_box_is_left_out_with_a_word(database: Database, persyn: Stored, box: str) -> None:
    desk = Desk(database.shelf)
    state, wrong = desk.read(parse_qs(f"view=prompts&split=all&box={box}"))
    assert state["box"] == []
    assert wrong == [f"box is given as `{box}`; it needs four numbers: left, bottom, right, top"]
    with pytest.raises(RecipeError, match="`box` must be four numbers: left, bottom, right, top, got"):
        projection.within(database, persyn, "", box.split(","))
    shown = desk.show(desk.defaults | {"view": "prompts", "box": box.split(",")})["prompts"]  # as a program may ask
    assert "fault of ours" not in shown and "four numbers" in shown


@pytest.mark.parametrize("split", ["all", "pool", "calibration"])
@pytest.mark.parametrize("where", ["sample", "example"])
def test_every_count_is_the_length_of_its_list(database: Database, where: str, split: str) -> None:
    desk = Desk(database.shelf) if where == "sample" else example()
    for colour in ("teacher", "regret", "topic"):
        found = counted(desk, view(desk, f"view=map&split={split}&colour={colour}"))
        boxes = [pair for address, pair in found.items() if "box=" in address]
        assert len(boxes) > 4 and [pair for pair in found.values() if pair[0] != pair[1]] == []


def test_regions_hold_every_prompt(database: Database, persyn: Stored) -> None:
    found = projection.regions(database, persyn, "", ["prompts", "rewards"])
    assert sum(region.prompts for region in found) >= NUMBER
    table = projection.places(database, persyn, projection.axes(database, persyn, ""))
    rows = {row["prompt_id"]: row for row in assignments("persyn")}
    topics = {row["prompt_id"]: row["topic"] for row in prompts()}
    for region in found:
        inside = [one for (one,) in database.rows(projection.within(database, persyn, "", region.box))]
        teachers = [rows[one]["teacher"] for one in inside]
        assert region.prompts == len(inside)
        assert region.of_teacher == max(map(teachers.count, POOL)) == teachers.count(region.teacher)
        named = [topics[one] for one in inside]
        assert named.count(region.topic) == max(map(named.count, {*named}))
    plain = projection.regions(database, persyn, "")
    assert [region.prompts for region in plain] == [region.prompts for region in found]
    assert {(region.topic, region.regret) for region in plain} == {(None, None)}
    assert database.rows(f"SELECT count(*) FROM {table}") == [(NUMBER,)]


def test_points_lead_to_their_prompts(database: Database) -> None:
    shown = view(Desk(database.shelf), "view=map&split=all")
    ids = re.findall(r'<a href="\?[^"]*prompt=([0-9a-f]{16})" tabindex="-1"><use', shown)
    assert sorted(ids) == sorted(row["prompt_id"] for row in prompts())
    assert "<script>" not in shown and "&lt;script&gt;" in shown  # of a prompt's text, in the title of its point


def test_points_are_the_first_by_their_ids(database: Database, persyn: Stored) -> None:
    ids = sorted(row["prompt_id"] for row in prompts())
    assert [point["prompt_id"] for point in projection.points(database, persyn, "", most=7)] == ids[:7]


def test_what_the_axes_mean_is_told(database: Database) -> None:
    desk = example()
    shown = html.unescape(view(desk, "view=map"))
    assert "To the right qwen-math stands out, to the left llama-verbal, gemma-terse" in shown
    assert "show 52% and 24% of the differences" in shown


def test_where_no_scores_are_there_are_links_to_some(database: Database) -> None:
    shown = view(Desk(database.shelf), "view=map&assignment=org/assignments-s-strong@v1")
    assert "were decided without scores" in shown and 'href="?view=map"' in shown and "<svg" not in shown


def made(tmp_path: Path, rows: list[dict[str, Any]], teachers: list[dict[str, Any]]) -> tuple[Database, Stored]:
    """A store with one assignment of these rows."""
    store = Store(tmp_path / "store")
    fields = {"stage": "assign", "teachers": teachers, "settings": {"kind": "persyn"}}
    stored = store.put(repo="org/x", schema=ASSIGNMENTS, data=ASSIGNMENTS.dataset(rows), fields=fields)
    database = Database(open_shelf([], store))
    return database, database.shelf.get(stored.ref)


def test_two_teachers_make_a_line(tmp_path: Path) -> None:
    scores = [[0.0, 1.0], [2.0, 0.0], [5.0, 5.0], [1.0, 4.0]]
    rows = [
        assignment(f"{n:016x}", "small", scores=pair, margin=abs(pair[0] - pair[1]), source="router", split="pool")
        for n, pair in enumerate(scores)
    ]
    database, stored = made(tmp_path, rows, TEACHERS[:2])
    axes = projection.axes(database, stored, "")
    np.testing.assert_allclose(axes.explained, [1, 0], atol=1e-12)
    table = projection.places(database, stored, axes)
    found = database.rows(f"SELECT x, y FROM {table} ORDER BY prompt_id")
    apart = np.array([(first - second) / math.sqrt(2) for first, second in scores])
    np.testing.assert_allclose([x for x, _ in found], apart - apart.mean(), atol=1e-12)
    assert [y for _, y in found] == [0] * 4
    desk = Desk(database.shelf)
    shown = view(desk, "view=map")
    pairs = counted(desk, shown)
    assert pairs and all(number == length for number, length in pairs.values())


def test_prompts_without_all_scores_are_not_on_the_map(tmp_path: Path) -> None:
    scores: list[Any] = [[1.0, 0.0, 2.0], [0.0, 1.0, 0.5], [None, 1.0, 0.0], [], [2.0, 0.0, 0.0]]
    rows = [
        assignment(f"{n:016x}", "small", scores=one, source="router", split="pool") for n, one in enumerate(scores)
    ]
    database, stored = made(tmp_path, rows, TEACHERS)
    table = projection.places(database, stored, projection.axes(database, stored, "pool"))
    assert [row[0] for row in database.rows(f"SELECT number FROM {table} ORDER BY 1")] == [1, 2, 5]
    desk = Desk(database.shelf)
    shown = view(desk, "view=map")
    assert "A map of 3 prompts" in shown
    assert all(number == length for number, length in counted(desk, shown).values())
    database, stored = made(tmp_path / "none", [row for row in rows if None in row["scores"]], TEACHERS)
    with pytest.raises(InputError, match="no prompt of org/x@v1 has a score of each of several teachers"):
        projection.axes(database, stored, "")


def test_the_same_scores_for_all_are_one_point(tmp_path: Path) -> None:
    rows = [assignment(f"{n:016x}", "small", scores=[1.0, 0.0, 0.0], source="router", split="pool") for n in range(3)]
    database, _ = made(tmp_path, rows, TEACHERS)
    desk = Desk(database.shelf)
    shown = view(desk, "view=map")
    assert "All of them have the same scores" in shown
    assert {pair for address, pair in counted(desk, shown).items() if "box=" in address} == {(3, 3)}


def test_colours_of_topics_stand_out_on_both_themes() -> None:
    assert all(DARKEST - 0.005 <= luminance(colour) <= LIGHTEST for colour in TOPICS)
