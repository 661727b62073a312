"""Stage `train_router`: what it trains on, what it keeps for dev, and what it says of too little."""

import json

import pytest
from datasets import Dataset
from rows import prompt, reward

from persyn_hf.backends.routers import load
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, REWARDS
from persyn_hf.stage import Context, Silent
from persyn_hf.stages import train_router
from persyn_hf.store.cards.markdown import sections


POOL = ("adds", "rhymes")
WORDS = ("sum of two numbers", "verse about the moon")


def data(calibration: int, dev: int, measured: bool = True) -> tuple[Dataset, Dataset]:
    """Prompts of two topics in turn; the teacher of the topic has quality 1, the other the better learnability."""
    asked, scored = [], []
    for index in range(calibration + dev + 2):
        name = f"{index:04d}"
        split = "calibration" if index < calibration else "dev" if index < calibration + dev else "pool"
        asked.append(prompt(f"{WORDS[index % 2]} {index}", name, split=split))
        for place, teacher in enumerate(POOL if split != "pool" else ()):
            quality = float(place == index % 2)
            value = 0.6 * quality + 0.4 * (1 - quality) if measured else None
            parts = {"quality_reward": quality, "learnability_reward": 1 - quality}
            scored.append(reward(name, teacher, value, split=split, **parts))
    return PROMPTS.dataset(asked), REWARDS.dataset(scored)


def train(tmp_path, calibration=60, dev=20, measured=True, **settings):
    prompts, rewards = data(calibration, dev, measured)
    context = Context(seed=3, work_dir=tmp_path, teachers=tuple(Teacher(name=name) for name in POOL))
    values = {"kind": "logistic", **settings}
    return train_router.run(
        read_section(train_router.Settings, values, "train_router"), context, prompts=prompts, rewards=rewards
    )


def test_router_is_judged_on_dev_beside_its_baselines(tmp_path):
    found = train(tmp_path)
    assert found.counts == {
        "prompts_without_pairs": 0,
        "missing_cells": 0,
        "train_prompts": 51,
        "validation_prompts": 9,
        "dev_prompts": 20,
    }
    assert found.metrics["router"]["gap_closed"]["value"] == pytest.approx(1.0)
    assert found.metrics["random"]["hit_at_1"]["value"] == pytest.approx(0.5)
    assert found.metrics["global_best"]["gap_closed"]["value"] == 0
    assert found.metrics["oracle"]["reward"]["value"] == pytest.approx(0.6)
    assert found.metrics["allocation"]["router"] == {"adds": 0.5, "rhymes": 0.5}
    assert found.data == tmp_path / "router" and load(found.data).teachers == POOL
    assert json.loads(json.dumps(found.metrics)) == found.metrics


def test_rewards_are_no_log_odds_so_they_have_no_calibration_error(tmp_path):
    by_kind = {kind: train(tmp_path / kind, kind=kind).metrics for kind in ("logistic", "knn")}
    assert by_kind["logistic"]["router"]["calibration_error"]["value"] < 0.2
    assert by_kind["knn"]["router"]["calibration_error"] == {"value": None, "low": None, "high": None}
    assert [by_kind[kind]["training"]["scale"] for kind in by_kind] == ["log_odds", "reward"]


def test_auto_chooses_by_dev_and_says_so_on_the_card(tmp_path):
    found = train(tmp_path, kind="auto", candidates=["knn", "global_best"])
    training = found.metrics["training"]
    assert training["chosen"] == "knn over tfidf"
    regrets = {one["candidate"]: one["regret"] for one in training["candidates"]}
    assert regrets == {"global_best": pytest.approx(0.1), "knn over tfidf": 0.0}
    assert found.metrics["router"]["regret"]["value"] == 0
    assert found.metrics["comparison"]["gain_over_global_best"]["knn over tfidf"]["value"] == pytest.approx(0.1)
    card = sections(found.metrics)
    assert "dev regret, among 2: the dev figures of this router flatter it slightly" in card
    assert "| 0 | global\\_best | 0.1 |" in card
    assert set(found.cost["candidates"]) == set(regrets)
    assert sorted(file.name for file in found.data.iterdir()) == [
        "head.safetensors",
        "reliability.png",
        "router.json",
        "tfidf.safetensors",
        "vocabulary.json",
    ]


def test_every_seed_draws_validation_prompts_of_its_own_and_larger_draws_hold_smaller_ones():
    ids = [f"{i:03d}" for i in range(40)]
    settings = train_router.Settings(kind="auto", seeds=3, curve=(20, 8, 40, 400))
    draws = train_router._draws(ids, settings, 5)
    assert {size: [len(draw.train) + len(draw.validation) for draw in of] for size, of in draws.items()} == {
        size: [size] * 3 for size in (8, 20, 40)
    }
    assert [draw.seed for draw in draws[40]] == [5, 6, 7]
    assert [len(draw.validation) for draw in draws[20]] == [3, 3, 3]
    assert len({tuple(draw.validation) for draw in draws[40]}) == 3
    for small, large in zip(draws[8], draws[20], strict=True):
        assert {*small.train, *small.validation} < {*large.train, *large.validation}
    alone = train_router._draws(ids, train_router.Settings(kind="knn", seeds=3, curve=(20,)), 5)
    assert alone == {40: draws[40][:1]}


def test_a_curve_and_its_figures_are_the_same_again_whatever_the_time_it_took(tmp_path):
    settings = {"kind": "auto", "candidates": ["ridge", "knn"], "seeds": 2, "curve": [10, 20]}
    one, other = (train(tmp_path / name, **settings) for name in ("a", "b"))
    assert one.metrics == other.metrics
    assert set(one.metrics["comparison"]["learning_curve"]["mean"]["ridge over tfidf"]) == {"10", "20", "60"}
    assert one.metrics["comparison"]["trainings"] == 2
    files = {file.name: file.read_bytes() for file in one.data.iterdir()}
    assert files == {file.name: file.read_bytes() for file in other.data.iterdir()}
    assert files["learning-curve.png"][:4] == files["reliability.png"][:4] == b"\x89PNG"


def test_a_candidate_with_two_heads_has_quality_and_learnability():
    """Of a language model that is one candidate of several."""
    _, rewards = data(4, 2)
    candidate = {"kind": "llm", "objective": "two_head"}
    for settings, heads in (
        ({"kind": "auto", "candidates": ["knn", candidate]}, {"quality", "learnability"}),
        ({"kind": "auto", "candidates": ["knn"]}, set()),
    ):
        *_, matrices = train_router._matrices(train_router.Settings(**settings), [*POOL], rewards, None)
        assert set(matrices) == {"rewards"} | heads


def test_progress_is_told_what_is_to_be_done(tmp_path):
    class Told(Silent):
        total = done = 0

        def start(self, what, total, done=0, work=None):
            self.total = total

        def advance(self, count=1, work=None):
            self.done += count

    prompts, rewards = data(20, 4)
    for kind, total, done in (("auto", 5, 5), ("ridge", 1, 1)):
        told = Told()
        teachers = tuple(Teacher(name=name) for name in POOL)
        context = Context(seed=0, work_dir=tmp_path / kind, teachers=teachers, progress=told)
        settings = train_router.Settings(kind=kind)
        train_router.run(settings, context, prompts=prompts, rewards=rewards)
        assert (told.total, told.done) == (total, done)


def test_the_same_seed_gives_the_same_metrics(tmp_path):
    assert train(tmp_path / "a").metrics == train(tmp_path / "b").metrics


def test_alpha_one_turns_the_preference_round(tmp_path):
    prompts, _ = data(60, 20)
    asked = [row["messages"] for row in prompts if row["split"] == "dev"]
    with_quality, without = (load(train(tmp_path / str(a), alpha=a).data).scores(asked) for a in (None, 1))
    assert (with_quality.argmax(axis=1) != without.argmax(axis=1)).all()


def test_dev_rewards_take_no_part_in_training(tmp_path):
    """Other dev prompts, the same router."""
    few, many = (load(train(tmp_path / str(dev), dev=dev).data) for dev in (4, 40))
    asked = [[{"role": "user", "content": "sum"}]]
    assert (few.scores(asked) == many.scores(asked)).all()


@pytest.mark.parametrize("kind", ["global_best", "best_per_topic", "knn", "ridge", "stacking", "logistic"])
def test_without_dev_prompts_calibration_judges_the_router(tmp_path, kind):
    found = train(tmp_path, calibration=60, dev=0, kind=kind)
    own = found.metrics["by_calibration"]
    assert (own["folds"], own["prompts"], own["cells"], found.counts["dev_prompts"]) == (5, 60, 120, 0)
    gain = own["gain"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    learns = kind not in ("global_best",)
    # the better teacher has 0.6 and the other 0.4, each on half of the prompts: a perfect router gains 0.1
    assert gain["value"] == pytest.approx(0.1 if learns else 0.0, abs=0.03)
    assert found.metrics["router"]["gap_closed"]["value"] == pytest.approx(float(learns), abs=0.1)
    assert not list(tmp_path.glob("router-fold*"))
    again = train(tmp_path / "again", calibration=60, dev=0, kind=kind).metrics
    assert again == found.metrics


@pytest.mark.parametrize(
    ("settings", "sizes", "message"),
    [
        (
            {"kind": "auto", "candidates": ["knn"]},
            (60, 0),
            "train_router: `kind: auto` chooses among its candidates on dev prompts, found none; raise `prompts.dev`, "
            "or name one kind, as in `kind: stacking`",
        ),
        (
            {"kind": "llm", "validation_share": 0},
            (60, 0),
            "train_router: without dev prompts the validation prompts judge an `llm` router, found `validation_share: "
            "0`; raise it, or raise `prompts.dev`",
        ),
        (
            {"kind": "ridge"},
            (9, 0),
            "9 calibration prompts have rewards of two teachers or more, at least 10 are needed where no dev prompts "
            "judge the router; raise `prompts.calibration` or `prompts.dev`",
        ),
        ({"kind": "ridge"}, (20, 1), "1 dev prompts have rewards of two teachers or more, at least 2 are needed"),
    ],
)
def test_what_cannot_be_judged_without_dev(tmp_path, settings, sizes, message):
    with pytest.raises(InputError) as fault:
        train(tmp_path, *sizes, **settings)
    assert str(fault.value).startswith(message)


def test_validation_slice_does_not_hang_on_the_order_of_the_rows():
    ids = [f"{i:03d}" for i in range(40)]
    train, validation = train_router._hold_out(ids, 0.25)
    back = train_router._hold_out(ids[::-1], 0.25)
    assert {ids[row] for row in validation} == {ids[::-1][row] for row in back[1]} and len(validation) == 10
    assert sorted(train + validation) == list(range(40))
    assert train_router._hold_out(ids, 0)[1] == []


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"calibration": 0},
            "0 calibration prompts have rewards of two teachers or more, at least 2 are needed to "
            "train a router; raise `prompts.calibration`, or look for failures in the rewards",
        ),
        (
            {"dev": 1},
            "1 dev prompts have rewards of two teachers or more, at least 2 are needed to train a router; "
            "raise `prompts.dev`, or look for failures in the rewards",
        ),
        (
            {"measured": False},
            "0 calibration prompts have rewards of two teachers or more, at least 2 are needed to "
            "train a router; raise `prompts.calibration`, or look for failures in the rewards",
        ),
    ],
)
def test_too_few_prompts(tmp_path, sizes, message):
    with pytest.raises(InputError) as caught:
        train(tmp_path, **sizes)
    assert str(caught.value) == message


def test_faults_in_the_settings(tmp_path):
    with pytest.raises(RecipeError, match="train_router: unknown key `epoch`, did you mean `epochs`?"):
        train(tmp_path, epoch=3)
    with pytest.raises(RecipeError, match="train_router.candidates: `nn` is no candidate, did you mean `knn`?"):
        train(tmp_path, kind="auto", candidates=[{"kind": "nn"}])
    with pytest.raises(RecipeError, match="train_router.curve.0: must be at least 4, got 3"):
        train(tmp_path, curve=[3])
    with pytest.raises(RecipeError, match="train_router.validation_share: must be at least 0 and below 1, got 1"):
        train(tmp_path, validation_share=1.0)
    assert read_section(train_router.Settings, {"tau": 1, "alpha": 1, "l2": [1]}, "train_router").l2 == (1.0,)


@pytest.mark.parametrize("value", ["router", "./router", "a/b/c@v1", "a/b@", "", 3])
def test_a_router_to_extend_is_named_as_it_is_stored(value):
    with pytest.raises(RecipeError) as caught:
        read_section(train_router.Settings, {"extend": value}, "train_router")
    needed = "must name a stored router, NAMESPACE/NAME@TAG"
    assert str(caught.value) == f"train_router.extend: {needed}, got {value!r}"
    for known in ("a/b@v1", "my-org/x.router_s", None):
        assert read_section(train_router.Settings, {"extend": known}, "train_router").extend == known
