"""The llm router learns a corpus of two topics, gives the same scores once saved, and loads without our code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from corpora import TEACHERS, corpus
from tiny_llm import dev_row, tiny, train

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load
from persyn_hf.core.metrics import regret
from persyn_hf.errors import InputError, RecipeError


@pytest.fixture(scope="module")
def trained(heavy: None, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an llm router after one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    train(tiny(backbone, epochs=1), folder)
    return folder


@pytest.mark.parametrize("objective", ["bt", "soft_bt"])
def test_llm_router_closes_the_gap_on_two_topics(objective, backbone, tmp_path):
    record, labelled = train(tiny(backbone, objective=objective), tmp_path, missing=0.1)
    found = dev_row(tmp_path, labelled)
    assert found["gap_closed"]["value"] >= 0.8
    assert found["hit_at_1"]["value"] >= 0.9
    assert json.loads(json.dumps(record)) == record


def test_training_repeats_and_loading_gives_equal_scores(backbone, tmp_path):
    settings = tiny(backbone, epochs=1)
    first, _ = train(settings, tmp_path / "first")
    second, _ = train(settings, tmp_path / "second")
    conversations = corpus(20, 5).conversations
    one, again, other = (load(tmp_path / n, "cpu") for n in ("first", "first", "second"))
    assert (one.teachers, one.scale) == (TEACHERS, "log_odds")
    assert first == second
    assert (one.scores(conversations) == again.scores(conversations)).all()
    assert (one.scores(conversations) == other.scores(conversations)).all()
    assert one.scores([]).shape == (0, 3)


def test_llm_folder_loads_with_plain_transformers(trained):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert [model.config.id2label[i] for i in range(3)] == list(TEACHERS)
    assert tokenizer.truncation_side == "left" and model.config.pad_token_id == tokenizer.pad_token_id
    conversation = corpus(1, 9).conversations[0]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        theirs = model.eval()(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.numpy()
    assert load(trained, "cpu").scores([conversation]) == pytest.approx(theirs, abs=1e-6)
    assert not list(trained.glob("*.bin")) and not list(trained.glob("*.pkl"))


def test_the_path_of_the_backbone_stays_at_home(trained, backbone):
    assert not [file.name for file in trained.iterdir() if str(backbone).encode() in file.read_bytes()]


def test_llm_scores_do_not_hang_on_order_or_batches_and_long_prompts_are_cut_on_the_left(trained):
    router = load(trained, "cpu")
    conversations = [*corpus(20, 5).conversations, [{"role": "user", "content": "sum " * 500}], []]
    expected = router.scores(conversations)
    assert router.scores(conversations[::-1])[::-1] == pytest.approx(expected, abs=1e-5)
    done = []
    assert [router.scores([c])[0] for c in conversations] == pytest.approx(expected, abs=1e-5)
    router.scores(conversations, done.append)
    assert sum(done) == len(conversations)
    (tokens,) = router.encode([conversations[-2]])
    assert len(tokens) == 64, "the model's own limit"
    assert router.tokenizer.decode(tokens).endswith("assistant\n")


def test_llm_keeps_its_best_epoch_and_stops_early(backbone, tmp_path):
    """At an absurd rate later epochs are worse; what is stored is what the record calls best."""
    record, _ = train(tiny(backbone, epochs=12, patience=2), tmp_path)
    history = record["history"]
    best = min(history, key=lambda epoch: (epoch["regret"], epoch["loss"]))
    assert record["best_epoch"] == best["epoch"]
    assert len(history) == 12 or len(history) == best["epoch"] + 2
    validation = corpus(24, 2)
    stored = regret(load(tmp_path, "cpu").scores(validation.conversations), validation.rewards).mean()
    assert stored == pytest.approx(best["regret"], abs=1e-9)


def test_training_moves_every_weight_and_accumulates_micro_batches_exactly(backbone, tmp_path):
    from safetensors.numpy import load_file

    for name, micro in (("whole", 16), ("parts", 5)):
        train(tiny(backbone, epochs=1, micro_batch_size=micro), tmp_path / name)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    before = load_file(backbone / "model.safetensors")
    for name, weights in whole.items():
        assert parts[name] == pytest.approx(weights, abs=1e-3), name
        assert name == "score.weight" or not (weights == before[name]).all(), name


def test_training_without_validation_prompts(backbone, tmp_path):
    empty = Labelled([], np.zeros((0, 3)))
    fit(tiny(backbone, epochs=1), TEACHERS, corpus(20, 1), empty, tmp_path, seed=0)
    assert load(tmp_path, "cpu").teachers == TEACHERS


def test_diverged_training_says_what_to_lower(backbone, tmp_path):
    with pytest.raises(RecipeError, match="training the router diverged in epoch 1: the loss is nan; lower"):
        train(tiny(backbone, learning_rate=1e30, head_learning_rate=1e30), tmp_path)


def test_a_backbone_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="the router backbone `/no/such/model` cannot be loaded: "):
        train(RouterSettings(backbone="/no/such/model"), tmp_path)


def test_a_router_whose_two_files_disagree(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    saved = json.loads((tmp_path / "router.json").read_text())
    (tmp_path / "router.json").write_text(json.dumps({**saved, "teachers": list(TEACHERS[::-1])}))
    with pytest.raises(InputError, match="router.json and maths-teacher, poetry-teacher, weak-teacher in config.json"):
        load(tmp_path)
