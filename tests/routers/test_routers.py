"""Routers learn a corpus of two topics, give the same scores once saved, and load without our code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load, merged
from persyn_hf.core.assignment import column_means
from persyn_hf.core.metrics import regret
from persyn_hf.core.router_table import router_table
from persyn_hf.errors import InputError, RecipeError


TEACHERS = ("maths-teacher", "poetry-teacher", "weak-teacher")
TOPICS = (
    ["add", "subtract", "number", "sum", "equation", "digit"],
    ["poem", "verse", "rhyme", "moon", "river", "heart"],
)
SHARED = ["please", "write", "what", "is", "the", "for", "me", "now"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def corpus(num_prompts: int, seed: int, missing: float = 0.0) -> Labelled:
    """Two topics; each has a teacher of its own, the third is always worst; rewards in [0, 1] with noise."""
    rng = np.random.default_rng(seed)
    conversations, rewards = [], []
    for index in range(num_prompts):
        topic = index % 2
        words = [*rng.choice(TOPICS[topic], 3), *rng.choice(SHARED, 4)]
        rng.shuffle(words)
        conversations.append([{"role": "user", "content": " ".join(words)}])
        best = [0.9, 0.3, 0.0] if topic == 0 else [0.3, 0.9, 0.0]
        rewards.append(np.clip(np.array(best) + rng.normal(size=3) * 0.05, 0, 1))
    matrix = np.array(rewards)
    matrix[rng.random(matrix.shape) < missing] = np.nan
    return Labelled(conversations, matrix)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of hidden size 32, randomly initialised, without pad token; a byte-level BPE learnt from the corpus."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = ["user", "assistant", *TOPICS[0], *TOPICS[1], *SHARED]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f"{word} {word}" for word in words] * 5, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", additional_special_tokens=special[1:]
    )
    fast.chat_template = CHATML
    folder = tmp_path_factory.mktemp("backbone")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for one another make these tiny models slow on busy cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an llm router after one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    train(tiny(backbone, epochs=1), folder)
    return folder


def tiny(backbone: Path, **changes) -> RouterSettings:
    values = {"kind": "llm", "backbone": str(backbone), "learning_rate": 3e-3, "head_learning_rate": 1e-2, "epochs": 6}
    return RouterSettings(**{**values, "device": "cpu", "batch_size": 16, **changes})


def train(settings: RouterSettings, folder: Path, missing: float = 0.0) -> tuple[dict, Labelled]:
    """Fit on 120 prompts, choose on 24; the record and all 144 labelled prompts."""
    parts = corpus(120, 1, missing), corpus(24, 2)
    return fit(settings, TEACHERS, *parts, folder, seed=0), merged(*parts)


def dev_row(folder: Path, labelled: Labelled) -> dict:
    dev = corpus(100, 3)
    baselines = {"global_best": column_means(labelled.rewards)}
    scores = load(folder, "cpu").scores(dev.conversations)
    return router_table(scores, dev.rewards, baselines, np.random.default_rng(0), resamples=100)["router"]


@pytest.mark.parametrize("objective", ["bt", "soft_bt"])
@pytest.mark.parametrize("kind", ["tfidf", "llm"])
def test_router_closes_the_gap_on_two_topics(kind, objective, backbone, tmp_path):
    settings = tiny(backbone, objective=objective) if kind == "llm" else RouterSettings(kind=kind, objective=objective)
    record, labelled = train(settings, tmp_path, missing=0.1)
    found = dev_row(tmp_path, labelled)
    assert found["gap_closed"]["value"] >= 0.8
    assert found["hit_at_1"]["value"] >= 0.9
    assert json.loads(json.dumps(record)) == record


def test_global_best_closes_exactly_nothing(tmp_path):
    _, labelled = train(RouterSettings(kind="global_best"), tmp_path)
    assert dev_row(tmp_path, labelled)["gap_closed"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    scores = load(tmp_path).scores(corpus(3, 0).conversations)
    assert scores == pytest.approx(np.tile(labelled.rewards.mean(axis=0), (3, 1)))


@pytest.mark.parametrize("kind", ["tfidf", "global_best", "llm"])
def test_training_repeats_and_loading_gives_equal_scores(kind, backbone, tmp_path):
    settings = tiny(backbone, epochs=1) if kind == "llm" else RouterSettings(kind=kind)
    first, _ = train(settings, tmp_path / "first")
    second, _ = train(settings, tmp_path / "second")
    conversations = corpus(20, 5).conversations
    one, again, other = (load(tmp_path / n, "cpu") for n in ("first", "first", "second"))
    assert one.teachers == TEACHERS
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


def test_only_user_turns_are_read(tmp_path):
    train(RouterSettings(kind="tfidf"), tmp_path)
    plain = [{"role": "user", "content": "poem"}, {"role": "user", "content": "moon"}]
    framed = [{"role": "system", "content": "sum"}, plain[0], {"role": "assistant", "content": "digit"}, plain[1]]
    router = load(tmp_path)
    assert (router.scores([plain]) == router.scores([framed])).all()


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
    for settings in (tiny(backbone, epochs=1), RouterSettings(kind="tfidf"), RouterSettings(kind="global_best")):
        fit(settings, TEACHERS, corpus(20, 1), empty, tmp_path / settings.kind, seed=0)
        assert load(tmp_path / settings.kind, "cpu").teachers == TEACHERS


def test_settings_take_whole_numbers_and_lists_from_yaml():
    found = RouterSettings.model_validate({"tau": 1, "l2": [1, 0.1]})
    assert (found.tau, found.l2) == (1.0, (1.0, 0.1))


def test_diverged_training_says_what_to_lower(backbone, tmp_path):
    with pytest.raises(RecipeError, match="training the router diverged in epoch 1: the loss is nan; lower"):
        train(tiny(backbone, learning_rate=1e38, head_learning_rate=1e38), tmp_path)


def test_a_backbone_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="the router backbone `/no/such/model` cannot be loaded: "):
        train(RouterSettings(backbone="/no/such/model"), tmp_path)


def test_a_folder_that_is_no_router(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no router: no router.json in it; give a folder that `train_router` wrote"
    )
    (tmp_path / "router.json").write_text('{"kind": "oracle", "teachers": ["a"]}')
    with pytest.raises(InputError, match="holds the router kind 'oracle', known are llm, tfidf, global_best; update"):
        load(tmp_path)
    (tmp_path / "router.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        load(tmp_path)


def test_a_router_whose_two_files_disagree(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    saved = json.loads((tmp_path / "router.json").read_text())
    (tmp_path / "router.json").write_text(json.dumps({**saved, "teachers": list(TEACHERS[::-1])}))
    with pytest.raises(InputError, match="router.json and maths-teacher, poetry-teacher, weak-teacher in config.json"):
        load(tmp_path)


def test_prompts_without_words_and_teachers_without_rewards(tmp_path):
    silent = Labelled([[{"role": "user", "content": ""}]] * 2, np.eye(3)[:2])
    with pytest.raises(InputError, match="the calibration prompts hold no words"):
        fit(RouterSettings(kind="tfidf"), TEACHERS, silent, silent, tmp_path, seed=0)
    unmeasured = Labelled(silent.conversations, np.array([[1.0, 0.0, np.nan]] * 2))
    with pytest.raises(InputError, match="no response of the teacher `weak-teacher` has a reward"):
        fit(RouterSettings(kind="global_best"), TEACHERS, unmeasured, unmeasured, tmp_path, seed=0)
