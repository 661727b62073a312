"""What the client sends, reads and hands out, and how it ends; against a real server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import pytest
from openai_server import OpenAIServer, Response, ask, ask_once, completion, connect, make_request, on

from persyn_hf.backends.answers import Answer, Request
from persyn_hf.backends.engines.addresses import addresses
from persyn_hf.backends.engines.endpoint import CHAT, URLS_AT
from persyn_hf.errors import EngineError, RecipeError


KEY = "sk-never-to-be-seen"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


# What is sent and what is read


def test_a_request_goes_out_as_the_recipe_says(server: OpenAIServer) -> None:
    answer = ask_once(server, "hello", extra={"stop_token_ids": [7]})["hello"]
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.6,
            "top_p": 0.9,
            "max_tokens": 8,
            "seed": (1 << 31) - 1,
            "stream": False,
            "stop_token_ids": [7],
        }
    ]
    assert (answer.text, answer.finish_reason, answer.error) == ("you said hello", "stop", None)
    assert (answer.num_tokens, answer.num_prompt_tokens, answer.reasoning) == (3, 7, None)
    assert answer.request == make_request("hello")


def test_greedy_sends_no_seed_and_extra_can_take_out_and_rename(server: OpenAIServer) -> None:
    client = connect(server.url, extra={"temperature": None, "max_completion_tokens": None, "effort": "low"})
    list(client.answers([make_request("a", temperature=0.0), make_request("b", top_k=5)]))
    client.close()
    greedy, drawn = sorted(server.bodies, key=lambda body: body["messages"][0]["content"])
    assert {**greedy, "messages": 0} == {
        "model": "m",
        "messages": 0,
        "stream": False,
        "max_completion_tokens": 8,
        "effort": "low",
    }
    assert (drawn["top_k"], drawn["top_p"], "temperature" in drawn) == (5, 0.9, False)


def test_neither_the_hub_token_nor_a_proxy_gets_in_between(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hf_secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    ask_once(server, "hello")
    assert server.headers and "hf_secret" not in json.dumps(server.headers)
    assert all("authorization" not in headers for headers in server.headers)
    ask_once(server, "hello", api_key=KEY)
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_apart(server: OpenAIServer, field: str) -> None:
    server.behaviour = on("q", Response(body=completion("4", "length", **{field: "2 + 2"})))
    answer = ask_once(server, "q")["q"]
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("4", "2 + 2", "length")


def test_an_answer_may_be_empty_and_its_tokens_uncounted(server: OpenAIServer) -> None:
    body = completion(None, "content_filter")
    del body["usage"]
    server.behaviour = on("q", Response(body=body))
    answer = ask_once(server, "q")["q"]
    assert (answer.text, answer.finish_reason, answer.error) == ("", "content_filter", None)
    assert (answer.num_tokens, answer.num_prompt_tokens) == (None, None)


def test_half_a_surrogate_pair_becomes_a_replacement_character(server: OpenAIServer) -> None:
    server.behaviour = on("q", Response(body=completion("\ud83d\ude00 \ud83d")))  # json.dumps escapes both
    assert ask_once(server, "q")["q"].text == "\U0001f600 \ufffd"


def test_what_cannot_be_asked_is_not_sent(server: OpenAIServer) -> None:
    client = connect(server.url)
    requests = [make_request("a", refusal="the prompt is empty"), make_request("b"), make_request("\ud800")]
    found = {answer.request.prompt_id: answer for answers in client.answers(requests) for answer in answers}
    client.close()
    assert {name: answer.error for name, answer in found.items()} == {
        "a": "the prompt is empty",
        "b": None,
        "\ud800": "the prompt is no valid Unicode text",
    }
    assert list(server.times) == ["b"]


@pytest.mark.parametrize(
    ("url", "chat"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("http://h/api?version=2", "http://h/api/v1/chat/completions?version=2"),
        ("http://h/openai/chat/completions", "http://h/openai/chat/completions"),
        ("http://h/v1beta/openai/", "http://h/v1beta/openai/chat/completions"),
        ("http://h/api/paas/v4", "http://h/api/paas/v4/chat/completions"),
        ("http://h/compatible-mode/v1", "http://h/compatible-mode/v1/chat/completions"),
        (
            "http://h/openai/deployments/x?api-version=1",
            "http://h/openai/deployments/x/chat/completions?api-version=1",
        ),
        ("http://h/vllm", "http://h/vllm/v1/chat/completions"),
    ],
)
def test_a_url_may_be_given_in_several_ways(url: str, chat: str) -> None:
    assert addresses(url, CHAT, URLS_AT) == (chat, chat.replace("/chat/completions", "/models"))


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        connect("http://")
    assert str(caught.value) == (
        "`server.urls`: found 'http://', an address such as http://localhost:8000/v1 is needed"
    )


# The queue


def test_answers_come_in_order_of_completion_and_in_groups(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.6 if text == "slow" else 0.1)
    client = connect(server.url)
    groups = []
    for answers in client.answers(map(make_request, ["slow", "a", "b", "c"])):
        groups.append([answer.request.prompt_id for answer in answers])
        time.sleep(0.3)  # a caller who is busy: what comes in meanwhile is one group
    client.close()
    assert groups[-1] == ["slow"]
    assert sorted(sum(groups[:-1], [])) == ["a", "b", "c"]
    assert len(groups) <= 3


def test_requests_are_read_only_as_far_as_they_fit(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.02)
    read = 0

    def requests() -> Iterator[Request]:
        nonlocal read
        for number in range(30):  # a budget may end it at any time; what is in flight still comes
            read += 1
            yield make_request(str(number))

    client = connect(server.url, concurrency=4, max_concurrency=4)
    answered = 0
    for answers in client.answers(requests()):
        assert read - answered <= 4
        answered += len(answers)
    client.close()
    assert answered == read == 30
    assert server.most_in_flight == 4


@pytest.mark.heavy
def test_concurrency_rises_to_its_bound(server: OpenAIServer) -> None:
    """At first 40, and one more with each answer: the server gives none before so many are in flight."""
    begun, answered, released, turn = 0, 0, 0.0, threading.Condition()

    def hold(text: str, times: int) -> Response:
        nonlocal begun, answered, released
        with turn:
            begun += 1
            turn.notify_all()
            turn.wait_for(lambda: begun == 400 or begun - answered >= min(40 + answered, 120), timeout=60)
            answered += 1
            released = released or time.monotonic() + 0.5
            return Response(seconds=0.5 if answered == 1 else 0)

    server.behaviour = hold
    ask_once(server, *map(str, range(400)), concurrency=40, max_concurrency=120, timeout_s=200)
    assert server.most_in_flight == 120  # HTTP clients open 100 connections by default
    assert server.arrivals[40] > released  # at first 40, no more


def test_seconds_add_up_to_the_wall_time(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.05)
    client = connect(server.url)
    time.sleep(0.3)  # is nobody's share
    started = time.perf_counter()
    found = ask(client, *map(str, range(50)))
    wall = time.perf_counter() - started
    client.close()
    assert sum(answer.seconds for answer in found.values()) == pytest.approx(wall, abs=0.2)


def test_threads_share_one_client(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.03)
    client = connect(server.url, concurrency=6, max_concurrency=6)
    found: list[dict[str, Answer]] = []
    threads = [
        threading.Thread(
            target=lambda name=name: found.append(ask(client, *(f"{name}{i}" for i in range(20))))  # type: ignore[misc]
        )
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    client.close()
    assert sorted(len(part) for part in found) == [20, 20, 20]
    assert 4 <= server.most_in_flight <= 6


# Ends


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_a_caller_who_stops_early_cancels_what_is_in_flight(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0 if text == "0" else 30)
    client = connect(server.url, concurrency=4, max_concurrency=4)
    answers = client.answers(make_request(str(number)) for number in range(10))
    assert [answer.request.prompt_id for answer in next(answers)] == ["0"]
    assert wait_until(lambda: len(server.bodies) == 4)
    answers.close()
    assert wait_until(lambda: server.in_flight == 0) and server.cut_by_client == 3
    server.behaviour = lambda text, times: Response()
    assert ask(client, "again")["again"].error is None  # its slots are free again
    client.close()
    client.close()


def test_a_fault_in_the_requests_reaches_the_caller(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=30)

    def requests() -> Iterable[Request]:
        yield make_request("a")
        raise KeyError("mine")

    client = connect(server.url)
    with pytest.raises(KeyError, match="mine"):
        list(client.answers(requests()))
    assert wait_until(lambda: server.in_flight == 0)
    client.close()


def test_close_frees_a_caller_who_waits(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=30)
    client = connect(server.url)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(EngineError, match="closed while answers were awaited"):
        ask(client, "q")


def test_what_has_come_in_is_handed_out_before_ctrl_c_goes_on(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.0 if text == "first" else 0.2)
    client = connect(server.url)
    answers = client.answers(make_request(text) for text in ("first", "second", "third"))
    assert isinstance(answers, Generator)
    assert [answer.request.prompt_id for answer in next(answers)] == ["first"]
    assert wait_until(lambda: len(server.bodies) == 3 and server.in_flight == 0)
    time.sleep(0.3)
    assert {answer.request.prompt_id for answer in answers.throw(KeyboardInterrupt())} == {"second", "third"}
    with pytest.raises(KeyboardInterrupt):
        next(answers)
    client.close()


CTRL_C = """
import signal, sys
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from openai_server import connect, make_request

client = connect({url!r}, recover=lambda url: signal.pause())
print("asking", flush=True)
try:
    list(client.answers([make_request("q")]))
except KeyboardInterrupt:
    client.close()
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("away", [False, True], ids=["hangs", "away"])
def test_ctrl_c_ends_at_once(server: OpenAIServer, away: bool) -> None:
    server.behaviour = lambda text, times: Response(seconds=60)
    if away:
        server.stop()
    code = CTRL_C.format(tests=str(Path(__file__).parent), url=server.url)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "asking\n"
    assert away or wait_until(lambda: server.in_flight == 1)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert child.communicate(timeout=20)[0] == "stopped\n"
    assert child.returncode == 0 and time.monotonic() - started < 5
    assert wait_until(lambda: server.in_flight == 0)
