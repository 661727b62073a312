"""The client against servers that are busy, fail, refuse everything or go away."""

import json
import random
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from openai_server import OpenAIServer, Response, ask, ask_once, completion, connect, make_request, on

from persyn_hf.backends.engines import lanes as concurrency
from persyn_hf.backends.engines.lanes import Limit
from persyn_hf.backends.engines.replies import LONGEST_PAUSE_S, read_pause
from persyn_hf.errors import EngineError


KEY = "sk-never-to-be-seen"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "FIRST_WAIT_S", 0.05)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def failure(server: OpenAIServer, *texts: str, **options: Any) -> str:
    """The message of the `EngineError` that ends the run; no key may be anywhere in its chain."""
    with pytest.raises(EngineError) as caught:
        ask_once(server, *texts, **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown and caught.value.__context__ is None
    return str(caught.value)


# Servers that are busy


@pytest.mark.heavy
def test_a_full_server_gets_less_and_no_row_suffers(server: OpenAIServer) -> None:
    def behave(text: str, times: int) -> Response:
        return Response(status=429, body={"error": "slow down"}) if server.in_flight > 10 else Response(seconds=0.05)

    server.behaviour = behave
    found = ask_once(server, *map(str, range(300)), concurrency=64, attempts=1)
    assert {answer.error for answer in found.values()} == {None}
    refused = len(server.bodies) - 300
    assert 10 <= refused <= 200  # of the first 64, 54 where all arrive at once; far from one per answer after that
    assert server.arrivals[-1] - server.arrivals[0] < 15  # 300 answers, 10 at once: 1.5 s at best


@pytest.mark.heavy
@pytest.mark.parametrize("status", [429, 503, 529])
def test_retry_after_is_obeyed_by_the_whole_url(server: OpenAIServer, status: int) -> None:
    server.behaviour = on("busy", Response(status=status, headers={"Retry-After": "1"}), Response())
    found = ask_once(server, "busy", *map(str, range(40)), concurrency=1, attempts=1)
    assert {answer.error for answer in found.values()} == {None}
    first, second = server.arrivals[:2]
    assert second - first >= 1


def test_retry_after_in_seconds_or_as_a_date() -> None:
    def pause(value: str) -> float:
        return read_pause({"retry-after": value})

    assert (pause("2.5"), read_pause({"retry-after-ms": "250", "retry-after": "9"})) == (2.5, 0.25)
    assert 3 < pause(format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)) <= 5
    none = (
        "-1",
        "soon",
        "",
        "nan",
        "inf",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Thu, 9999999999999 Jan 2026 00:00:00 GMT",
    )
    assert [pause(value) for value in none] == [0] * len(none)
    assert read_pause({}) == 0 and pause("1e300") == LONGEST_PAUSE_S


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


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": "x"},
        {"choices": [{"message": "x"}]},
        {"choices": [{"message": {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}}]},
        {"choices": [{"message": {"content": None, "refusal": "no"}}]},
        {"choices": [{"message": {"content": "half a", "finish_reason": "error"}, "finish_reason": "error"}]},
        {"choices": [{"message": {"content": None, "tool_calls": [{"id": "c"}]}, "finish_reason": "tool_calls"}]},
    ],
)
def test_an_answer_that_was_paid_for_is_not_bought_again(server: OpenAIServer, body: dict[str, Any]) -> None:
    body["usage"] = {"prompt_tokens": 7, "completion_tokens": 3}
    server.behaviour = on("q", Response(body=body))
    answer = ask_once(server, "q", attempts=4)["q"]
    assert answer.error is not None and (answer.text, answer.finish_reason, answer.num_tokens) == ("", "error", 3)
    assert server.times["q"] == 1


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
        f"{server.url}/chat does not answer for the model `m` (HTTP 404: Not Found) at "
        f"{server.url}/chat/chat/completions; check the teacher's `model`, and that the url ends where "
        "/chat/completions follows"
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


@pytest.mark.heavy
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
    told: list[str | None] = []
    found = ask_once(server, *map(str, range(60)), concurrency=8, max_concurrency=8, waits=told.append)
    assert downs == 1
    assert str(told[0]).startswith(f"{server.url} is away (") and str(told[0]).endswith("waited for up to 10 s")
    assert told[-1] is None, "and that it is back"
    assert all((answer.error, answer.text) == (None, f"you said {text}") for text, answer in found.items())


@pytest.mark.heavy
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


@pytest.mark.heavy
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


@pytest.mark.heavy
def test_nor_does_it_where_the_server_says_500_before_it_dies(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "FIRST_WAIT_S", 0.3)  # a server needs less to die
    dying = threading.Event()

    def behave(text: str, times: int) -> Response:
        if text == "killer":
            time.sleep(0.1)
            dying.set()
            threading.Timer(0.02, server.stop).start()
        return Response(status=500 if dying.wait(0.2) else 200)

    def recover(url: str) -> None:
        time.sleep(0.6)  # and more to start
        dying.clear()
        server.start()

    server.behaviour = behave
    found = ask_once(server, "killer", *map(str, range(7)), concurrency=8, recover=recover)
    assert found.pop("killer").error is not None
    assert {answer.error for answer in found.values()} == {None}


@pytest.mark.heavy
def test_every_row_is_answered_once_whatever_the_server_does(server: OpenAIServer) -> None:
    faults = (
        Response(status=429),
        Response(status=503, headers={"Retry-After": "0.1"}),
        Response(status=500),
        Response(status=504, body=b"<html>"),
        Response(cut=True),
        Response(body=b"{"),
        Response(seconds=5),
    )
    draw = random.Random(0)

    def behave(text: str, times: int) -> Response:
        fault = draw.random() < 0.2
        return draw.choice(faults) if fault else Response(body=completion(f"you said {text}"), seconds=0.02)

    server.behaviour = behave
    found = ask_once(server, *map(str, range(200)), timeout_s=1, attempts=20)
    assert all((answer.error, answer.text) == (None, f"you said {text}") for text, answer in found.items())
    assert server.times.total() > 230


def test_what_recover_raises_ends_the_run(server: OpenAIServer) -> None:
    def recover(url: str) -> None:
        raise EngineError("the server died 3 times")

    server.stop()
    assert failure(server, "q", recover=recover) == "the server died 3 times"
