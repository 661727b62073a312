"""`assign` of a calibration in part, and `train_router` where a teacher joins."""

import numpy as np
import pytest
from rows import prompt, response, reward

from persyn_hf.backends.routers import load
from persyn_hf.errors import InputError
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import assign, train_router


POOL = ("adds", "rhymes", "weak", "weaker")
WORDS = ("sum of two numbers", "verse about the moon")


def prompts(calibration=120, dev=30):
    rows = [
        prompt(f"{WORDS[n % 2]} {n}", f"{n:04d}", split="calibration" if n < calibration else "dev")
        for n in range(calibration + dev)
    ]
    return PROMPTS.dataset(rows)


def rewards_of(asked, seed=0):
    """Of the cells that an assignment names: one teacher is best at sums, one at verses, two are poor."""
    rng = np.random.default_rng(seed)
    rows = []
    for prompt_id, teacher, split in zip(asked["prompt_id"], asked["teacher"], asked["split"], strict=True):
        best = (0.9, 0.4, 0.1, 0.0) if int(prompt_id) % 2 == 0 else (0.4, 0.9, 0.1, 0.0)
        value = best[POOL.index(teacher)] + rng.normal() * 0.02
        rows.append(reward(prompt_id, teacher, value, split=split))
    return REWARDS.dataset(rows)


def context(folder, pool=POOL):
    return Context(seed=3, work_dir=folder, teachers=tuple(Teacher(name=name) for name in pool))


def ask(folder, round, asked=None, last=False, given=None, **calibration):
    folder.mkdir(exist_ok=True)
    given = dict(given or {}) | ({} if asked is None else {"base": asked, "rewards": rewards_of(asked)})
    splits = ("calibration", "dev") if last else ("calibration",)
    settings = assign.Settings(kind="all", labelling=Calibration(**calibration), round=round, splits=splits)
    return assign.run(settings, context(folder), prompts=prompts(), **given)


def cells(asked):
    return set(zip(asked["prompt_id"], asked["teacher"], strict=True))


@pytest.mark.parametrize("strategy", ["successive_halving", "uncertainty"])
def test_rounds_add_to_what_is_paid_for_and_spend_the_share_on_the_good_teachers(strategy, tmp_path):
    asked, found = None, []
    for round in (1, 2, 3):
        result = ask(tmp_path / str(round), round, asked, last=round == 3, strategy=strategy)
        asked = result.data
        found.append(result)
    first, second, third = (cells(result.data) for result in found)
    assert first < second < third
    labelled = found[-1].metrics["labelling"]
    assert 0.38 <= labelled["share"] <= 0.4
    assert min(labelled["cells"][name] for name in POOL[:2]) > 1.8 * max(labelled["cells"][name] for name in POOL[2:])
    assert sum(labelled["cells"].values()) == len(third) - 30 * len(POOL)
    dev = [split for split in asked["split"] if split == "dev"]
    assert len(dev) == 30 * len(POOL) and set(asked["source"]) == {"rule"}


def test_the_same_seed_asks_for_the_same_cells(tmp_path):
    first, again = (ask(tmp_path / name, 1, strategy="uncertainty").data[:] for name in "ab")
    assert first == again


def test_anchors_limit_one_teacher_only(tmp_path):
    found = ask(tmp_path, 1, last=True, anchors={"weak": 50})
    assert found.metrics["labelling"]["cells"] == {"adds": 120, "rhymes": 120, "weak": 50, "weaker": 120}


TOKENS = {"adds": 100, "rhymes": 100, "weak": 1000, "weaker": 20}


def answers_to(asked, **of_first):
    """Two answers per cell, of each teacher's own length."""
    rows = [
        response(prompt_id, teacher, sample_index=n, split=split, num_tokens=TOKENS[teacher], selected=n == 0)
        for prompt_id, teacher, split in zip(asked["prompt_id"], asked["teacher"], asked["split"], strict=True)
        for n in (0, 1)
    ]
    rows[0] |= of_first
    return RESPONSES.dataset(rows)


@pytest.mark.parametrize("strategy", ["successive_halving", "uncertainty"])
@pytest.mark.parametrize("of_first", [{}, {"status": "error", "num_tokens": 0, "num_prompt_tokens": None}])
def test_a_budget_in_tokens_is_kept_and_goes_to_the_good_teachers(strategy, of_first, tmp_path):
    asked, spent = None, []
    for round in (1, 2, 3):
        given = {} if asked is None else {"calibration": answers_to(asked, **of_first)}
        budget = {"cost": "tokens", "total": 60_000}
        result = ask(tmp_path / str(round), round, asked, given=given, strategy=strategy, budget=budget)
        asked, cells = result.data, result.metrics["labelling"]["cells"]
        spent.append(sum(2 * TOKENS[name] * cells[name] for name in POOL))
        if round == 1:
            assert set(cells.values()) == {10}
    assert spent[0] == 24_400 and spent[0] < spent[1] < spent[2]
    assert 59_000 < spent[2] <= 60_000 + 200
    assert cells["weak"] == 10 and min(cells["adds"], cells["rhymes"]) > 60


def test_a_budget_that_covers_dev_keeps_what_dev_takes(tmp_path):
    """Two answers a cell: 30 dev prompts of four teachers take 240. Of 700 answers they leave 460: 230 cells."""
    for total, paid in ((300, 40), (700, 230)):
        asked, folder = None, tmp_path / str(total)
        folder.mkdir()
        for round in (1, 2, 3):
            given = {} if asked is None else {"calibration": answers_to(asked)}
            budget = {"cost": "generations", "total": total, "covers_dev": True}
            found = ask(folder / str(round), round, asked, given=given, strategy="uncertainty", budget=budget)
            asked = found.data
        assert paid - 2 <= sum(found.metrics["labelling"]["cells"].values()) <= paid


def test_a_budget_that_the_first_round_has_used_up_asks_no_more(tmp_path):
    small = {"strategy": "uncertainty", "budget": {"cost": "generations", "total": 10}}
    first = ask(tmp_path / "1", 1, **small).data
    again = ask(tmp_path / "2", 2, first, given={"calibration": answers_to(first)}, **small)
    assert cells(again.data) == cells(first)


def test_a_budget_needs_answers_to_count_by(tmp_path):
    first = ask(tmp_path / "1", 1, strategy="uncertainty", budget={"cost": "tokens", "total": 10}).data
    uncounted = {"calibration": answers_to(first, num_tokens=None)}
    with pytest.raises(InputError, match="a budget in tokens needs the tokens of every answer, the server of"):
        ask(tmp_path / "2", 2, first, given=uncounted, strategy="uncertainty", budget={"cost": "tokens", "total": 10})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "full", "budget": {"cost": "tokens", "total": 5}}, "the strategy full knows no `budget`"),
        (
            {"strategy": "uncertainty", "share": 0.3, "budget": {"cost": "tokens", "total": 5}},
            "`share` and `budget` both say how much is paid for",
        ),
        ({"strategy": "uncertainty", "budget": {"cost": "euros", "total": 5}}, "generations"),
        ({"strategy": "uncertainty", "budget": {"cost": "tokens", "total": 0}}, "greater than 0"),
        ({"strategy": "uncertainty", "budget": {"cost": "tokens"}}, "total"),
    ],
)
def test_a_budget_that_says_nothing_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**given)


def test_a_share_too_small_to_choose_by_is_refused(tmp_path):
    with pytest.raises(InputError) as fault:
        ask(tmp_path, 1, strategy="successive_halving", share=0.2)
    assert str(fault.value) == (
        "`calibration.share` 0.2 of 120 calibration prompts and 4 teachers pays for 32 cells in the first of 3 "
        "rounds, at least 40 are needed; raise `share` or `prompts.calibration`, or lower `rounds`"
    )


def rounds_of(folder, rewarded, pool=200, **calibration):
    """Three rounds over 120 calibration prompts and a pool; the cells and what each round found before it."""
    rows = prompts(120, 0)[:]["prompt_id"]
    given = [prompt(f"{WORDS[n % 2]} {n}", f"{n:04d}", split="calibration") for n in range(len(rows))]
    given += [prompt(f"{WORDS[n % 2]} {n}", f"{n:04d}", split="pool") for n in range(1000, 1000 + pool)]
    asked, more, found = None, {}, []
    for round in (1, 2, 3):
        settings = assign.Settings(
            kind="all", labelling=Calibration(**calibration), round=round, splits=("calibration",)
        )
        at = folder / str(round)
        at.mkdir()
        result = assign.run(settings, context(at), prompts=PROMPTS.dataset(given), **more)
        asked = result.data
        more = {"base": asked, "rewards": rewarded(asked)}
        found.append((len(asked), result.metrics["labelling"].get("ahead", {})))
    return found


def one_wins(asked):
    """The first teacher has 0.9 on every prompt, all others 0.2."""
    columns = zip(asked["prompt_id"], asked["teacher"], strict=True)
    return REWARDS.dataset(
        [reward(prompt_id, name, 0.9 if name == POOL[0] else 0.2, split="calibration") for prompt_id, name in columns]
    )


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["whole_prompts", "successive_halving", "uncertainty"])
def test_calibration_ends_where_one_teacher_wins_and_goes_on_where_words_tell(strategy, tmp_path):
    part = {"strategy": strategy, "share": 0.9, "stop": "gain"}
    for name in ("one", "two", "never"):
        (tmp_path / name).mkdir()
    (first, none), (second, ahead), (third, again) = rounds_of(tmp_path / "one", one_wins, **part)
    assert first == second == third and none == {}
    assert ahead == again and ahead["stop"] and ahead["gain"]["value"] == 0 and ahead["pool"] == 200
    assert ahead["per_cell"] == pytest.approx(ahead["gain"]["high"] * 200 / first) and ahead["per_cell"] < 0.05
    (first, _), (second, ahead), (third, again) = rounds_of(tmp_path / "two", rewards_of, **part)
    assert first < second < third and not ahead["stop"] and not again["stop"] and ahead["per_cell"] > 0.05
    never = rounds_of(tmp_path / "never", one_wins, strategy=strategy, share=0.9)
    assert never[0][0] < never[1][0] < never[2][0] and never[1][1] == {}


def test_whole_prompts_are_asked_of_every_teacher(tmp_path):
    asked = None
    for round in (1, 2, 3):
        result = ask(tmp_path / str(round), round, asked, strategy="whole_prompts", share=0.5)
        asked = result.data
    assert result.metrics["labelling"] == {"cells": dict.fromkeys(POOL, 60), "prompts": 60, "share": 0.5}


def test_a_stop_without_a_pool_or_a_price_without_a_stop_is_refused(tmp_path):
    with pytest.raises(InputError) as fault:
        ask(tmp_path, 1, strategy="uncertainty", stop="gain")
    assert str(fault.value) == (
        "`calibration.stop: gain` weighs what a router gains on the pool's prompts, found none; raise "
        "`prompts.pool`, or leave `stop` out"
    )
    with pytest.raises(ValueError, match="`price` is what ends calibration with `stop: gain`; set that, or leave"):
        Calibration(strategy="uncertainty", price=0.1)
    with pytest.raises(ValueError, match="the strategy full knows no `stop`"):
        Calibration(stop="gain")


def train(folder, pool, asked, base=None, kind="ridge"):
    kept = asked.filter(lambda row: row["teacher"] in pool)
    settings = train_router.Settings(kind=kind, extend=None if base is None else "local/x@v1")
    given = {} if base is None else {"base": base}
    return train_router.run(settings, context(folder, pool), prompts=prompts(), rewards=rewards_of(kept), **given)


@pytest.mark.parametrize("strategy", ["successive_halving", "uncertainty"])
@pytest.mark.parametrize("kind", ["ridge", "knn", "logistic"])
def test_two_fifths_of_the_labels_close_the_gap_as_all_do(strategy, kind, tmp_path):
    asked = None
    for round in (1, 2, 3):
        asked = ask(tmp_path / str(round), round, asked, last=round == 3, strategy=strategy).data
    part = train(tmp_path / "part", POOL, asked, kind=kind)
    full = train(tmp_path / "full", POOL, ask(tmp_path, 1, last=True, anchors={"weak": 120}).data, kind=kind)
    closed = [found.metrics["router"]["gap_closed"]["value"] for found in (part, full)]
    assert closed[1] > 0.95 and closed[0] > closed[1] - 0.05


def test_a_teacher_joins_and_the_router_is_judged_on_dev_as_any_other(tmp_path):
    asked = ask(tmp_path, 1, last=True, anchors={"rhymes": 60}).data
    before = train(tmp_path / "old", (POOL[0], *POOL[2:]), asked)
    after = train(tmp_path / "new", POOL, asked, base=before.data)
    assert after.metrics["router"]["gap_closed"]["value"] > 0.9
    assert after.metrics["training"]["joined"] == {"rhymes": 60}
    asked_of = [row["messages"] for row in prompts()]
    old, new = load(before.data).scores(asked_of), load(after.data).scores(asked_of)
    assert (old == new[:, [0, 2, 3]]).all()
