"""What a vLLM server of our own is sent, and how its replies are read: tokens, by our template and our decoding."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_models import build_tokenizer

from persyn_hf.backends import chat
from persyn_hf.backends.answers import Prepared, Request, Said, Sampling
from persyn_hf.backends.engines.bodies import Places
from persyn_hf.backends.engines.replies import Fault
from persyn_hf.backends.engines.tokens_endpoint import TokensEndpoint


PROMPT = "<|start|>user\nWhat is 12 and 30?<|end|><|start|>assistant\n"
SAMPLING = Sampling(temperature=0.5, top_p=0.9, top_k=3, max_tokens=7, seed=1 << 40)


@pytest.fixture
def endpoint() -> Iterator[TokensEndpoint]:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ends = [tokenizer.eos_token_id]
    made = TokensEndpoint(
        tokenizer,
        ends,
        "m",
        "http://localhost:1/v1",
        api_key=None,
        extra={},
        connections=1,
        key_hint="",
        places=Places(),
    )
    yield made
    asyncio.run(made.close())


def reply(endpoint: TokensEndpoint, text: str, reason: Any = "stop") -> Said | Fault:
    ids = chat.encode(endpoint._tokenizer, text)
    usage = {"prompt_tokens": 9, "completion_tokens": len(ids), "total_tokens": 9 + len(ids)}
    return endpoint.read({"choices": [{"text": "its own", "token_ids": ids, "finish_reason": reason}], "usage": usage})


def test_the_tokens_of_the_prompt_are_sent_and_no_messages(endpoint: TokensEndpoint) -> None:
    prompt = Prepared(text=PROMPT, num_tokens=9, messages=({"role": "user", "content": "What is 12 and 30?"},))
    names = {"prompt_id": "p", "model": "m", "engine": "e", "sample_index": 0}
    assert endpoint.address == "http://localhost:1/v1/completions"
    assert endpoint.body(Request(prompt=prompt, sampling=SAMPLING, **names)) == {
        "model": "m", "prompt": chat.encode(endpoint._tokenizer, PROMPT), "stream": False, "return_token_ids": True,
        "stop_token_ids": [endpoint._tokenizer.eos_token_id], "temperature": 0.5, "top_p": 0.9, "top_k": 3,
        "max_tokens": 7, "seed": (1 << 40) % (1 << 31),
    }  # fmt: skip


def test_the_answer_is_made_of_its_tokens(endpoint: TokensEndpoint) -> None:
    found = reply(endpoint, "<think>6 * 7</think><|start|>42<|end|>")
    assert isinstance(found, Said)
    assert (found.text, found.finish_reason, found.num_prompt_tokens) == ("<think>6 * 7</think>42", "stop", 9)
    assert found.num_tokens == len(chat.encode(endpoint._tokenizer, "<think>6 * 7</think><|start|>42<|end|>"))
    cut = reply(endpoint, "<think>6 * ", "length")
    assert isinstance(cut, Said)
    assert (cut.text, cut.finish_reason) == ("<think>6 * ", "length")


@pytest.mark.parametrize(
    "found", [{}, {"choices": []}, {"choices": [4]}, {"choices": [{"text": "42", "finish_reason": "stop"}]}]
)
def test_what_holds_no_tokens_is_a_fault(endpoint: TokensEndpoint, found: dict[str, Any]) -> None:
    fault = endpoint.read(found)
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.reason) == ("failed", "the server's answer is no completion (it has no `token_ids`)")


def test_an_answer_that_broke_off_is_a_fault(endpoint: TokensEndpoint) -> None:
    fault = reply(endpoint, "42", "abort")
    assert isinstance(fault, Fault)
    assert fault.reason == "the answer broke off (finish reason abort)"
