"""What other weights would have chosen: by hand, as the stages compute it, and its links to lists."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_links import counted, example, row, total, view
from space_samples import NUMBER, POOL, fill, prompts, rewards

from persyn_hf.core.assignment import allocation, route, several_best
from persyn_hf.core.rewards import combine, normalise, recombine, to_matrix
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.space import flow, views, whatif
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.space.whatif_data import Measured, load
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


pytestmark = pytest.mark.heavy  # seconds in all; `make test-fast` has two minutes


ASKED = [
    "alpha=0",
    "alpha=0.85",
    "alpha=1",
    "how=rank",
    "lambda=0.3",
    "split=all&alpha=1",
    "split=calibration&alpha=1",
]
NAN = float("nan")


def measured(**changes: Any) -> Measured:
    """Four prompts and three teachers, chosen by quality alone; the fourth prompt was not answered by `c`."""
    return Measured(
        **{
            "pool": ["a", "b", "c"],
            "ids": ["p1", "p2", "p3", "p4"],
            "chosen": np.array([1, 0, 0, 2]),
            "quality": np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 0, NAN]]),
            "learnability": np.array([[0, 0.5, 1], [0, 0, 0.4], [1, 0, 0], [0.5, 0.5, NAN]]),
            "measure": "mean_logprob",
            "in_part": False,
            "near_tie": 1e-6,
            "settings": {"alpha": 0.0, "normalisation": "none"},
            "cost": np.array([1.0, 2.0, 3.0]),
            "unit": "FLOPs",
            "prompts": 4,
            "drawn": 4,
            "places": {},
            **changes,
        }
    )


def test_by_hand() -> None:
    found = measured()
    # p1 is a tie of a and b and stays with b, which was chosen; p3 is one of b and c, and b has the better mean, 0.5
    assert whatif.by_recipe(found).teacher.tolist() == [1, 0, 1, 0]
    assert whatif.by_recipe(found).tied.tolist() == [True, False, True, False]
    assert whatif.choices(found, 0.5, "none").teacher.tolist() == [1, 0, 1, 0]  # p3: all three have 0.5, so it stays
    now = whatif.what_if(found, 1.0, "none")
    assert whatif.choices(found, 1.0, "none").teacher.tolist() == [2, 2, 0, 0]  # p4: a and b tie, a was there
    assert (now.moved, now.tied, now.quality, now.learnability) == (0.75, 0.25, 0.25, pytest.approx(0.725))
    assert (now.shares.tolist(), now.cost) == ([0.5, 0, 0.5], 2.0)
    assert whatif.moved(found, 1.0, "none").tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 0]]
    # an answer of a, b, c costs 1/2, 1, 3/2 of the mean: at lambda 1/2 a leads b by 1/4 for p1 alone
    assert whatif.choices(found, 0.0, "none", 0.5).teacher.tolist() == [0, 0, 1, 0]


def test_the_ids_of_what_moves() -> None:
    found = measured()
    ids = whatif.moved_ids
    assert ids(found, 1.0, "none") == ["p1", "p2", "p3"]
    assert ids(found, 1.0, "none", was="b") == ["p1", "p3"] and ids(found, 1.0, "none", becomes="c") == ["p1", "p2"]
    assert ids(found, 1.0, "none", was="b", becomes="a") == ["p3"] and ids(found, 0.5, "none") == []
    assert ids(found, 1.0, "none", becomes="a", only_moved=False) == ["p3", "p4"]
    with pytest.raises(RecipeError, match="`teacher` must be one of a, b, c, got 'd'"):
        ids(found, 1.0, "none", was="d")


@pytest.mark.parametrize("how", ["minmax", "zscore", "rank", "none"])
def test_it_chooses_as_the_stages_do(how: Any) -> None:
    draw = np.random.default_rng(0)
    quality = draw.integers(0, 3, (500, 4)).astype(float)  # with many ties
    learned = draw.integers(-3, 0, (500, 4)) / 3
    quality[draw.random((500, 4)) < 0.1] = NAN
    learned[np.isnan(quality)] = NAN
    seen = ~np.isnan(quality).all(axis=1)
    quality, learned = quality[seen], learned[seen]
    chosen = draw.integers(0, 4, len(quality))
    settings = {"alpha": 0.4, "normalisation": how}
    found = measured(
        pool=list("abcd"), ids=[str(n) for n in range(len(quality))], chosen=chosen, quality=quality,
        learnability=learned, settings=settings, cost=None,
    )  # fmt: skip
    scaled = normalise(quality, how), normalise(learned, how)
    before = route(combine(*scaled, 0.4), stay=chosen).teacher
    assert whatif.by_recipe(found).teacher.tolist() == before.tolist()
    for alpha in (0.0, 0.15, 0.55, 0.75, 1.0):  # at 0.5 z-scores cancel, and rounding is all that `combine` sees
        reward = combine(*scaled, alpha)
        now = whatif.choices(found, alpha, how)
        assert now.teacher.tolist() == route(reward, stay=before).teacher.tolist()
        assert now.tied.tolist() == several_best(reward).tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("how", ["minmax", "zscore", "rank", "none"])
def test_rows_of_a_store_are_what_the_stages_compute(
    database: Database, persyn: Stored, alpha: float, how: Any
) -> None:
    found = whatif.what_if(load(database, persyn), alpha, how)
    rows = [row for row in rewards() if row["quality_raw"] is not None]  # of these, both are measured
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    made = recombine(columns, alpha, how)
    order, matrix = to_matrix(columns["prompt_id"], columns["teacher"], made["reward"], POOL)
    here = to_matrix(columns["prompt_id"], columns["teacher"], recombine(columns, 0.4, "minmax")["reward"], POOL)[1]
    chosen = dict(database.rows(f"SELECT prompt_id, teacher FROM {database.view(persyn)}"))
    before = route(here, stay=[POOL.index(chosen[one]) for one in order]).teacher
    teacher = route(matrix, stay=before).teacher
    assert (found.moved, found.tied) == pytest.approx(((teacher != before).mean(), several_best(matrix).mean()))
    assert found.shares.tolist() == pytest.approx(allocation(teacher, len(POOL)).tolist())
    _, quality = to_matrix(columns["prompt_id"], columns["teacher"], columns["quality_raw"], POOL)
    assert found.quality == pytest.approx(quality[np.arange(len(order)), teacher].mean())


def test_a_weight_of_cost_moves_prompts_to_the_cheap(database: Database, persyn: Stored) -> None:
    found = load(database, persyn)
    assert found.unit == "FLOPs" and found.cost is not None
    assert found.cost.tolist() == pytest.approx([1e9, 2e9, 3e9])
    outcomes = [whatif.what_if(found, 0.4, weight=weight) for weight in (0.0, 0.3, 10.0)]
    assert outcomes[0].cost > outcomes[1].cost > outcomes[2].cost  # type: ignore[operator]
    cheapest = [row for row in rewards() if row["teacher"] == "small" and row["quality_raw"] is not None]
    assert outcomes[2].shares[0] == pytest.approx(len(cheapest) / NUMBER, abs=0.02)
    sweep = whatif.curve(found)
    assert list(sweep) == list(whatif.ALPHAS) and {0.01, 0.99} < set(sweep)
    assert sweep[0.4].shares.tolist() == outcomes[0].shares.tolist()


def test_a_sample_is_of_whole_prompts_of_the_assignment(database: Database, persyn: Stored) -> None:
    found = load(database, persyn, sample=20)
    assert (len(found.quality), found.prompts, found.drawn) == (20, NUMBER, 20)
    rows = [row for row in rewards() if row["quality_raw"] is not None]
    first = sorted({row["prompt_id"] for row in rewards()})[:20]
    columns = [[row[name] for row in rows if row["prompt_id"] in first] for name in ("prompt_id", "teacher")]
    values = [row["quality_raw"] for row in rows if row["prompt_id"] in first]
    order, quality = to_matrix(*columns, values, POOL)
    np.testing.assert_array_equal(found.quality, quality[np.argsort(order)])
    assert found.ids == sorted(order)
    assert load(database, persyn, split="pool").prompts == sum(row["split"] == "pool" for row in prompts())
    desk = example()  # whose rewards are of dev prompts, too, which no assignment holds
    stored = desk.shelf.get("tiny/example-assignments-qwen-student-persyn@v1")
    assert load(desk.database, stored).prompts == sum(stored.manifest.rows["default"].values())


def test_nothing_measured_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store, scored=["calibration"])
    shelf = open_shelf([], store)
    with pytest.raises(
        InputError, match="no cell of org/rewards-s@v1 has both its quality and its learnability for a pool"
    ):
        load(Database(shelf), shelf.get("org/assignments-s-persyn@v1"), "pool")


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("where", ["sample", "example"])
def test_every_count_is_the_length_of_its_list(database: Database, where: str, asked: str) -> None:
    desk = Desk(database.shelf) if where == "sample" else example()
    shown = view(desk, f"view=whatif&{asked}")
    found = counted(desk, shown)
    moved = [pair for address, pair in found.items() if "moved=moved" in address]
    assert moved or "No prompt moves" in shown
    assert [pair for pair in found.values() if pair[0] != pair[1]] == []
    pairs = [pair[0] for address, pair in found.items() if "was=" in address and "becomes=" in address]
    assert sum(pairs) == max((pair[0] for pair in moved), default=0)


def test_the_segments_lead_to_their_prompts(database: Database) -> None:
    desk = Desk(database.shelf)
    shown = view(desk, "view=whatif&split=all&alpha=0.9")
    found = load(database, database.shelf.get("org/assignments-s-persyn@v1"))
    for words, choice in (
        ("best by the recipe's weights", whatif.by_recipe(found)),
        ("best by these weights", whatif.choices(found, 0.9)),
    ):
        stack = shown.split(f'aria-label="Shares, {words.replace(chr(39), "&#39;")}"')[1].split("</div>")[0]
        for address, name, share in re.findall(r'href="([^"]+)" title="(\w+) ([\d.]+)%', stack):
            assert total(desk, address) == (choice.teacher == POOL.index(name)).sum()
            assert float(share) == pytest.approx(100 * (choice.teacher == POOL.index(name)).mean(), abs=0.05)


def test_a_sample_is_named_where_it_is_counted_and_where_it_is_listed(database: Database, persyn: Stored) -> None:
    desk, part = Desk(database.shelf), load(database, persyn, sample=20)
    state, _ = desk.read(parse_qs("view=whatif&split=all&alpha=1"))
    shown = views.whatif.show(replace(desk.scene(state), load=lambda: part))
    assert "Computed on a sample: 20 of 60 measured prompts" in shown
    address, words = re.findall(r'<a href="\?([^"]*moved=moved[^"]*)"><strong>(\d+) of 20 prompts', shown)[0]
    state, _ = desk.read(parse_qs(address.replace("&amp;", "&")))
    listed = views.prompts.show(replace(desk.scene(state), load=lambda: part))
    assert f"<b>{words}</b> prompts</span>" in listed and "20 of 60 measured prompts, drawn by their ids" in listed


def test_one_teacher_has_no_empty_pictures(tmp_path: Path) -> None:
    fill(Store(tmp_path / "store"), teachers=[{"name": "small", "family": "a", "params_b": 1.0}])
    desk = Desk(open_shelf([], Store(tmp_path / "store")))
    for name, words in (
        ("whatif", "Nothing would change"),
        ("map", "There is no map"),
        ("router", "Nothing was to be chosen"),
    ):
        shown = view(desk, f"view={name}")
        assert words in shown and "<svg" not in shown and "<table" not in shown


def test_what_the_view_says(database: Database) -> None:
    desk = Desk(database.shelf)
    shown = view(desk, "view=whatif&split=all&alpha=0.4")
    assert "They are not the router" in shown and "recipe&#39;s own weights" not in shown.split("<h1>")[0]
    assert "no prompt moves" in shown and "moved=moved" not in shown
    assert row(view(desk, "view=whatif&split=all&alpha=0.9"), "alpha") == ["alpha", "0.9", "0.4", "0.4"]


def test_labels_keep_what_tells_names_apart() -> None:
    names = [f"FuseChat-{size}-Instruct" for size in ("Gemma-2-9B", "Llama-3.1-8B", "Llama-3.2-3B", "Qwen-2.5-7B")]
    found = flow.labels([*names, "gemma-2b-it", "Mixtral-8x7B-Instruct-v0.1_concise"], 14)
    assert [found[name] for name in names] == ["…t-Gemma-2-9B…", "…-Llama-3.1-8…", "…-Llama-3.2-3…", "…-Qwen-2.5-7B…"]
    assert found["gemma-2b-it"] == "gemma-2b-it"
    assert found["Mixtral-8x7B-Instruct-v0.1_concise"] == "Mixtral…oncise"


@given(st.lists(st.text("ab-", min_size=1, max_size=40), unique=True, max_size=8))
def test_labels_are_short_and_one_for_each_name(names: list[str]) -> None:
    found = flow.labels(names, 14)
    assert set(found) == set(names)
    assert all(len(label) <= 14 for label in found.values())


def test_a_flow_by_hand() -> None:
    found = flow.flow(np.array([[1, 0, 1], [1, 0, 1], [0, 0, 0]]))
    height = found["height"]
    assert [(part.teacher, part.prompts) for part in found["before"]] == [(0, 2), (1, 2)]
    assert [(part.teacher, part.prompts) for part in found["after"]] == [(0, 2), (2, 2)]
    assert [part.height for part in found["before"]] == [(height - flow.GAP) / 2] * 2
    assert [(r.was, r.becomes, r.prompts) for r in found["ribbons"]] == [(0, 0, 1), (0, 2, 1), (1, 0, 1), (1, 2, 1)]


def test_labels_of_many_teachers_do_not_touch() -> None:
    counts = np.diag([1000, *[1] * 18])
    found = flow.flow(counts)
    labels = [part.label for part in found["before"]]
    assert min(np.diff(labels)) >= flow.LINE - 1e-9 and labels[0] >= 0 and labels[-1] <= found["height"]
    ends = [part.top + part.height for part in found["before"]]
    assert ends[-1] == pytest.approx(found["height"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.934, 1.0], [0.92, 0.94, 0.96, 0.98, 1.0]),
        ([-0.086, -0.0778], [-0.0875, -0.085, -0.0825, -0.08, -0.0775]),
        ([0.0, 0.0], [0.0, 0.25]),
        ([1.0, 1.0], [1.0, 1.25]),
        ([-1.2, 1.0], [-2.0, -1.0, 0.0, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose(values: list[float], expected: list[float]) -> None:
    assert flow.ticks(values) == expected
