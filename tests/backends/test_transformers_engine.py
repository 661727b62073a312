import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import END, build_tokenizer, save_model

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.answers import Listed, Request, Sampling
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.backends.thoughts import split_thoughts
from persyn_hf.errors import EngineError, InputError


SAMPLING = Sampling(temperature=0.8, top_p=1.0, top_k=0, max_tokens=12, seed=5)
PROMPTS = ["What is 12 and 30?", "Sum?", "another, rather longer question about 17 and 4", "q"]


@pytest.fixture(scope="module")
def engine(tiny_models: dict[str, Path]) -> Iterator[TransformersEngine]:
    with TransformersEngine(str(tiny_models["qwen2"]), batch_tokens=150, dtype="float32") as loaded:
        yield loaded


def ask(engine: TransformersEngine, content: str, index: int = 0, sampling: Sampling = SAMPLING) -> Request:
    return Request(
        prompt_id=content[:8],
        model=engine.model,
        engine=engine.kind,
        sample_index=index,
        prompt=engine.prepare([{"role": "user", "content": content}]),
        sampling=sampling,
    )


def texts(engine: TransformersEngine, batches: list[list[Request]]) -> dict[str, str]:
    return {a.request.key: f"{a.text}|{a.finish_reason}" for batch in engine.generate(batches) for a in batch}


def test_the_same_batches_give_the_same_answers_whatever_went_before(engine: TransformersEngine) -> None:
    requests = [ask(engine, prompt, index) for prompt in PROMPTS for index in range(3)]
    plan = list(engine.plan(Listed(requests)))
    assert len(plan) > 2
    assert list(engine.plan(Listed(reversed(requests)))) == plan
    whole = texts(engine, plan)
    torch.manual_seed(99)
    assert texts(engine, plan[1:]) | texts(engine, plan[:1]) == whole
    assert len({whole[request.key] for request in requests[:3]}) == 3  # samples of one prompt differ


def test_a_plan_is_that_of_one_sorted_list(engine: TransformersEngine) -> None:
    """Batches are part of the answers: longest prompt first, then by text and key, cut where the next does not fit."""
    texts = [" ".join(["x"] * (number % 7) + [str(number % 3)]) for number in range(40)]
    requests = [ask(engine, text, number // 21) for number, text in enumerate(texts)]
    requests += [ask(engine, "y", sampling=replace(SAMPLING, max_tokens=5)), ask(engine, " ")]
    plain: list[list[Request]] = [[requests[-1]], []]
    ordered = sorted(requests[:-1], key=lambda r: (-r.prompt.num_tokens, r.prompt.text, r.key))
    for request in ordered:
        batch, room = plain[-1], request.sampling.max_tokens
        full = batch and (len(batch) + 1) * (batch[0].prompt.num_tokens + room) > engine._batch_tokens
        if full or (batch and batch[0].sampling.max_tokens != room):
            plain.append([])
        plain[-1].append(request)
    assert list(engine.plan(Listed(requests))) == plain and len(plain) > 4


def test_greedy_equals_the_naive_loop_and_counts_the_end_token(engine: TransformersEngine) -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    requests = [ask(engine, prompt, sampling=greedy) for prompt in PROMPTS]
    answers = {a.request.key: a for batch in engine.generate([requests]) for a in batch}
    model, tokenizer = engine._model(), engine.tokenizer
    for request in requests:
        ids = chat.encode(tokenizer, request.prompt.text)
        assert len(ids) == request.prompt.num_tokens
        new: list[int] = []
        while len(new) < 12 and (not new or new[-1] != tokenizer.eos_token_id):
            with torch.no_grad():
                new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        found = answers[request.key]
        assert found.num_tokens == len(new)
        assert found.finish_reason == ("stop" if new[-1] == tokenizer.eos_token_id else "length")
        assert found.text == tokenizer.decode(new, skip_special_tokens=True)


def test_every_end_token_stops(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(engine, "q")
    model = engine._model()
    first = next(engine.generate([[request]]))[0]
    ids = chat.encode(engine.tokenizer, first.text)
    assert first.num_tokens > 1
    monkeypatch.setattr(engine, "_ends", list(range(len(engine.tokenizer))))
    stopped = next(engine.generate([[request]]))[0]
    assert (stopped.finish_reason, stopped.num_tokens, stopped.text) == ("stop", 1, "")
    assert model is engine._model()
    assert ids


def test_bad_rows_leave_their_neighbours_alone(engine: TransformersEngine) -> None:
    good = [ask(engine, prompt) for prompt in PROMPTS[:2]]
    long, empty = ask(engine, "long " * 300), ask(engine, "   ")
    refused = replace(good[0], prompt=engine.prepare([{"role": "system", "content": "refuse"}, *PROMPT]))
    alone = texts(engine, list(engine.plan(Listed(good))))
    answers = [a for batch in engine.generate(engine.plan(Listed([*good, long, empty, refused]))) for a in batch]
    errors = {a.error for a in answers if a.finish_reason == "error"}
    assert f"the prompt has {long.prompt.num_tokens} tokens, the model's context is 256" in errors
    assert "the prompt is empty" in errors
    assert any(error and error.startswith("the chat template refuses the prompt") for error in errors)
    assert {a.request.key: f"{a.text}|{a.finish_reason}" for a in answers if not a.error} == alone


PROMPT = [{"role": "user", "content": "q"}]


def test_a_prompt_near_the_context_gets_what_is_left(engine: TransformersEngine) -> None:
    content = "x " * 115
    request = ask(engine, content, sampling=replace(SAMPLING, max_tokens=200))
    left = 256 - request.prompt.num_tokens
    assert 0 < left < 200
    plan = list(engine.plan(Listed([request, ask(engine, "q", sampling=replace(SAMPLING, max_tokens=200))])))
    assert [len(batch) for batch in plan] == [1, 1]
    answer = next(engine.generate(plan))[0]
    assert answer.num_tokens <= left


def test_the_system_prompt_goes_in_front(tiny_models: dict[str, Path]) -> None:
    with TransformersEngine(str(tiny_models["llama"]), batch_tokens=99, system_prompt="Be brief.") as engine:
        assert engine.prepare(PROMPT).text.startswith("<|start|>system\nBe brief.<|end|>")
        own = [{"role": "system", "content": "Mine."}, *PROMPT]
        assert "Be brief" not in engine.prepare(own).text


def test_sampling_defaults_of_the_model_are_not_used(tmp_path: Path) -> None:
    save_model(tmp_path)
    config = json.loads((tmp_path / "generation_config.json").read_text())
    prompts = {}
    for name, extra in (("plain", {}), ("tuned", {"top_k": 1, "do_sample": True, "repetition_penalty": 9.0})):
        (tmp_path / "generation_config.json").write_text(json.dumps(config | extra))
        with TransformersEngine(str(tmp_path), batch_tokens=999) as engine:
            engine.model = "same"  # its digest differs, and with it the seed
            prompts[name] = texts(engine, [[ask(engine, prompt, index) for prompt in PROMPTS for index in range(2)]])
    assert prompts["plain"] == prompts["tuned"]


def test_identity_follows_the_weights_not_the_name(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    same = save_model(tmp_path / "copy", "qwen2", seed=0)
    other = save_model(tmp_path / "other", "qwen2", seed=9)
    known = models.identify(str(tiny_models["qwen2"]))
    assert known == models.identify(str(same))
    assert known != models.identify(str(other))
    with TransformersEngine(str(same), batch_tokens=9) as engine:
        assert engine.params_b is not None
        assert engine.params_b * 1e9 == pytest.approx(engine._model().num_parameters(), rel=0.5)


def test_a_hub_model_is_named_by_its_commit(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--org--x"
    shutil.copytree(tiny_models["qwen2"], repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "refs" / "v1").write_text(commit)
    code = "from persyn_hf.backends.loading import identify; print(identify('org/x'), identify('org/x', 'v1'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [f"org/x@{commit}"] * 2


def test_models_that_cannot_be_used(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model folder /no/such does not exist; give a folder or the id of a Hub"):
        TransformersEngine("/no/such", batch_tokens=9)
    with pytest.raises(EngineError, match="the model `nobody/nothing` cannot be found: "):
        TransformersEngine("nobody/nothing", batch_tokens=9)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no safetensors file; convert the weights to safetensors"):
        TransformersEngine(str(empty), batch_tokens=9)
    (empty / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="the tokenizer of `.*empty` cannot be loaded: .* has no tokenizer.json"):
        TransformersEngine(str(empty), batch_tokens=9)
    bare = save_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template; use a chat model, or give a student its own"):
        TransformersEngine(str(bare), batch_tokens=9)
    broken = save_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"12345678")
    with TransformersEngine(str(broken), batch_tokens=9) as engine:
        with pytest.raises(EngineError, match="the model `.*broken` cannot be loaded: "):
            list(engine.generate([[ask(engine, "q")]]))


@pytest.mark.parametrize(
    ("text", "prompt", "split"),
    [
        ("plain", "", ("plain", None)),
        ("<think>\nhm\n</think>\n\n42", "", ("42", "hm")),
        ("hm\n</think>42", "<think>\n", ("42", "hm")),
        ("hm</think>42", "", ("42", "hm")),
        ("<think>cut off", "", ("", "cut off")),
        ("cut off", "<|start|>assistant\n<think>\n", ("", "cut off")),
        ("a <think> in text", "", ("a <think> in text", None)),
    ],
)
def test_reasoning_is_split_off(text: str, prompt: str, split: tuple[str, str | None]) -> None:
    assert split_thoughts(text, prompt) == split


def test_special_tokens_are_no_text() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer("<think>a , b<|start|> .</think><|end|>c", add_special_tokens=False)["input_ids"]
    assert chat.until_end(tokenizer, ids, ()) == ("<think>a , b .</think>c", len(ids), False)
    end = ids.index(tokenizer.convert_tokens_to_ids(END))
    assert chat.until_end(tokenizer, ids, [ids[end]]) == ("<think>a , b .</think>", end + 1, True)
    assert not chat.special_thoughts(tokenizer)


@pytest.mark.parametrize(
    ("text", "tokens", "split"),
    [
        ("<think>\n6 * 7\n</think>\n\n<|start|>42", ["<think>", "</think>"], ("42", "6 * 7")),
        ("[THINK]6 * 7[/THINK]42", ["[THINK]", "[/THINK]"], ("42", "6 * 7")),
        (
            "<|channel|>analysis<|message|>6 * 7<|end|><|start|>assistant<|channel|>final<|message|>42",
            ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"],
            ("42", "6 * 7"),
        ),
        ("<|channel>thought\n6 * 7<channel|>42", ["<|channel>", "<channel|>"], ("42", "6 * 7")),
        ("<reserved_think>42", [], ("42", None)),
    ],
)
def test_tags_of_thoughts_that_are_special_tokens_are_kept(
    text: str, tokens: list[str], split: tuple[str, str | None]
) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<reserved_think>", *tokens]})
    said, _, _ = chat.until_end(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], ())
    assert split_thoughts(said) == split
    assert chat.special_thoughts(tokenizer) == set(tokenizer.convert_tokens_to_ids(tokens))


def test_the_end_of_turn_is_the_templates_not_the_eos() -> None:
    tokenizer = build_tokenizer()
    assert chat.end_of_turn(tokenizer, "m") == tokenizer.convert_tokens_to_ids(END)
    tokenizer.eos_token = "<|pad|>"
    assert chat.end_of_turn(tokenizer, "m") == tokenizer.convert_tokens_to_ids(END)
