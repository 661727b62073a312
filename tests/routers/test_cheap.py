"""The cheap kinds: two topics learnt, numbers worked by hand or by scikit-learn, missing cells, folders, `auto`."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from corpora import TEACHERS, corpus
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from persyn_hf.backends.routers import FEATURED, Labelled, RouterSettings, fit, load, merged, teacher_means
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.backends.routers.heads import Split
from persyn_hf.backends.routers.linear import _preferred, fit_logistic, fit_ridge
from persyn_hf.backends.routers.llm_data import mean_loss
from persyn_hf.backends.routers.neighbours import Neighbours, fit_knn, fit_topics
from persyn_hf.core.bradley_terry import preferences
from persyn_hf.core.conversations import user_text
from persyn_hf.core.metrics import regret
from persyn_hf.core.router_table import router_table
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strict import read_section


CHEAP = (*FEATURED, "global_best")
NAN = np.nan


def train(folder, kind, missing=0.0, **settings):
    """Fit on 120 prompts, choose on 24; the record, the router read back, and all 144 labelled prompts."""
    parts = corpus(120, 1, missing), corpus(24, 2)
    record = fit(RouterSettings(kind=kind, **settings), TEACHERS, *parts, folder, seed=0)
    return record, load(folder), merged(*parts)


def dev_row(router, labelled):
    dev = corpus(100, 3)
    baselines = {"global_best": teacher_means(labelled.rewards)}
    scores = router.scores(dev.conversations)
    return router_table(scores, dev.rewards, baselines, np.random.default_rng(0), resamples=100)["router"]


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kind", FEATURED)
def test_heads_close_the_gap_on_two_topics(kind, missing, tmp_path):
    record, router, labelled = train(tmp_path, kind, missing)
    found = dev_row(router, labelled)
    assert found["gap_closed"]["value"] >= 0.8
    assert found["hit_at_1"]["value"] >= 0.9
    assert json.loads(json.dumps(record)) == record
    assert (router.teachers, router.scale) == (TEACHERS, "log_odds" if kind == "logistic" else "reward")


@pytest.mark.parametrize("objective", ["bt", "soft_bt"])
def test_logistic_prefers_what_the_llm_router_prefers(objective):
    rewards = np.array([[0.9, 0.2, 0.2], [0.5, NAN, 0.5 + 1e-7], [NAN, NAN, 1.0]])
    first, second = np.triu_indices(3, k=1)
    found = _preferred(rewards, first, second, RouterSettings(kind="logistic", objective=objective))
    assert np.array_equal(
        found, preferences(torch.tensor(rewards), objective)[:, first, second].numpy(), equal_nan=True
    )
    if objective == "bt":
        assert np.array_equal(found, [[1, 1, 0.5], [NAN, 0.5, NAN], [NAN, NAN, NAN]], equal_nan=True)


def test_logistic_learns_soft_labels_too(tmp_path):
    _, router, labelled = train(tmp_path, "logistic", objective="soft_bt")
    assert dev_row(router, labelled)["gap_closed"]["value"] >= 0.8


def test_global_best_closes_exactly_nothing(tmp_path):
    _, router, labelled = train(tmp_path, "global_best")
    assert dev_row(router, labelled)["gap_closed"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert router.scores(corpus(3, 0).conversations) == pytest.approx(np.tile(labelled.rewards.mean(axis=0), (3, 1)))


@pytest.mark.parametrize("kind", CHEAP)
def test_training_repeats_and_folders_keep_every_bit(kind, tmp_path):
    first, one, _ = train(tmp_path / "first", kind, missing=0.1)
    second, other, _ = train(tmp_path / "second", kind, missing=0.1)
    assert first == second
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name
        assert file.suffix in (".json", ".safetensors")
    conversations = corpus(20, 5).conversations
    scores = one.scores(conversations)
    assert (scores == load(tmp_path / "first").scores(conversations)).all()
    assert (scores == other.scores(conversations)).all()
    assert one.scores([]).shape == (0, 3)


def test_what_is_loaded_scores_like_what_was_trained():
    """Bit for bit, heads and features, before and after they are arrays."""
    labelled = corpus(60, 1, missing=0.1)
    texts = [user_text(messages) for messages in labelled.conversations]
    features = Tfidf.fit(texts, max_features=50).transform(texts)
    dense = features.toarray().astype(np.float32)
    for make in (fit_logistic, fit_ridge, fit_knn, fit_topics):
        for rows in (features, dense):
            head, _ = make(RouterSettings(), Split(rows, labelled.rewards), None, 0)
            again = type(head).from_arrays(head.arrays(), head.scale)
            assert (head.scores(rows) == again.scores(rows)).all()


@pytest.mark.parametrize("kind", FEATURED)
def test_scores_do_not_hang_on_order_batches_or_what_others_say(kind, tmp_path, monkeypatch):
    _, router, _ = train(tmp_path, kind)
    conversations = corpus(30, 5).conversations
    framed = [
        [{"role": "system", "content": "sum"}, *c, {"role": "assistant", "content": "digit"}] for c in conversations
    ]
    expected = router.scores(conversations)
    monkeypatch.setattr("persyn_hf.backends.routers.featured.CHUNK", 7)
    monkeypatch.setattr("persyn_hf.backends.routers.neighbours.CELLS", 500)  # 4 prompts at a time
    done = []
    assert router.scores(framed, done.append) == pytest.approx(expected, abs=1e-12)
    assert done == [7, 7, 7, 7, 2]
    assert router.scores(conversations[::-1])[::-1] == pytest.approx(expected, abs=1e-12)
    assert [router.scores([c])[0] for c in conversations] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", CHEAP)
def test_permuting_teachers_permutes_scores(kind, tmp_path):
    order = [2, 0, 1]
    parts = corpus(120, 1, 0.1), corpus(24, 2)
    turned = [Labelled(part.conversations, part.rewards[:, order]) for part in parts]
    names = [TEACHERS[i] for i in order]
    fit(RouterSettings(kind=kind), TEACHERS, *parts, tmp_path / "a", seed=0)
    fit(RouterSettings(kind=kind), names, *turned, tmp_path / "b", seed=0)
    conversations = corpus(40, 5).conversations
    found = load(tmp_path / "b").scores(conversations)
    tolerance = 0.02 if kind == "logistic" else 1e-6  # L-BFGS stops where its steps are small
    assert found == pytest.approx(load(tmp_path / "a").scores(conversations)[:, order], abs=tolerance)


@pytest.mark.parametrize("kind", CHEAP)
def test_a_teacher_that_was_never_measured_is_last_everywhere(kind, tmp_path):
    parts = [Labelled(part.conversations, part.rewards.copy()) for part in (corpus(60, 1), corpus(20, 2))]
    for part in parts:
        part.rewards[:, 1] = NAN
    fit(RouterSettings(kind=kind), TEACHERS, *parts, tmp_path, seed=0)
    asked = [*corpus(40, 5).conversations, [{"role": "user", "content": "nothing known"}], []]
    scores = load(tmp_path).scores(asked)
    assert np.isfinite(scores).all()
    assert (scores.argmin(axis=1) == 1).all()


@pytest.mark.parametrize("kind", CHEAP)
def test_without_validation_prompts(kind, tmp_path):
    empty = Labelled([], np.zeros((0, 3)))
    record = fit(RouterSettings(kind=kind), TEACHERS, corpus(30, 1), empty, tmp_path, seed=0)
    chosen = {
        "logistic": ("l2", 1e-4),
        "ridge": ("ridge_l2", 1e-2),
        "knn": ("neighbours", 10),
        "best_per_topic": ("topics", 8),
    }
    if kind in chosen:
        name, value = chosen[kind]
        assert record[name] == value and record["tried"] == [{name: value}]
    assert load(tmp_path).scores(corpus(4, 2).conversations).shape == (4, 3)


@pytest.mark.parametrize("kind", [kind for kind in FEATURED if kind != "stacking"])
def test_the_best_on_validation_is_kept(kind, tmp_path):
    record, router, _ = train(tmp_path, kind, missing=0.3)
    best = min(record["tried"], key=lambda one: one["regret" if kind == "logistic" else "loss"])
    validation = corpus(24, 2)
    scores = router.scores(validation.conversations)
    assert regret(scores, validation.rewards).mean() == pytest.approx(best["regret"], abs=1e-12)
    if kind != "logistic":
        assert ((scores - validation.rewards) ** 2).mean() == pytest.approx(best["loss"], abs=1e-12)
        assert best["loss"] < max(one["loss"] for one in record["tried"])
    assert len(record["tried"]) > 2


def test_neighbours_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    points, queries = (rng.normal(size=(rows, 6)) for rows in (50, 20))
    points, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (points, queries))
    rewards = rng.random((50, 4))
    for k in (1, 7, 50):
        theirs = KNeighborsRegressor(k, metric="cosine", algorithm="brute").fit(points, rewards).predict(queries)
        assert Neighbours(points, rewards, k).scores(queries) == pytest.approx(theirs, abs=1e-9)
        sparse = Neighbours(csr_matrix(points), rewards, k).scores(csr_matrix(queries))
        assert sparse == pytest.approx(theirs, abs=1e-9)


def test_neighbours_by_hand():
    points = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 1.0]])
    rewards = np.array([[1.0, NAN, 0.2], [0.0, NAN, NAN], [0.5, 0.4, 0.6], [0.7, 0.8, NAN]])
    two = Neighbours(points, rewards, 2)
    # The first query is nearest to rows 0 and 1; the second teacher was measured on neither: its mean of all, 0.6.
    assert two.scores(np.array([[1.0, 0.0]]))[0] == pytest.approx([0.5, 0.6, 0.2])
    # Rows 2 and 3 are the same point: with k = 1 both count.
    assert Neighbours(points, rewards, 1).scores(np.array([[0.0, 1.0]]))[0] == pytest.approx([0.6, 0.6, 0.6])
    # A prompt of unknown words is equally far from all.
    assert two.scores(np.zeros((1, 2)))[0] == pytest.approx([0.55, 0.6, 0.4])
    assert Neighbours(points, rewards, 99).scores(np.eye(2))[0] == pytest.approx([0.55, 0.6, 0.4])


def test_ridge_by_hand_and_by_scikit_learn():
    settings = RouterSettings(ridge_l2=(0.25,))
    features, rewards = np.array([[-1.0], [1.0]]), np.array([[0.0, NAN], [1.0, 0.3]])
    head, record = fit_ridge(settings, Split(features, rewards), None, 0)
    # Covariance 0.5 over variance 1 + l2; the second teacher's only reward is its prediction everywhere.
    assert head.weights[0] == pytest.approx([0.4, 0.0]) and head.bias == pytest.approx([0.5, 0.3])
    assert record["ridge_l2"] == 0.25
    rng = np.random.default_rng(0)
    features, rewards = rng.normal(size=(40, 60)), rng.random((40, 3))
    rewards[rng.random(rewards.shape) < 0.3] = NAN
    for rows in (features, csr_matrix(features)):
        head, _ = fit_ridge(settings, Split(rows, rewards), None, 0)
        for column in range(3):
            known = ~np.isnan(rewards[:, column])
            theirs = Ridge(alpha=0.25 * known.sum()).fit(features[known], rewards[known, column])
            assert head.scores(rows)[:, column] == pytest.approx(theirs.predict(features), abs=1e-7)


@pytest.mark.parametrize("objective", ["bt", "soft_bt"])
def test_logistic_is_where_the_gradient_of_the_mean_loss_is_zero(objective):
    rng = np.random.default_rng(0)
    features, rewards = rng.normal(size=(40, 5)), rng.random((40, 3))
    rewards[rng.random(rewards.shape) < 0.2] = NAN
    settings = RouterSettings(l2=(0.01,), objective=objective)
    head, _ = fit_logistic(settings, Split(csr_matrix(features), rewards), None, 0)
    weights, bias = (torch.tensor(part, requires_grad=True) for part in (head.weights, head.bias))
    scores = torch.tensor(features) @ weights + bias
    preferred = preferences(torch.tensor(rewards), objective, settings.tau)[:, None]
    loss = mean_loss(scores, preferred) + 0.005 * (weights**2).sum()
    loss.backward()
    assert weights.grad.numpy() == pytest.approx(np.zeros((5, 3)), abs=1e-4)
    assert bias.grad.numpy() == pytest.approx(np.zeros(3), abs=1e-4)
    assert np.abs(head.weights).max() > 0.1


def test_topics_by_hand():
    """Two topics of 3 and 2 prompts, each drawn by 5 prompts to the mean of all."""
    features = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2)
    rewards = np.array([[1.0, 0.0], [0.8, 0.2], [NAN, 0.1], [0.0, 0.9], [0.2, 0.8]])
    head, record = fit_topics(RouterSettings(topics=(2,)), Split(features, rewards), None, 0)
    means = np.array([0.5, 0.4])
    found = head.scores(np.array([[0.9, 0.1], [0.1, 0.9], [0.0, 0.0]]))
    assert found[0] == pytest.approx([(1.8 + 5 * 0.5) / 7, (0.3 + 5 * 0.4) / 8])
    assert found[1] == pytest.approx([(0.2 + 5 * 0.5) / 7, (1.7 + 5 * 0.4) / 7])
    assert found[2] == pytest.approx(means)
    assert record["topics"] == 2


def test_more_topics_and_neighbours_than_prompts(tmp_path):
    same = Labelled([[{"role": "user", "content": "sum"}]] * 6, np.tile([1.0, 0.0, 0.5], (6, 1)))
    for kind in ("knn", "best_per_topic"):
        record = fit(RouterSettings(kind=kind), TEACHERS, same, same, tmp_path / kind, seed=0)
        assert max(one.get("topics") or one["neighbours"] for one in record["tried"]) == 6
        assert load(tmp_path / kind).scores(same.conversations[:1])[0].argmax() == 0


def test_memory_is_flat_in_the_number_of_prompts(tmp_path, monkeypatch):
    """What more prompts need beside their scores, 24 bytes each."""
    train(tmp_path, "knn")
    monkeypatch.setattr("persyn_hf.backends.routers.featured.CHUNK", 200)
    router = load(tmp_path)
    conversations = corpus(400, 5).conversations
    peaks = []
    for times in (1, 5):
        tracemalloc.start()
        scores = router.scores(conversations * times)
        peaks.append(tracemalloc.get_traced_memory()[1] - scores.nbytes - 8 * len(scores))
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_prompts_without_words(tmp_path):
    silent = Labelled([[{"role": "user", "content": ""}]] * 2, np.eye(3)[:2])
    with pytest.raises(InputError) as caught:
        fit(RouterSettings(kind="ridge"), TEACHERS, silent, silent, tmp_path, seed=0)
    assert str(caught.value) == "the calibration prompts hold no words, a router over tfidf needs some; see `messages`"


@pytest.mark.parametrize("file", ["head.safetensors", "tfidf.safetensors", "vocabulary.json"])
def test_a_folder_that_lacks_a_file(file, tmp_path):
    train(tmp_path, "ridge")
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=rf"^the router in {tmp_path} lacks a file \(.*{file}.*\); fetch it again$"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["head.safetensors", "tfidf.safetensors"])
def test_a_file_that_was_cut_short(file, tmp_path):
    train(tmp_path, "ridge")
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-5])
    with pytest.raises(InputError, match=rf"^{tmp_path / file} is damaged \(.*\); fetch the router again$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "knn", "features": "embeddings"},
            "train_router: the features `embeddings` need an `encoder`, got none; name the folder or Hub id of a "
            "sentence encoder, or of the student",
        ),
        (
            {"kind": "knn", "encoder": "org/model"},
            "train_router: `encoder` is given and the features are `tfidf`, which need none; set "
            "`features: embeddings`, or leave `encoder` out",
        ),
        ({"neighbours": [0, 5]}, "train_router: `neighbours` must be whole numbers of 1 or more, got 0"),
        ({"kind": "tfidf"}, "train_router.kind: input should be "),
    ],
)
def test_faults_in_the_settings(values, message):
    with pytest.raises(RecipeError) as caught:
        read_section(RouterSettings, values, "train_router")
    assert str(caught.value).startswith(message)
