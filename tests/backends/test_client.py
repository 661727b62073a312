"""The client against a real server that does what bad servers do."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from openai_server import Behaviour, OpenAIServer, Response, completion

from persyn_hf.backends.engines import Answer, Prepared, Request, Sampling, concurrency
from persyn_hf.backends.engines.client import Client
from persyn_hf.backends.engines.concurrency import Limit
from persyn_hf.backends.engines.endpoint import _addresses, _pause
from persyn_hf.errors import EngineError, RecipeError


KEY = "sk-never-to-be-seen"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "FIRST_WAIT_S", 0.05)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def make_request(text: str, *, refusal: str | None = None, **sampling: Any) -> Request:
    drawn = {"temperature": 0.6, "top_p": 0.9, "top_k": 0, "max_tokens": 8, "seed": (1 << 63) - 1} | sampling
    return Request(
        prompt_id=text,
        model="m",
        engine="server",
        sample_index=0,
        prompt=Prepared(text=text, num_tokens=0, refusal=refusal, messages=({"role": "user", "content": text},)),
        sampling=Sampling(**drawn),
    )


def connect(*urls: str, **options: Any) -> Client:
    settings: dict[str, Any] = {
        "api_key": None,
        "extra": {},
        "concurrency": 16,
        "max_concurrency": 64,
        "timeout_s": 20,
        "attempts": 3,
        "patience_s": 10,
    }
    return Client("m", urls, **(settings | options))


def ask(client: Client, *texts: str) -> dict[str, Answer]:
    """Each prompt must be answered exactly once."""
    found = [answer for answers in client.answers(map(make_request, texts)) for answer in answers]
    assert sorted(answer.request.prompt_id for answer in found) == sorted(texts)
    return {answer.request.prompt_id: answer for answer in found}


def ask_once(server: OpenAIServer, *texts: str, **options: Any) -> dict[str, Answer]:
    client = connect(server.url, **options)
    try:
        return ask(client, *texts)
    finally:
        client.close()


def on(bad: str, *responses: Response) -> Behaviour:
    """Answers `bad` with the responses in turn, the last one for ever; all else is well."""

    def behave(text: str, times: int) -> Response:
        return responses[min(times, len(responses)) - 1] if text == bad else Response()

    return behave


def failure(server: OpenAIServer, *texts: str, **options: Any) -> str:
    """The message of the `EngineError` that ends the run; no key may be anywhere in its chain."""
    with pytest.raises(EngineError) as caught:
        ask_once(server, *texts, **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown and caught.value.__context__ is None
    return str(caught.value)


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
            "seed": (1 << 63) - 1,
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
    assert (answer.num_tokens, answer.num_prompt_tokens) == (0, None)


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
    ],
)
def test_a_url_may_be_given_in_several_ways(url: str, chat: str) -> None:
    assert _addresses(url) == (chat, chat.replace("/chat/completions", "/models"))


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


def test_concurrency_rises_to_its_bound(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.4)
    ask_once(server, *map(str, range(500)), concurrency=8, max_concurrency=120)
    assert server.most_in_flight == 120  # more than the 100 connections that HTTP clients open by default
    assert server.arrivals[8] - server.arrivals[0] > 0.3  # at first 8, no more


def test_seconds_add_up_to_the_wall_time(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0.05)
    client = connect(server.url)
    time.sleep(0.3)  # is nobody's share
    started = time.perf_counter()
    found = ask(client, *map(str, range(50)))
    wall = time.perf_counter() - started
    client.close()
    assert sum(answer.seconds for answer in found.values()) == pytest.approx(wall, abs=0.05)


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


# Servers that are busy


def test_a_full_server_gets_less_and_no_row_suffers(server: OpenAIServer) -> None:
    def behave(text: str, times: int) -> Response:
        return Response(status=429, body={"error": "slow down"}) if server.in_flight > 10 else Response(seconds=0.05)

    server.behaviour = behave
    found = ask_once(server, *map(str, range(300)), concurrency=64, attempts=1)
    assert {answer.error for answer in found.values()} == {None}
    refused = len(server.bodies) - 300
    assert 54 <= refused <= 200  # the first 64 - 10 at least; far from one per answer after that
    assert server.arrivals[-1] - server.arrivals[0] < 6  # 300 answers, 10 at once: 1.5 s at best


@pytest.mark.parametrize("status", [429, 503, 529])
def test_retry_after_is_obeyed_by_the_whole_url(server: OpenAIServer, status: int) -> None:
    server.behaviour = on("busy", Response(status=status, headers={"Retry-After": "1"}), Response())
    found = ask_once(server, "busy", *map(str, range(40)), concurrency=1, attempts=1)
    assert {answer.error for answer in found.values()} == {None}
    first, second = server.arrivals[:2]
    assert second - first >= 1


def test_retry_after_in_seconds_or_as_a_date() -> None:
    assert _pause("2.5") == 2.5
    assert 3 < _pause(format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)) <= 5
    assert [_pause(header) for header in (None, "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT")] == [0, 0, 0, 0]


def test_a_pause_beyond_all_patience_ends_the_run(server: OpenAIServer) -> None:
    server.behaviour = on(
        "q", Response(status=429, body={"error": {"message": "quota"}}, headers={"Retry-After": "60"})
    )
    assert failure(server, "q") == (
        f"no answers from {server.url} (HTTP 429: quota; it asks to wait for 60 s) within `patience_s` = 10 s; start "
        "the server or mend its url, then run again: what has been answered is kept"
    )


def test_a_server_that_is_busy_for_ever_ends_the_run(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(status=429, body={"error": {"message": "insufficient quota"}})
    started = time.monotonic()
    assert "HTTP 429: insufficient quota" in failure(server, *"abcd", patience_s=0.5)
    assert 0.5 <= time.monotonic() - started < 5


def test_the_limit_falls_once_per_round_trip_and_rises_slowly() -> None:
    limit = Limit(start=100, most=200)
    limit.in_flight = 100
    limit.refused(sent_at=0.0, now=1.0)
    limit.refused(sent_at=0.5, now=1.1)
    assert limit.value == 75
    limit.in_flight = 75
    for _ in range(75):
        limit.succeeded()
    assert 75.9 < limit.value < 76.1
    limit.in_flight = 3
    limit.succeeded()
    assert limit.value < 76.1  # it was not kept busy
    limit.refused(sent_at=2.0, now=3.0)
    assert limit.value == 2.25  # 3 in flight were too many, whatever the limit was


# Servers that fail


def test_a_server_error_is_tried_again(server: OpenAIServer) -> None:
    server.behaviour = on("q", Response(status=500), Response(status=502), Response())
    assert ask_once(server, "q", "a")["q"].error is None
    assert server.times == {"q": 3, "a": 1}


def test_a_lasting_server_error_is_the_rows_own(server: OpenAIServer) -> None:
    page = {"content-type": "text/html"}
    server.behaviour = on("q", Response(status=502, body=b"<html>Bad Gateway</html>", headers=page))
    found = ask_once(server, "q", "a")
    assert (found["q"].error, found["q"].finish_reason, found["q"].text) == ("HTTP 502 (attempts: 3)", "error", "")
    assert found["a"].error is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "too long\nby far"}}, "too long"),
        ({"error": "too long"}, "too long"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": [{"msg": "too long"}]}, '[{"msg": "too long"}]'),
        ([{"error": "odd"}], '[{"error": "odd"}]'),
        ("too long", "too long"),
        (b"\n too long \n", "too long"),
        ({"error": {"message": "x" * 1000}}, "x" * 300),
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_refuses_is_not_sent_again(
    server: OpenAIServer, status: int, body: object, message: str
) -> None:
    server.behaviour = on("q", Response(status=status, body=body))
    found = ask_once(server, "q", "a")
    assert (found["q"].error, found["a"].error) == (f"HTTP {status}: {message}", None)
    assert server.times["q"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Log in</html>",
        json.dumps(completion()).encode()[:60],
        b"",
        b"null",
        b"[]",
        {},
        {"choices": []},
        {"choices": "x"},
        {"choices": [{"message": "x"}]},
        {"choices": [{"message": {"content": {"text": "x"}}}]},
        json.dumps(completion("caf\xe9"), ensure_ascii=False).encode("latin-1"),
    ],
)
def test_an_answer_that_is_none_is_the_rows_error(server: OpenAIServer, body: object) -> None:
    server.behaviour = on("q", Response(body=body))
    found = ask_once(server, "q", "a", attempts=2)
    error = found["q"].error
    assert error is not None and error.startswith("the server's answer is no chat completion (")
    assert error.endswith(" (attempts: 2)")
    assert (server.times["q"], found["a"].error) == (2, None)


def test_a_server_that_hangs_costs_an_attempt(server: OpenAIServer) -> None:
    server.behaviour = on("q", Response(seconds=10), Response())
    assert ask_once(server, "q", timeout_s=0.3)["q"].error is None
    server.behaviour = on("r", Response(seconds=10))
    assert ask_once(server, "r", timeout_s=0.3, attempts=2)["r"].error == "no answer within 0.3 s (attempts: 2)"


# Errors that no row can get past


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_and_is_not_shown(server: OpenAIServer, status: int) -> None:
    server.behaviour = lambda text, times: Response(status=status, body={"error": {"message": f"bad key {KEY}"}})
    assert failure(server, "q", api_key=KEY, key_hint="check MY_KEY") == (
        f"{server.url} refuses access (HTTP {status}: bad key ***); check MY_KEY"
    )


def test_secrets_in_a_url_are_not_shown(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(status=401, body=b"")
    client = connect(server.url.replace("//", f"//me:{KEY}@") + f"?key={KEY}")
    with pytest.raises(EngineError) as caught:
        ask(client, "q")
    client.close()
    assert str(caught.value) == f"{server.url} refuses access (HTTP 401); check its API key"
    assert server.headers[0]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("status", [400, 404])
def test_an_unknown_model_is_told_with_those_that_there_are(server: OpenAIServer, status: int) -> None:
    server.models = ("qwen", "llama")
    error = {"message": "no such model", "code": "model_not_found"}
    server.behaviour = lambda text, times: Response(status=status, body={"error": error})
    assert failure(server, "q") == (
        f"{server.url} has no model `m`; set the teacher's `model` to one that it has: qwen, llama"
    )


def test_a_url_that_leads_elsewhere_ends_the_run(server: OpenAIServer) -> None:
    client = connect(server.url + "/chat")
    with pytest.raises(EngineError) as caught:
        ask(client, "q")
    client.close()
    assert str(caught.value) == (
        f"{server.url}/chat does not answer for the model `m` (HTTP 404: Not Found); check the teacher's `model`, and "
        "that the url ends where /chat/completions follows"
    )


def test_what_came_before_the_end_is_handed_out(server: OpenAIServer) -> None:
    server.behaviour = on("q", Response(status=401, seconds=0.3))
    client = connect(server.url)
    found = []
    with pytest.raises(EngineError):
        for answers in client.answers(map(make_request, "qabc")):
            found += answers
            time.sleep(0.5)  # by now the error is known
    assert sorted(answer.request.prompt_id for answer in found) == ["a", "b", "c"]
    with pytest.raises(EngineError):
        next(client.answers([make_request("d")]))
    client.close()
    assert server.times["d"] == 0


# Servers that go away


def test_a_server_that_was_never_there_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        client = connect(url, patience_s=0.4)
        started = time.monotonic()
        with pytest.raises(EngineError) as caught:
            ask(client, "q", "r")
        client.close()
    assert 0.4 <= time.monotonic() - started < 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{url} is away (All connection attempts failed); waiting up to 0.4 s for it"
    ]
    assert str(caught.value) == (
        f"no answers from {url} (All connection attempts failed) within `patience_s` = 0.4 s; start the server or "
        "mend its url, then run again: what has been answered is kept"
    )


@pytest.mark.parametrize("response", [Response(cut=True), Response(body=completion(), length=5000)])
def test_a_cut_connection_is_tried_again(server: OpenAIServer, response: Response) -> None:
    server.behaviour = on("q", response, Response())
    assert ask_once(server, "q")["q"].error is None
    server.behaviour = on("r", response)
    found = ask_once(server, "r", "a")
    assert found["r"].error == "the connection was cut (RemoteProtocolError) (attempts: 3)"
    assert found["a"].error is None


def test_a_server_that_dies_and_comes_back_loses_no_row(server: OpenAIServer) -> None:
    downs = 0

    def restart() -> None:
        server.stop()
        time.sleep(0.7)
        server.start()

    def behave(text: str, times: int) -> Response:
        nonlocal downs
        if text == "25" and times == 1:
            downs += 1
            threading.Thread(target=restart).start()
        return Response(body=completion(f"you said {text}"), seconds=0.1)

    server.behaviour = behave
    found = ask_once(server, *map(str, range(60)), concurrency=8, max_concurrency=8)
    assert downs == 1
    assert all((answer.error, answer.text) == (None, f"you said {text}") for text, answer in found.items())


def test_two_urls_share_the_load_and_one_may_die() -> None:
    behave = lambda text, times: Response(seconds=0.05)  # noqa: E731
    with OpenAIServer(behave) as first, OpenAIServer(behave) as second:
        client = connect(first.url, second.url, concurrency=4, max_concurrency=4, patience_s=0.2)
        ask(client, *map(str, range(80)))
        assert first.times.total() + second.times.total() == 80
        assert 30 <= first.times.total() <= 50
        first.stop()
        found = ask(client, *map(str, range(80)))  # well beyond the patience with the first
        assert {answer.error for answer in found.values()} == {None}
        second.stop()
        with pytest.raises(EngineError) as caught:
            ask(client, "q")
        client.close()
        assert f"{first.url} (" in str(caught.value) and f"{second.url} (" in str(caught.value)


def test_a_prompt_that_kills_the_server_takes_no_neighbour_along(server: OpenAIServer) -> None:
    def behave(text: str, times: int) -> Response:
        if text == "killer":
            threading.Thread(target=server.stop).start()
        return Response(seconds=0.3)

    server.behaviour = behave
    recovered = []

    def recover(url: str) -> None:
        recovered.append(url)
        server.start()

    found = ask_once(server, "killer", *map(str, range(7)), concurrency=8, recover=recover)
    error = found.pop("killer").error
    assert error is not None and error.startswith("the connection was cut (") and error.endswith(" (attempts: 3)")
    assert {answer.error for answer in found.values()} == {None}
    assert server.times["killer"] == 3
    assert recovered in ([server.url] * 2, [server.url] * 3)  # 2 where nothing was left to ask after the third


def test_nor_does_it_where_the_server_says_500_before_it_dies(server: OpenAIServer) -> None:
    dying = threading.Event()

    def behave(text: str, times: int) -> Response:
        if text == "killer":
            time.sleep(0.1)
            dying.set()
            threading.Timer(0.02, server.stop).start()
        return Response(status=500 if dying.wait(0.2) else 200)

    def recover(url: str) -> None:
        time.sleep(0.3)  # longer than the first wait, as any real start
        dying.clear()
        server.start()

    server.behaviour = behave
    found = ask_once(server, "killer", *map(str, range(7)), concurrency=8, recover=recover)
    assert found.pop("killer").error is not None
    assert {answer.error for answer in found.values()} == {None}


def test_what_recover_raises_ends_the_run(server: OpenAIServer) -> None:
    def recover(url: str) -> None:
        raise EngineError("the server died 3 times")

    server.stop()
    assert failure(server, "q", recover=recover) == "the server died 3 times"


# Ends


def wait_until(condition: Any, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def test_a_caller_who_stops_early_cancels_what_is_in_flight(server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(seconds=0 if text == "0" else 30)
    client = connect(server.url, concurrency=4, max_concurrency=4)
    answers = client.answers(make_request(str(number)) for number in range(10))
    assert [answer.request.prompt_id for answer in next(answers)] == ["0"]
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


CTRL_C = """
import signal, sys
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from test_client import connect, make_request

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
