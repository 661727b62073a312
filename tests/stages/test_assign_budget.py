"""Stage `assign`: many prompts in chunks, budgets, and how sure the router is."""

import numpy as np
import pytest
from datasets import Dataset
from rows import prompt, response, reward

from persyn_hf.backends.routers import Labelled, RouterSettings, fit
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Price, Teacher
from persyn_hf.recipe.strategies import Strategy
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import assign
from persyn_hf.stages.assign import routing, rows
from persyn_hf.stages.assign.cell_costs import cell_costs


TEACHERS = (
    Teacher(name="big", params_b=70, price=Price(completion=8)),
    Teacher(name="middle", params_b=7, price=Price(completion=1)),
    Teacher(name="small", params_b=1, price=Price(completion=0)),
)
POOL = [teacher.name for teacher in TEACHERS]
TOPICS = ("algebra", "cooking", "history")
# topic -> reward of each teacher: the big one is best at two, by little at history
WORTH = {"algebra": (0.9, 0.4, 0.1), "cooking": (0.2, 0.3, 0.8), "history": (0.6, 0.55, 0.2)}
NUMBERS = {"calibration": 60, "dev": 60, "pool": 96}


def topic_of(number: int) -> str:
    return TOPICS[number // 3 % 3]


@pytest.fixture(scope="module")
def prompts() -> Dataset:
    """Splits in turns, so that no chunk holds one alone."""
    left, data, number = dict(NUMBERS), [], 0
    while any(left.values()):
        for split in [split for split, count in left.items() if count]:
            left[split] -= 1
            topic = topic_of(number)
            text = f"a question of {topic}, number {number}"
            data.append(prompt(text, f"{number:04d}", topic=topic, split=split))
            number += 1
    return PROMPTS.dataset(data)


@pytest.fixture(scope="module")
def rewards(prompts) -> Dataset:
    rng = np.random.default_rng(0)
    data = [
        reward(row["prompt_id"], teacher, float(worth + rng.normal(0, 0.1)), split=row["split"])
        for row in prompts
        if row["split"] != "pool"
        for teacher, worth in zip(POOL, WORTH[row["topic"]], strict=True)
    ]
    return REWARDS.dataset(data)


@pytest.fixture(scope="module")
def calibration(prompts) -> Dataset:
    """Two answers each: 100, 200 and 50 tokens to prompts of 10; the dev answers, of 9999 tokens, do not count."""
    data = [
        response(
            row["prompt_id"],
            teacher,
            sample_index=sample,
            num_prompt_tokens=10,
            num_tokens=tokens if row["split"] == "calibration" else 9999,
            selected=sample == 0,
            split=row["split"],
        )
        for row in prompts
        if row["split"] != "pool"
        for teacher, tokens in zip(POOL, (100, 200, 50), strict=True)
        for sample in range(2)
    ]
    return RESPONSES.dataset(data)


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    texts = [[{"role": "user", "content": f"a question of {topic_of(n)}, number {n}"}] for n in range(60)]
    matrix = np.array([WORTH[topic_of(n)] for n in range(60)])
    folder = tmp_path_factory.mktemp("router")
    fit(RouterSettings(kind="ridge"), POOL, Labelled(texts, matrix), Labelled([], np.zeros((0, 3))), folder, seed=0)
    return folder


def run(tmp_path, prompts, kind="persyn", seed=0, teachers=TEACHERS, **given):
    inputs = {key: given.pop(key) for key in ("rewards", "router", "base", "calibration") if key in given}
    settings = read_section(assign.Settings, {"kind": kind, **given}, "assign")
    tmp_path.mkdir(exist_ok=True)
    found = assign.run(settings, Context(seed=seed, work_dir=tmp_path, teachers=teachers), prompts=prompts, **inputs)
    ASSIGNMENTS.check(found.data, "assignments")
    return found


def of_pool(found) -> list[str]:
    return [row["teacher"] for row in found.data if row["split"] == "pool"]


@pytest.mark.parametrize("kind", ["all", "mix", "persyn", "reassign"])
def test_the_size_of_the_chunks_does_not_matter(tmp_path, monkeypatch, prompts, rewards, router, kind):
    given = {"rewards": rewards, "router": router} if kind == "persyn" else {}
    if kind == "reassign":
        base = run(tmp_path / "base", prompts, rewards=rewards, router=router)
        given = {"base": base.data, "to_teacher": "middle", "from_teachers": ["big"]}
    whole = run(tmp_path / "whole", prompts, kind, **given)
    monkeypatch.setattr(rows, "CHUNK", 7)
    monkeypatch.setattr(routing, "CHUNK", 7)
    monkeypatch.setattr(rows.chunks, "__defaults__", (7,))
    parts = run(tmp_path / "parts", prompts, kind, **given)
    assert parts.data[:] == whole.data[:]
    assert (parts.metrics, parts.counts) == (whole.metrics, whole.counts)
    wanted = ("calibration", "dev" if kind == "all" else "pool")
    ids = [row["prompt_id"] for row in prompts if row["split"] in wanted]
    assert list(dict.fromkeys(whole.data["prompt_id"][:])) == ids, "in prompt order"


def test_how_sure_the_router_is(tmp_path, prompts, rewards, router):
    """History is a matter of luck between two teachers, the other topics are not."""
    found = run(tmp_path, prompts, rewards=rewards, router=router)
    topic = dict(zip(prompts["prompt_id"], prompts["topic"], strict=True))
    sure = {name: [] for name in TOPICS}
    for row in found.data:
        assert (row["confidence"] is None) == (row["source"] == "oracle")
        if row["source"] == "router":
            sure[topic[row["prompt_id"]]].append(row["confidence"])
    assert min(sure["algebra"]) > 0.9 and min(sure["cooking"]) > 0.9 and 0.4 < np.mean(sure["history"]) < 0.8
    report = found.metrics["confidence"]
    assert report["dev_prompts"] == 60 and report["ece"] < 0.2 < report["ece_softmax"]


def test_without_measured_dev_prompts_nothing_is_said(tmp_path, prompts, rewards, router):
    few = rewards.filter(lambda row: row["split"] == "calibration")
    found = run(tmp_path, prompts, rewards=few, router=router)
    assert found.data["confidence"][:] == [None] * 156 and found.metrics["confidence"] == {"dev_prompts": 0}
    with pytest.raises(InputError) as caught:
        run(tmp_path, prompts, rewards=few, router=router, confidence=0.9, per_prompt=2)
    assert str(caught.value) == (
        "`confidence` needs measured dev prompts, found 0, 20 are needed; "
        "raise `prompts.dev`, or leave `confidence` out"
    )


def test_only_where_it_is_unsure_are_more_teachers_asked(tmp_path, prompts, rewards, router):
    found = run(tmp_path, prompts, rewards=rewards, router=router, per_prompt=2, confidence=0.85)
    topic = dict(zip(prompts["prompt_id"], prompts["topic"], strict=True))
    asked = {name: set() for name in TOPICS}
    for row in found.data:
        if row["source"] == "router":
            asked[topic[row["prompt_id"]]].add(row["teacher"])
    assert asked == {"algebra": {"big"}, "cooking": {"small"}, "history": {"big", "middle"}}
    assert found.counts == {"router": 32 + 32 + 64, "oracle": 60, "rule": 0}


def test_shares_of_the_pool(tmp_path, prompts, rewards, router):
    """The router gives `big` 64 of 96; at most 40 % are 38. Those that lose least move: history, to `middle`."""
    assert of_pool(run(tmp_path, prompts, rewards=rewards, router=router)).count("big") == 64
    budget = {"max": {"big": 0.4}}
    found = run(tmp_path, prompts, rewards=rewards, router=router, budget=budget)
    topic = dict(zip(prompts["prompt_id"], prompts["topic"], strict=True))
    moved = [row for row in found.data if row["split"] == "pool" and row["teacher"] == "middle"]
    assert of_pool(found).count("big") == 38 and len(moved) == 26
    assert {topic[row["prompt_id"]] for row in moved} == {"history"}
    assert {row["confidence"] for row in moved} == {None} and {row["source"] for row in moved} == {"router"}
    report = found.metrics["budget"]
    assert report["prompts"] == 96 and report["gap"] == 0 and "frontier" not in found.metrics
    assert 0 < report["without_budget"] - report["predicted_reward"] < 0.05
    calibration_rows = [row["source"] for row in found.data if row["split"] == "calibration"]
    assert set(calibration_rows) == {"oracle"}, "measured prompts are paid for and stay"


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ("generations", (2, 2, 2)),
        ("tokens", (200, 400, 100)),
        ("flops", (2 * 70e9 * 220, 2 * 7e9 * 420, 2 * 1e9 * 120)),
        ("money", (200 * 8e-6, 400e-6, 0)),
    ],
)
def test_what_a_prompt_costs(tmp_path, prompts, rewards, router, calibration, cost, expected):
    given = {"rewards": rewards, "router": router, "calibration": calibration}
    free = run(tmp_path, prompts, budget={"cost": cost}, **given)
    counts = [of_pool(free).count(name) for name in POOL]
    assert free.metrics["budget"]["cost"] == pytest.approx(np.dot(counts, expected))
    points = list(free.metrics["frontier"].values())
    assert len(points) == 1 if cost == "generations" else len(points) > 5
    if cost == "generations":
        return
    total = (free.metrics["budget"]["cost"] + len(of_pool(free)) * min(expected)) / 2
    half = run(tmp_path, prompts, budget={"cost": cost, "total": total}, **given).metrics["budget"]
    assert half["cost"] <= total and half["predicted_reward"] < half["without_budget"]
    price = half["price"]
    dear = run(tmp_path, prompts, budget={"cost": cost, "lambda": 1e3 * price}, **given)
    assert set(of_pool(dear)) == {"small"}


@pytest.mark.parametrize("cost", ["flops", "money"])
def test_an_answer_that_failed_costs_nothing_and_hides_no_cost(calibration, cost):
    """A server counts no prompt tokens of an answer that did not come."""
    of_big = [n for n, row in enumerate(calibration) if (row["teacher"], row["split"]) == ("big", "calibration")]
    failed = {"status": "error", "finish_reason": "error", "num_tokens": 0, "num_prompt_tokens": None}
    rows = [row | failed if n == of_big[0] else row for n, row in enumerate(calibration)]
    whole, found = (cell_costs(cost, TEACHERS, data) for data in (calibration, RESPONSES.dataset(rows)))
    assert found[0] == pytest.approx(whole[0] * (1 - 1 / len(of_big))) and (found[1:] == whole[1:]).all()
    rows[of_big[1]] = rows[of_big[1]] | {"num_tokens": None, "num_prompt_tokens": None}
    with pytest.raises(InputError, match="the server of `big` has not counted all of them"):
        cell_costs(cost, TEACHERS, RESPONSES.dataset(rows))


def test_budgets_that_cannot_be(tmp_path, prompts, rewards, router, calibration):
    given = {"rewards": rewards, "router": router}
    for budget, message in (
        ({"min": {"bigg": 0.1}}, "`budget` names the teacher `bigg`, did you mean `big`? (known: big, middle, small)"),
        (
            {"cost": "flops"},
            "a budget in flops needs the input `calibration`, the teachers' answers to the calibration prompts, "
            "got none; add it to `inputs`",
        ),
    ):
        with pytest.raises(RecipeError) as caught:
            run(tmp_path, prompts, budget=budget, **given)
        assert str(caught.value) == message
    free = (Teacher(name="big"), *TEACHERS[1:])
    for cost, needed in (("flops", "`params_b`"), ("money", "a `price` per token")):
        with pytest.raises(RecipeError) as caught:
            run(tmp_path, prompts, budget={"cost": cost}, calibration=calibration, teachers=free, **given)
        assert str(caught.value) == f"a budget in {cost} needs {needed} of every teacher, `big` has none"
    with pytest.raises(RecipeError, match="a `budget` gives each prompt one teacher, found `per_prompt` 2; leave one"):
        run(tmp_path, prompts, budget={}, per_prompt=2, **given)
    with pytest.raises(RecipeError, match="`total` and `lambda` need a `cost`, found none; set generations, tokens, "):
        run(tmp_path, prompts, budget={"lambda": 0.1}, **given)


def test_how_strategies_say_it():
    named = [
        ({"kind": "persyn", "budget": {"max": {"big": 0.5}}}, "persyn-budget"),
        ({"kind": "persyn", "budget": {"cost": "flops", "lambda": 0.1}, "name": "cheap"}, "cheap"),
        ({"kind": "persyn", "per_prompt": 3, "confidence": 0.9}, "persyn-top3-sure0.9"),
    ]
    for given, name in named:
        assert Strategy.model_validate(given).name == name
    for budget, message in (
        (
            {"min": {"big": 0.7, "small": 0.7}},
            "strategy.budget: the shares of `min` must sum to 1 at most, got 1.4; lower one",
        ),
        ({"max": {"big": 1.5}}, "strategy.budget: `max` of `big` must be a share from 0 to 1, got 1.5"),
        (
            {"min": {"big": 0.5}, "max": {"big": 0.4}},
            "strategy.budget: `min` of `big` is 0.5, above its `max` 0.4",
        ),
        (
            {"totl": 3},
            "strategy.budget: unknown key `totl`, did you mean `total`? (known: min, max, cost, total, lambda)",
        ),
    ):
        with pytest.raises(RecipeError) as caught:
            read_section(Strategy, {"kind": "persyn", "budget": budget}, "strategy")
        assert str(caught.value) == message
