"""docs/servers.md, row by row: a local server sends what each server is documented to send."""

from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer, Response, ask, completion, connect

from persyn_hf.backends.engines import lanes
from persyn_hf.backends.thoughts import split_thoughts
from persyn_hf.core.endings import is_cut, is_whole
from persyn_hf.errors import EngineError
from persyn_hf.recipe.file import load_recipe


def usage(prompt: int, tokens: int, total: int | None = None, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": total or prompt + tokens, **more}


def body(message: dict[str, Any], finish_reason: Any, of: dict[str, Any] | None) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": of}


def thought(number: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": number}}


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "4"}]

ANSWERS: dict[str, tuple[dict[str, Any], tuple[str, str | None, int | None, bool]]] = {
    # server -> what it sends; text, reasoning, tokens, whether the answer is whole
    "OpenAI": (
        body({"content": "4", "refusal": None}, "stop", usage(20, 110, **thought(100))),
        ("4", None, 110, True),
    ),
    "Azure": (body({"content": "half"}, "content_filter", usage(20, 9)), ("half", None, 9, False)),
    "Gemini": (
        body({"content": "<thought>hm</thought>4"}, "stop", usage(20, 198, 623)),
        ("4", "hm", 603, True),
    ),
    "Gemini, thoughts alone": (body({"content": "4"}, "stop", usage(21, 0, 81, **thought(60))), ("4", None, 60, True)),
    "Gemini, filtered": (
        body({"content": "half"}, "content_filter: RECITATION", usage(2, 3)),
        ("half", None, 3, False),
    ),
    "Anthropic": (body({"content": "4"}, "stop", usage(20, 9)), ("4", None, 9, True)),
    "Mistral": (body({"content": PARTS}, "stop", usage(20, 9)), ("4", "hm", 9, True)),
    "Mistral, cut": (body({"content": "half"}, "model_length", usage(20, 9)), ("half", None, 9, False)),
    "DeepSeek": (
        body({"content": "4", "reasoning_content": "hm"}, "stop", usage(20, 109, **thought(100))),
        ("4", "hm", 109, True),
    ),
    "xAI": (body({"content": "4"}, "stop", usage(20, 10, 1030, **thought(1000))), ("4", None, 1010, True)),
    "Groq": (body({"content": "4", "reasoning": "hm"}, "stop", usage(20, 9, queue_time=0.1)), ("4", "hm", 9, True)),
    "Together": (body({"content": "<think>\nhm\n</think>\n\n4"}, "eos", usage(20, 9)), ("4", "hm", 9, True)),
    "OpenRouter": (
        body(
            {"content": "4", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
            "stop",
            usage(20, 9),
        ),
        ("4", "hm", 9, True),
    ),
    "Hub's Inference Providers": (body({"content": "4"}, "eos_token", usage(20, 9)), ("4", None, 9, True)),
    "vLLM": (body({"content": "4", "reasoning": "hm", "tool_calls": []}, "stop", usage(20, 9)), ("4", "hm", 9, True)),
    "vLLM, a pattern": (body({"content": "4 4 4"}, "repetition", usage(20, 9)), ("4 4 4", None, 9, False)),
    "SGLang": (
        body({"content": "4", "reasoning_content": "hm"}, "stop", usage(20, 109, reasoning_tokens=100)),
        ("4", "hm", 109, True),
    ),
    "llama.cpp": (body({"content": "half"}, "length", usage(20, 9)), ("half", None, 9, False)),
    "Ollama": (body({"content": "4", "reasoning": "hm"}, "stop", usage(20, 9)), ("4", "hm", 9, True)),
    "Ollama, no prompt counted": (body({"content": "4"}, "stop", usage(0, 9)), ("4", None, 9, True)),
    "no usage": (body({"content": "4"}, "stop", None), ("4", None, None, True)),
}

BROKEN = {  # server -> what it sends, and the words of the row's error
    "DeepSeek": (body({"content": "half"}, "insufficient_system_resource", usage(20, 9)), "the answer broke off"),
    "Mistral": (body({"content": "half"}, "error", usage(20, 9)), "the answer broke off"),
    "vLLM and SGLang": (body({"content": "half"}, "abort", usage(20, 9)), "the answer broke off"),
    "OpenAI": (body({"content": None, "refusal": "I can't help."}, "stop", usage(20, 9)), "refused: I can't help."),
    "OpenRouter": (
        body({"content": ""}, "error", usage(20, 9)) | {"error": {"code": 400, "message": "Provider returned error"}},
        "error 400: Provider returned error",
    ),
}

PASSING = {  # server -> status and body of the first reply; the second one is an answer
    "Groq": (498, {"error": {"message": "Flex tier capacity exceeded", "type": "capacity_exceeded"}}),
    "Anthropic": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "OpenAI": (429, {"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}}),
    "OpenRouter": (200, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-min"}}),
    "OpenRouter, a provider": (200, {"error": {"code": 502, "message": "over capacity"}, "user_id": "u"}),
    "llama.cpp": (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    "a proxy": (408, {"error": {"message": "stream disconnected", "code": "request_timeout"}}),
}

FINAL = {  # server -> status and body, and the words of the sentence that ends the run
    "OpenAI": (429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, "wants money"),
    "DeepSeek": (402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}, "wants money"),
    "Hub's Inference Providers": (401, {"error": "Invalid username or password."}, "refuses access"),
    "Ollama": (404, {"error": {"message": "model 'm' not found", "type": "not_found_error"}}, "does not answer for"),
}

REJECTED = {  # server -> status and body, and the words of the row's error
    "Azure": (400, {"error": {"message": "filtered", "code": "content_filter"}}, "HTTP 400: filtered"),
    "Mistral": (422, {"detail": [{"msg": "Extra inputs are not permitted"}]}, "Extra inputs are not permitted"),
    "OpenRouter": (403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}}, "flagged"),
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "FIRST_WAIT_S", 0.02)


def ask_for(replies: dict[str, list[Response]], **options: Any) -> dict[str, Any]:
    """One request per entry; each is sent its replies in turn, then an answer."""

    def behave(text: str, times: int) -> Response:
        found = replies[text]
        return found[times - 1] if times <= len(found) else Response(body=completion("4"))

    with OpenAIServer(behave) as server:
        client = connect(server.url, **options)
        try:
            return ask(client, *replies)
        finally:
            client.close()


def test_answers_of_every_server_are_read() -> None:
    found = ask_for({name: [Response(body=sent)] for name, (sent, _) in ANSWERS.items()})
    for name, (_, (text, reasoning, tokens, whole)) in ANSWERS.items():
        answer = found[name]
        assert answer.error is None, (name, answer.error)
        visible, thoughts = split_thoughts(answer.text)
        assert (visible, answer.reasoning or thoughts, answer.num_tokens) == (text, reasoning, tokens), name
        assert is_whole(answer.finish_reason) == whole and is_cut(answer.finish_reason) != whole, name
    assert found["Ollama, no prompt counted"].num_prompt_tokens is None


def test_half_answers_and_refusals_of_every_server_are_error_rows() -> None:
    found = ask_for({name: [Response(body=sent)] for name, (sent, _) in BROKEN.items()})
    for name, (_, words) in BROKEN.items():
        assert words in (found[name].error or ""), (name, found[name])


def test_what_passes_with_every_server_costs_no_row() -> None:
    found = ask_for({name: [Response(status=status, body=sent)] for name, (status, sent) in PASSING.items()})
    assert {name: answer.error for name, answer in found.items()} == dict.fromkeys(PASSING)


@pytest.mark.parametrize("name", FINAL)
def test_what_no_request_gets_past_ends_the_run(name: str) -> None:
    status, sent, words = FINAL[name]
    with pytest.raises(EngineError, match=words):
        ask_for({name: [Response(status=status, body=sent)] * 9})


def test_what_one_prompt_does_not_get_past_is_its_row() -> None:
    found = ask_for({name: [Response(status=status, body=sent)] for name, (status, sent, _) in REJECTED.items()})
    for name, (_, _, words) in REJECTED.items():
        assert words in (found[name].error or ""), (name, found[name])


def test_a_redirect_to_another_server_gets_no_prompt_and_one_within_it_does() -> None:
    with OpenAIServer() as other, OpenAIServer() as server:
        near = Response(status=307, headers={"location": "/v1/chat/completions"})
        far = Response(status=308, headers={"location": f"http://localhost:{other.port}/v1/chat/completions"})
        server.behaviour = lambda text, times: near if times == 1 else Response()
        client = connect(server.url)
        assert ask(client, "near")["near"].error is None
        client.close()
        server.behaviour = lambda text, times: far
        client = connect(server.url)
        with pytest.raises(EngineError, match="redirects to another address"):
            ask(client, "far")
        client.close()
        assert other.bodies == []


def test_a_port_that_speaks_no_tls_is_told_at_once() -> None:
    with OpenAIServer() as server:
        client = connect(server.url.replace("http:", "https:"), patience_s=600)
        with pytest.raises(EngineError, match="cannot be spoken to"):
            ask(client, "q")
        client.close()


def test_every_row_of_the_page_names_a_server_of_this_file(root: Path) -> None:
    page = (root / "docs/servers.md").read_text(encoding="utf-8").partition("## What servers send")[2]
    named = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")} - {"server"}
    tested = {name.partition(",")[0] for table in (ANSWERS, BROKEN, PASSING, FINAL, REJECTED) for name in table}
    assert len(named) == 15 and named <= tested, named - tested


@pytest.mark.parametrize(
    "name", ["openai", "gemini", "anthropic", "mistral", "groq", "openrouter", "hf-inference", "litellm"]
)
def test_the_recipes_of_servers_are_valid(root: Path, name: str) -> None:
    recipe = load_recipe(root / f"recipes/server/{name}.yaml")
    assert all(teacher.price is not None for teacher in recipe.teachers)
