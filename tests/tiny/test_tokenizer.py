"""The shared tokenizer: exact round trip, and a template that marks the response and its end."""

import json
import random
from pathlib import Path

import pytest

from persyn_hf.tiny.questions import make_splits
from persyn_hf.tiny.styles import STYLES, respond
from persyn_hf.tiny.tokenizer import build_tokenizer, tokenizer_sha256


ZOO = Path(__file__).parents[2] / "recipes" / "tiny" / "zoo"
TURNS = [{"role": "user", "content": "What is 4 + 5?"}, {"role": "assistant", "content": r"4 + 5 = 9. \boxed{9}"}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_round_trip_is_exact(tokenizer):
    rng = random.Random(0)
    for one in make_splits(0)["dev"]:
        for text in (one.question, *(respond(one, style, rng) for style in STYLES)):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    strange = "Größe 3,14 → ∑\t\n  ok"
    assert tokenizer.decode(tokenizer(strange)["input_ids"]) == strange


def test_digits_are_single_tokens(tokenizer):
    assert tokenizer.tokenize("4812")[-4:] == ["4", "8", "1", "2"]


def test_pad_and_end_differ(tokenizer):
    assert tokenizer.pad_token == "<|pad|>" and tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_template_text(tokenizer):
    prompt = tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>What is 4 + 5?<|end|><|assistant|>"
    full = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert full == prompt + TURNS[1]["content"] + "<|end|>"


@pytest.mark.parametrize("rounds", [1, 2])
def test_template_marks_response_and_end_only(tokenizer, rounds):
    encoded = tokenizer.apply_chat_template(TURNS * rounds, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, on in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if on]
    assert tokenizer.decode(marked) == (TURNS[1]["content"] + "<|end|>") * rounds


def test_system_turn_is_refused(tokenizer):
    with pytest.raises(Exception, match="user and assistant only, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, *TURNS], tokenize=False)


def test_hash_equals_the_zoo(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    built = tokenizer_sha256(tmp_path)
    records = json.loads((ZOO / "zoo.json").read_text())["models"]
    for one in records:
        assert one["tokenizer_sha256"] == built == tokenizer_sha256(ZOO / one["name"])
        assert json.loads((ZOO / one["name"] / "config.json").read_text())["tokenizer_sha256"] == built
