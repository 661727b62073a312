"""The server engine: what it prepares, what it refuses to start with, and answers from a real server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai_server import OpenAIServer, Response, completion

from persyn_hf.backends.answers import Listed, Prepared, Request, Sampling
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import ServerSettings
from persyn_hf.errors import EngineError, PersynError, RecipeError


URL = "http://localhost:1/v1"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def open_engine(
    url: str = URL, model: str = "m", *, system_prompt: str | None = None, **settings: Any
) -> ServerEngine:
    return ServerEngine(model, ServerSettings(urls=(url,), **settings), system_prompt=system_prompt)


def make_request(engine: Engine, prompt: Prepared, sample_index: int = 0) -> Request:
    sampling = Sampling(temperature=0.6, top_p=1.0, top_k=0, max_tokens=8, seed=5)
    return Request(
        prompt_id="p",
        model=engine.model,
        engine=engine.kind,
        sample_index=sample_index,
        prompt=prompt,
        sampling=sampling,
    )


def turn(content: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": content}


def test_kind_and_model_say_what_may_change_an_answer() -> None:
    settings = ServerSettings(urls=(URL,))
    pinned = ServerEngine("org/m", settings, revision="abc")
    assert (pinned.kind, pinned.model, pinned.fixed_batches, pinned.params_b) == ("server", "org/m@abc", False, None)
    assert ServerEngine("org/m", settings).model == "org/m"
    engine = open_engine(extra={"seed": None, "effort": "low"}, concurrency=2, timeout_s=3, attempts=1)
    assert engine.kind == 'server/{"effort":"low","seed":null}'


def test_a_conversation_is_prepared_as_it_is_sent() -> None:
    prepared = open_engine(system_prompt="Be brief.").prepare([turn("caf\xe9?")])
    messages = (turn("Be brief.", "system"), turn("caf\xe9?"))
    assert prepared == Prepared(
        text='[{"content":"Be brief.","role":"system"},{"content":"caf\\u00e9?","role":"user"}]',
        num_tokens=0,
        messages=messages,
    )
    own = [turn("Mine.", "system"), turn("hi")]
    assert open_engine(system_prompt="Be brief.").prepare(own).messages == tuple(own)


@pytest.mark.parametrize(
    ("messages", "refusal"),
    [
        ([], "the prompt is empty"),
        ([turn(" \n")], "the prompt is empty"),
        ([turn("half an emoji \ud83d")], "the prompt is no valid Unicode text"),
    ],
)
def test_what_cannot_be_asked_is_refused(messages: list[dict[str, str]], refusal: str) -> None:
    assert open_engine().prepare(messages).refusal == refusal


def test_answers_of_all_samples_and_the_plan_is_one_by_one(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(body=completion("4", reasoning="2 + 2"))
    with open_engine(server.url, system_prompt="Be brief.") as engine:
        good, bad = engine.prepare([turn("2 + 2?")]), engine.prepare([])
        requests = [make_request(engine, good), make_request(engine, bad), make_request(engine, good, 1)]
        batches = list(engine.plan(Listed(requests)))
        assert batches == [[request] for request in requests]
        found = {answer.request.key: answer for answers in engine.generate(batches) for answer in answers}
    assert [found[request.key].error for request in requests] == [None, "the prompt is empty", None]
    assert found[requests[0].key].reasoning == "2 + 2"
    assert [body["messages"] for body in server.bodies] == [[turn("Be brief.", "system"), turn("2 + 2?")]] * 2


def test_nothing_to_ask_needs_neither_key_nor_server() -> None:
    engine = open_engine(api_key_env="PERSYN_TEST_KEY")
    assert list(engine.generate([])) == []
    engine.close()


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_key_that_is_not_there_is_told_before_anything_is_sent(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("PERSYN_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("PERSYN_TEST_KEY", value)
    engine = open_engine(server.url, api_key_env="PERSYN_TEST_KEY")
    with pytest.raises(RecipeError) as caught:
        list(engine.generate([[make_request(engine, engine.prepare([turn("hi")]))]]))
    assert str(caught.value) == (
        "`generate.server.api_key_env` names the environment variable PERSYN_TEST_KEY, which is not set or empty; "
        "set it: export PERSYN_TEST_KEY=..."
    )
    assert server.headers == []


def test_the_key_is_sent_and_a_refused_one_named_by_its_variable(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSYN_TEST_KEY", "sk-secret\n")  # as `$(cat file)` in some shells leaves it
    server.behaviour = lambda text, times: Response(status=401, body={"error": {"message": "Incorrect API key"}})
    engine = open_engine(server.url, api_key_env="PERSYN_TEST_KEY")
    with engine, pytest.raises(EngineError) as caught:
        list(engine.generate([[make_request(engine, engine.prepare([turn("hi")]))]]))
    assert str(caught.value) == (
        f"{server.url} refuses access (HTTP 401: Incorrect API key); "
        "check the key in the environment variable PERSYN_TEST_KEY"
    )
    assert server.headers[0]["authorization"] == "Bearer sk-secret"
    monkeypatch.setenv("PERSYN_TEST_KEY", "sk-secr\xe9t")
    with engine, pytest.raises(RecipeError) as malformed:
        list(engine.generate([[make_request(engine, engine.prepare([turn("hi")]))]]))
    assert str(malformed.value) == (
        "the environment variable PERSYN_TEST_KEY holds no key: it has characters that no key has"
    )


def test_a_server_that_wants_a_key_is_told_where_to_name_it(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(status=401, body={"error": {"message": "Unauthorized"}})
    engine = open_engine(server.url)
    with engine, pytest.raises(EngineError) as caught:
        list(engine.generate([[make_request(engine, engine.prepare([turn("hi")]))]]))
    assert str(caught.value) == (
        f"{server.url} refuses access (HTTP 401: Unauthorized); where it wants a key, let "
        "`generate.server.api_key_env` name the variable that holds it"
    )


def test_a_teacher_without_a_url_is_told_how_to_get_one() -> None:
    with pytest.raises(RecipeError) as caught:
        ServerEngine("org/m", ServerSettings())
    assert str(caught.value) == (
        "the teacher model `org/m` has no server; set `generate.server.urls`, or the teacher's "
        "`server: {urls: [...]}`, e.g. to http://localhost:8000/v1"
    )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"n": 4}, "`generate.server.extra` must not hold `n`, which the engine sets; take it out"),
        ({"model": None}, "`generate.server.extra` must not hold `model`, which the engine sets; take it out"),
        (
            {"max_tokens": 9},
            "`generate.server.extra` holds `max_tokens`: 9, which `generate` sets; only null is allowed here (the "
            "field is not sent; `max_completion_tokens: null` sends `max_tokens` under that name)",
        ),
    ],
)
def test_extra_may_not_contradict_the_recipe(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        open_engine(extra=extra)
    assert str(caught.value) == message


def test_every_fault_is_one_sentence_for_the_user() -> None:
    engine = open_engine("http:///v1")
    with pytest.raises(PersynError) as caught:
        list(engine.generate([[make_request(engine, engine.prepare([turn("hi")]))]]))
    assert str(caught.value) == (
        "`server.urls`: found 'http:///v1', an address such as http://localhost:8000/v1 is needed"
    )


def test_the_engine_can_be_used_again_after_close(server: OpenAIServer) -> None:
    engine = open_engine(server.url)
    batch = [make_request(engine, engine.prepare([turn("hi")]))]
    for _ in range(2):
        assert [answer.text for answers in engine.generate([batch]) for answer in answers] == ["you said hi"]
        engine.close()
    assert json.dumps(server.bodies[0]) == json.dumps(server.bodies[1])
