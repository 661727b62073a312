"""Training the llm router: kills, processes, adapters, a frozen backbone, two heads, pairs instead of rewards."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import TEACHERS, corpus
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tiny_llm import dev_row, tiny, train

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, llm_launched, load
from persyn_hf.backends.routers.llm_data import Prompts
from persyn_hf.core.metrics import regret
from persyn_hf.core.pairs import compare_teachers, preferences, win_shares
from persyn_hf.errors import InputError, RecipeError


WEIGHTS = "model.safetensors"
CPU_2 = Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml"


def same_weights(one: Path, other: Path, within: float) -> bool:
    first, second = (load_file(folder / WEIGHTS) for folder in (one, other))
    assert first.keys() == second.keys()
    return all(np.abs(first[name] - second[name]).max() <= within for name in first)


@pytest.mark.ci
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("epoch", "changes"),
    [pytest.param(3, {}, marks=pytest.mark.slow, id="epochs"), pytest.param(2, {"save_steps": 3}, id="steps")],
)
def test_a_killed_training_goes_on_to_the_same_weights(epoch, changes, backbone, tmp_path):
    """Killed at the end of epoch 3 of 4, so from the checkpoint of epoch 2; or of epoch 2, from step 15 of 16."""
    settings = tiny(backbone, epochs=4, **changes)
    script = Path(__file__).with_name("killed_llm.py")
    command = [sys.executable, str(script), str(tmp_path / "cut"), str(epoch), settings.model_dump_json()]
    assert subprocess.run(command, capture_output=True, text=True, timeout=120).returncode == -9
    (scratch,) = tmp_path.glob("cut-training-*")
    left = max(int(path.name.partition("-")[2]) for path in scratch.iterdir())
    assert left == (15 if changes else 16)
    torn = scratch / "checkpoint-999"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 999, "log_')
    told: list[int] = []
    parts = corpus(120, 1), corpus(24, 2)
    again = fit(settings, TEACHERS, *parts, tmp_path / "cut", seed=0, advance=told.append)
    assert told == ([1, 1, 1, 1] if changes else [2, 1, 1])
    whole = fit(settings, TEACHERS, *parts, tmp_path / "whole", seed=0)
    assert again == whole
    assert same_weights(tmp_path / "cut", tmp_path / "whole", 1e-6)


def test_a_training_that_was_done_is_not_repeated(backbone, tmp_path):
    """Its run may be killed later, over the dev prompts; other settings have nothing to do with it."""
    told: list[int] = []
    parts = corpus(40, 1), corpus(24, 2)
    settings = tiny(backbone, epochs=2)
    records = [fit(settings, TEACHERS, *parts, tmp_path / "r", seed=0, advance=told.append) for _ in range(2)]
    assert told == [0, 1, 1, 2] and records[0] == records[1]
    fit(tiny(backbone, epochs=2, head_learning_rate=0.1), TEACHERS, *parts, tmp_path / "r", seed=0)
    assert len(list(tmp_path.glob("r-training-*"))) == 2
    assert {file.name for file in (tmp_path / "r").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "router.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.ci
@pytest.mark.heavy
def test_two_processes_train_as_one_with_twice_the_accumulation(backbone, tmp_path):
    told: list[int] = []
    parts = corpus(90, 1, 0.1), corpus(24, 2)  # 90 prompts: the last step of an epoch is not full
    values = {"epochs": 3, "patience": 3}
    one = tiny(backbone, micro_batch_size=4, **values)
    two = tiny(backbone, micro_batch_size=8, device="auto", accelerate=str(CPU_2), **values)
    alone = fit(one, TEACHERS, *parts, tmp_path / "one", seed=0)
    together = fit(two, TEACHERS, *parts, tmp_path / "two", seed=0, advance=told.append)
    curves = [[epoch["train_loss"] for epoch in record["history"]] for record in (alone, together)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-3)
    assert curves[0][-1] < curves[0][0] / 2
    assert same_weights(tmp_path / "one", tmp_path / "two", 1e-3)
    assert sum(told) == 3 and not (tmp_path / "two-launch").exists()
    assert "accelerate" not in (tmp_path / "two" / "router.json").read_text()


@pytest.mark.slow
def test_a_fault_in_one_of_the_processes_is_told_in_its_own_words(backbone, tmp_path):
    with pytest.raises(RecipeError) as caught:
        train(tiny(backbone, learning_rate=1e30, device="auto", accelerate=str(CPU_2)), tmp_path / "r")
    assert str(caught.value) == (
        "training the router diverged in epoch 1: the loss is nan; lower `train_router.learning_rate`"
    )


def test_configs_that_a_router_cannot_be_trained_by(backbone, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("{distributed_type: FSDP, num_machines: 1, num_processes: 2, mixed_precision: 'no'}")
    settings = tiny(backbone, device="auto", accelerate=str(config))
    with pytest.raises(InputError) as caught:
        train(settings, tmp_path / "r")
    assert str(caught.value) == (
        f"the accelerate config {config} is of type FSDP, and a router is trained whole on every device; write "
        "`distributed_type: MULTI_GPU`, and `method: lora` where memory lacks"
    )
    config.write_text("{distributed_type: MULTI_GPU, num_processes: 8, num_machines: 2}")
    with pytest.raises(InputError, match="names 2 machines, and a router is trained on one; set `num_machines: 1`"):
        train(settings, tmp_path / "r")
    for values in ({"method": "frozen"}, {"device": "cpu"}):
        with pytest.raises(ValueError, match="and `accelerate` contradict each other; leave one out"):
            RouterSettings(accelerate=str(CPU_2), **values)


def test_labelled_prompts_reach_the_processes_as_they_are(tmp_path):
    part = corpus(5, 1, 0.3)
    part = part._replace(quality=part.rewards, preferences=np.random.default_rng(0).random((5, 3, 3)))
    llm_launched._write(tmp_path / "part", part)
    found = llm_launched._read(tmp_path / "part")
    assert found.conversations == part.conversations and found.learnability is None
    for name in ("rewards", "quality", "preferences"):
        np.testing.assert_array_equal(getattr(found, name), getattr(part, name))


def test_lora_leaves_a_stock_model_with_the_adapters_merged(backbone, tmp_path):
    record, labelled = train(tiny(backbone, method="lora", learning_rate=1e-2), tmp_path / "r")
    assert dev_row(tmp_path / "r", labelled)["gap_closed"]["value"] >= 0.8
    before, after = load_file(backbone / WEIGHTS), load_file(tmp_path / "r" / WEIGHTS)
    assert after.keys() - before.keys() == {"score.weight"}
    moved = {name for name in after.keys() & before.keys() if (after[name] != before[name]).any()}
    assert moved == {name for name in after if ".self_attn." in name and "bias" not in name or ".mlp." in name}
    validation = corpus(24, 2)
    scores = load(tmp_path / "r", "cpu").scores(validation.conversations)
    kept = record["history"][record["best_epoch"] - 1]
    assert regret(scores, validation.rewards).mean() == pytest.approx(kept["regret"], abs=1e-9)


def test_frozen_trains_the_head_alone_and_reads_each_prompt_once(backbone, tmp_path):
    settings = tiny(backbone, method="frozen", l2=(1e-2, 1e-4))
    record, labelled = train(settings, tmp_path / "r", missing=0.1)
    assert dev_row(tmp_path / "r", labelled)["gap_closed"]["value"] >= 0.8
    before, after = load_file(backbone / WEIGHTS), load_file(tmp_path / "r" / WEIGHTS)
    assert after.keys() - before.keys() == {"score.weight"}
    assert all((after[name] == before[name]).all() for name in after if name != "score.weight")
    validation = corpus(24, 2)
    scores = load(tmp_path / "r", "cpu").scores(validation.conversations)
    (kept,) = [one for one in record["tried"] if one["l2"] == record["l2"]]
    assert regret(scores, validation.rewards).mean() == pytest.approx(kept["regret"], abs=1e-9)

    assert train(settings, tmp_path / "again", missing=0.1)[0] == record
    files = sorted((tmp_path / "embeddings").iterdir())
    assert len(files) == 2, "one of the training prompts, one of the validation prompts"
    for file in files:
        file.write_bytes(b"damaged")
    with pytest.raises(Exception, match="[Hh]eader"):
        train(settings, tmp_path / "third", missing=0.1)


def test_frozen_needs_a_decoder(backbone, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(backbone)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError) as caught:
        train(tiny(tmp_path / "bert", method="frozen"), tmp_path / "r")
    assert str(caught.value) == (
        f"`method: frozen` needs a decoder with one linear layer as its head, the router backbone `{tmp_path}/bert` "
        "is a BertForSequenceClassification; take `method: lora`"
    )


def two_sided(num_prompts: int, seed: int, alpha: float = 0.3) -> Labelled:
    """Quality as in `corpus`; learnability the other way round, so that the best teacher turns with alpha."""
    quality = corpus(num_prompts, seed)
    learnability = 1 - quality.rewards
    rewards = (1 - alpha) * quality.rewards + alpha * learnability
    return quality._replace(rewards=rewards, quality=quality.rewards, learnability=learnability)


@pytest.mark.parametrize("method", ["full", "frozen"])
def test_two_heads_are_weighed_anew_without_training(method, backbone, tmp_path):
    settings = tiny(backbone, objective="two_head", method=method, tau=0.3, epochs=4)
    record = fit(settings, TEACHERS, two_sided(120, 1), two_sided(24, 2), tmp_path, seed=0)
    assert record["alpha"] == 0.3
    dev = two_sided(60, 3)
    for alpha in (None, 0.0, 0.3, 1.0):
        wanted = two_sided(60, 3, 0.3 if alpha is None else alpha).rewards
        scores = load(tmp_path, "cpu", alpha).scores(dev.conversations)
        assert (scores.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95, alpha
    found = [load(tmp_path, "cpu", alpha).scores(dev.conversations) for alpha in (None, 0.0, 1.0)]
    np.testing.assert_allclose(found[0], 0.7 * found[1] + 0.3 * found[2], atol=1e-12)
    labels = json.loads((tmp_path / "config.json").read_text())["id2label"]
    assert [labels[str(i)] for i in range(6)] == [
        f"{head}: {name}" for head in ("quality", "learnability") for name in TEACHERS
    ]


def test_one_alpha_is_built_into_the_other_routers(backbone, tmp_path):
    train(tiny(backbone, epochs=1), tmp_path)
    conversations = corpus(5, 3).conversations
    built_in, asked = (load(tmp_path, "cpu", alpha).scores(conversations) for alpha in (None, 1.0))
    assert (built_in == asked).all()


def test_two_heads_need_both_rewards(backbone, tmp_path):
    settings = tiny(backbone, objective="two_head")
    for part, lacks in ((corpus(20, 1), "quality"), (two_sided(20, 1)._replace(learnability=None), "learnability")):
        with pytest.raises(InputError) as caught:
            fit(settings, TEACHERS, part, part, tmp_path, seed=0)
        assert str(caught.value) == (
            f"the objective `two_head` needs quality and learnability rewards, found no {lacks}; measure both, or "
            "take the objective `soft_bt`"
        )
    with pytest.raises(
        ValueError, match="the objective `two_head` is for the kind `llm`, found ridge; take `soft_bt`"
    ):
        RouterSettings(kind="ridge", objective="two_head")


def test_training_on_pairs_alone_is_training_on_the_rewards(backbone, tmp_path):
    settings, part = tiny(backbone, epochs=2), corpus(60, 1, 0.2)
    ids = [str(row) for row in range(len(part.rewards))]
    found = compare_teachers(ids, TEACHERS, part.rewards)
    columns = {
        "prompt_id": [ids[row] for row in found.prompt],
        "teacher_a": [TEACHERS[column] for column in found.a],
        "teacher_b": [TEACHERS[column] for column in found.b],
        "label": found.label.tolist(),
    }
    kept, preferred = preferences(columns, TEACHERS)
    assert len(kept) < len(ids), "prompts with one reward or none have no pair"
    of_pairs = Labelled([part.conversations[int(row)] for row in kept], win_shares(preferred), preferences=preferred)
    of_rewards = part.take([int(row) for row in kept])
    nothing = Labelled([], np.zeros((0, 3)))
    by_rewards = fit(settings, TEACHERS, of_rewards, nothing, tmp_path / "rewards", seed=0)
    by_pairs = fit(settings, TEACHERS, of_pairs, nothing, tmp_path / "pairs", seed=0)
    assert by_rewards == by_pairs
    assert same_weights(tmp_path / "rewards", tmp_path / "pairs", 0)


@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(1, 12), st.integers(0, 3), st.integers(0, 5)
)
def test_every_step_has_its_prompts_once_and_weighs_them_alike(num_prompts, batch, processes, micro, epoch, lacking):
    tokens = [[1] * (1 + row % 7) for row in range(num_prompts + lacking)]
    preferred = torch.full((len(tokens), 1, 2, 2), 0.5)
    preferred[num_prompts:] = torch.nan  # not compared: nothing to learn
    prompts = Prompts(tokens, preferred, batch, seed=0)
    prompts.fill(processes, micro)
    assert prompts.micro <= micro and len(prompts) == prompts.steps * processes * prompts.micro * prompts.accumulation
    prompts.set_epoch(epoch)
    seen = []
    for start in range(0, len(prompts), prompts.per_step):
        step = prompts.order[start : start + prompts.per_step]
        assert sum(weight for _, weight in step) == pytest.approx(1)
        seen.append({row for row, weight in step if weight})
        assert len({weight for _, weight in step if weight}) == 1 and len(seen[-1]) <= batch
    assert sorted(row for step in seen for row in step) == list(range(num_prompts))
    other = Prompts(tokens, preferred, batch, seed=0)
    other.set_epoch(epoch)
    assert [{row for row, w in other.order[s : s + batch] if w} for s in range(0, len(other), batch)] == seen
