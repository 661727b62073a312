"""The reading of replies: what each rule says, and that nothing a server sends is an exception."""

import json
import math
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai_server import OpenAIServer, Response, ask_once, completion

from persyn_hf.backends.answers import Said
from persyn_hf.backends.engines import bodies
from persyn_hf.backends.engines.bodies import Places
from persyn_hf.backends.engines.completions import read_chat, read_usage
from persyn_hf.backends.engines.replies import LONGEST_PAUSE_S, Fault, read_reply
from persyn_hf.core.endings import CUT_OFF, UNKNOWN, ending
from persyn_hf.text import first_line, readable


KEY = "sk-0123456789abcdef"


def read(body: Any, status: int = 200, **headers: str) -> Said | Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_reply(status, names, raw, read_chat, wanted="chat completion", key=KEY)


def fault(body: Any, status: int = 200, **headers: str) -> Fault:
    found = read(body, status, **headers)
    assert isinstance(found, Fault)
    return found


def said(body: Any) -> Said:
    found = read(body)
    assert isinstance(found, Said), found
    return found


# Usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120}, (100, 20)),
        ({"prompt_tokens": 20, "completion_tokens": 100}, (100, 20)),
        ({"input_tokens": 20, "output_tokens": 100}, (100, 20)),
        # xAI: reasoning beside completion_tokens; Gemini: in the total only, or all of it.
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 10,
                "total_tokens": 1030,
                "completion_tokens_details": {"reasoning_tokens": 1000},
            },
            (1010, 20),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, (603, 20)),
        ({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81}, (60, 21)),
        (
            {"prompt_tokens": 5, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 90}},
            (100, 5),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 90}},
            (100, 5),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 100, "reasoning_tokens": 90}, (100, 5)),  # SGLang
        (None, (None, None)),
        ({}, (None, None)),
        ([], (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None)),
        ({"prompt_tokens": -5, "completion_tokens": -700}, (None, None)),
        ({"prompt_tokens": 5, "completion_tokens": math.inf, "total_tokens": 12}, (None, 5)),
        ({"prompt_tokens": 5, "completion_tokens": 10**30}, (None, 5)),
        ({"prompt_tokens": True, "completion_tokens": False, "total_tokens": "12"}, (None, None)),
        ({"prompt_tokens": 5.0, "completion_tokens": 7.5}, (None, 5)),
        ({"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 3}, (100, 20)),
    ],
)
def test_unknown_is_unknown_and_all_that_is_billed_counts(usage: Any, expected: tuple[int | None, int | None]) -> None:
    assert read_usage(usage) == expected


# Ends


@pytest.mark.parametrize(
    ("word", "stored"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("STOP", "stop"),
        ("max_tokens", "length"),
        ("model_length", "length"),
        ("content_filter: RECITATION", "content_filter"),
        ("insufficient_system_resource", "error"),
        (None, UNKNOWN),
        ("", UNKNOWN),
        (7, UNKNOWN),
        ("load", "load"),
        ("odd\x1b[2J\ud800" + "x" * 99, "odd[2j" + "x" * 34),
    ],
)
def test_a_finish_reason_is_one_of_few_words_or_the_servers_own(word: Any, stored: str) -> None:
    assert ending(word) == stored == ending(stored)


@pytest.mark.parametrize("word", ["max_tokens", "length", "model_length", "content_filter", "repetition"])
def test_cut_off_text_is_read_as_such(word: str) -> None:
    assert said(completion("half a", word)).finish_reason in CUT_OFF


# Content


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": [{"type": "text", "text": "4"}]}, "4", None),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]},
                    {"type": "text", "text": "4"},
                ]
            },
            "4",
            "2+2",
        ),
        ({"content": ["a", {"text": "b"}]}, "ab", None),
        ({"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "2+2"}]}, "4", "2+2"),
        ({"content": "4", "reasoning": "", "reasoning_content": "2+2"}, "4", "2+2"),
        ({"content": None, "reasoning_content": "2+2"}, "", "2+2"),
        ({"content": "4", "refusal": None, "tool_calls": []}, "4", None),
        ({"content": "4 \ud83d"}, "4 \ufffd", None),
    ],
)
def test_parts_of_a_message_are_put_where_they_belong(
    message: dict[str, Any], text: str, reasoning: str | None
) -> None:
    found = said({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (found.text, found.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": None, "refusal": "I can't\nhelp"}, "the model refused: I can't"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "the model refused: no"),
        ({"content": None, "tool_calls": [{"id": "c"}]}, "the answer is a call of a tool"),
        ({"content": [{"type": "image_url"}]}, "the content of the answer holds no text"),
    ],
)
def test_an_answer_without_text_says_why_and_what_it_cost(message: dict[str, Any], reason: str) -> None:
    found = fault({"choices": [{"message": message}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    assert found.reason.startswith(reason)
    assert (found.kind, found.num_tokens, found.num_prompt_tokens) == ("rejected", 3, 7)


def test_a_stream_that_nobody_asked_for_is_read() -> None:
    events = [
        {"choices": [{"delta": {"role": "assistant", "reasoning": "2"}, "finish_reason": None}]},
        {"choices": [{"delta": {"reasoning": "+2"}}]},
        {"choices": [{"delta": {"content": "it is "}}]},
        {"choices": [{"delta": {"content": "4"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    ]
    lines = ": waiting\n\n" + "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    found = said(lines.encode())
    assert (found.text, found.reasoning, found.finish_reason) == ("it is 4", "2+2", "stop")
    assert (found.num_tokens, found.num_prompt_tokens) == (3, 7)
    assert fault(b"data: {broken\n\ndata: [DONE]\n").kind == "failed"
    assert fault(b'data: {"error": {"message": "gone", "code": 502}}\n').reason == "error 502: gone"


# Errors


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "too long"}, "rejected"),
        (400, {"code": "model_not_found"}, "missing"),
        (401, {}, "denied"),
        (402, {"message": "Insufficient Balance", "code": "invalid_request_error"}, "unpaid"),
        (403, {}, "denied"),
        (403, {"code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "x"}}, "rejected"),
        (404, {}, "missing"),
        (408, {}, "failed"),
        (409, {}, "failed"),
        (425, {}, "failed"),
        (429, {}, "busy"),
        (429, {"code": "insufficient_quota"}, "unpaid"),
        (498, {"code": "capacity_exceeded"}, "busy"),
        (500, {}, "failed"),
        (503, {}, "busy"),
        (529, {"type": "overloaded_error"}, "busy"),
        (307, {}, "moved"),
        (200, {"message": "over capacity", "code": 502}, "failed"),
        (200, {"message": "slow down", "code": 429}, "busy"),
        (200, {"message": "slow down", "code": "rate_limit_exceeded"}, "busy"),
        (200, {"message": "no money", "code": 402}, "unpaid"),
        (200, {"message": "no", "type": "invalid_request_error"}, "rejected"),
        (200, {"message": "no"}, "failed"),
    ],
)
def test_what_an_error_means(status: int, error: dict[str, Any], kind: str) -> None:
    assert fault({"error": error or "no"}, status).kind == kind


def test_money_that_is_held_for_a_while_is_waited_for() -> None:
    found = fault({"error": {"code": 402, "message": "in flight"}}, 402, retry_after="3")
    assert (found.kind, found.pause) == ("busy", 3)


def test_the_words_of_an_error_are_the_servers_and_harmless() -> None:
    escapes = "\x1b[2J\x1b]0;title\x07\x1b[31mbad\x1b[0m"
    assert (
        fault({"error": {"message": f"{escapes} {KEY} half {KEY[:12]}"}}, 400).reason == "HTTP 400: bad *** half ***"
    )
    assert fault(b'{"error":{"message":"half \\ud800 here"}}', 400).reason == "HTTP 400: half \ufffd here"
    inner = {"message": "Provider returned error", "code": 400, "metadata": {"raw": "context too long"}}
    assert fault({"error": inner}).reason == "error 400: Provider returned error: context too long"
    assert first_line("\n\x9b31m\u202e a\tb \nc") == "31m a b"


# Whatever comes

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 10**30, math.inf, math.nan, 1e308, 429, 402, 500])
    | st.text(max_size=12)
    | st.sampled_from(
        ["stop", "length", "error", "tool_calls", "text", "thinking", "refusal", "rate_limit_exceeded", "\ud800"]
    )
)
NAMES = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "finish_reason",
        "usage",
        "error",
        "code",
        "type",
        "text",
        "thinking",
        "reasoning",
        "reasoning_content",
        "refusal",
        "tool_calls",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "completion_tokens_details",
        "reasoning_tokens",
        "metadata",
        "raw",
        "reasons",
        "detail",
        "delta",
        "data",
    ]
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=12
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "message": st.dictionaries(NAMES, JSON, max_size=5),
        "finish_reason": JSON,
        "error": JSON,
        "delta": JSON,
    },
)
COMPLETION = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE | JSON, max_size=2)},
    optional={"usage": st.dictionaries(NAMES, JSON, max_size=5), "error": JSON},
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "refusal", "image"])}, optional={"text": JSON}
)
MESSAGE = st.fixed_dictionaries(
    {"content": st.text(max_size=12) | st.none() | st.lists(PART, max_size=3)},
    optional={"reasoning": JSON, "refusal": JSON},
)
COUNTS = st.dictionaries(NAMES, st.integers(-5, 10**10) | LEAVES, max_size=4)
ANSWER = st.fixed_dictionaries(
    {"choices": st.tuples(st.fixed_dictionaries({"message": MESSAGE, "finish_reason": LEAVES}))},
    optional={"usage": COUNTS},
)
BODIES = (
    st.binary(max_size=40)
    | ANSWER.map(lambda value: json.dumps(value).encode())
    | (JSON | COMPLETION).map(lambda value: json.dumps(value).encode())
    | st.lists(JSON | COMPLETION, max_size=3).map(
        lambda values: "".join(f"data: {json.dumps(value)}\n\n" for value in values).encode()
    )
)
STATUS = st.sampled_from([200] * 12 + [201, 204, 302, 400, 401, 402, 403, 404, 408, 429, 498, 500, 503, 529, 999])
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "content-type", "location"]),
    st.text(max_size=20)
    | st.sampled_from(["1e999", "-1", "Thu, 99999999999999999999 Jan 2026 00:00:00 GMT", "text/html"]),
)


@settings(deadline=None)
@given(status=STATUS, headers=HEADERS, body=BODIES)
@example(status=200, headers={}, body=b"[" * 200_000 + b"]" * 200_000)
@example(status=400, headers={}, body=b'{"error":' * 900 + b"1" + b"}" * 900)
@example(status=200, headers={}, body=b'{"choices": [{"message": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}")
@example(status=200, headers={}, body=b"data: " * 5000)
@example(status=200, headers={}, body=b'{"usage": {"completion_tokens": ' + b"9" * 5000 + b"}}")
def test_every_reply_is_an_answer_an_error_or_a_wait(status: int, headers: dict[str, str], body: bytes) -> None:
    found = read_reply(status, headers, body, read_chat, wanted="chat completion", key=KEY)
    if isinstance(found, Fault):
        assert found.reason and len(found.reason) < 500
        assert readable(found.reason) == found.reason and "\n" not in found.reason
        assert 0 <= found.pause <= LONGEST_PAUSE_S and 0 <= found.num_tokens <= 10**9
        found.reason.encode()
    else:
        assert found.finish_reason.isprintable() and found.finish_reason != "error" and found.error is None
        assert found.num_tokens is None or 0 < found.num_tokens <= 10**9
        f"{found.text}{found.reasoning}".encode()


# Bodies


@pytest.mark.heavy
def test_long_bodies_wait_for_a_place_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 at once and two places, which useless, broken and unread ones give back, too."""
    monkeypatch.setattr(bodies, "SHORT", 1000)
    monkeypatch.setattr(bodies, "LONG", 2)
    held, most = 0, 0
    enter, leave = Places.enter, Places.leave

    async def counted(self: Places) -> None:
        nonlocal held, most
        await enter(self)
        held += 1
        most = max(most, held)

    def uncounted(self: Places) -> None:
        nonlocal held
        held -= 1
        leave(self)

    monkeypatch.setattr(Places, "enter", counted)
    monkeypatch.setattr(Places, "leave", uncounted)
    long = json.dumps(completion("x" * 100_000)).encode()
    replies = {
        "whole": Response(body=long),
        "thoughts": Response(body=completion("short", reasoning="y" * 100_000)),
        "other": Response(body=completion("short", odd="z" * 100_000)),
        "no JSON": Response(body=long[:-1]),
        "cut": Response(body=long[:-5000], length=len(long)),
        "error": Response(body={"error": {"message": "w" * 100_000}}, status=400),
    }
    names = [f"{name} {number}" for name in replies for number in range(4)]
    with OpenAIServer(lambda text, times: replies[text.rpartition(" ")[0]]) as server:
        found = ask_once(server, *names, attempts=2, patience_s=0.1)
    fine = {name for name in names if name.startswith(("whole", "thoughts", "other"))}
    assert {name for name, answer in found.items() if answer.error is None} == fine
    assert most == 2
    assert held == 0


def test_a_body_without_end_or_packed_small_is_one_error_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_BYTES", 100_000)
    long = completion("x" * 200_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(json.dumps(long).encode()) + packer.flush()
    small = zlib.compressobj(9, zlib.DEFLATED, 31)
    fine = small.compress(json.dumps(completion("packed")).encode()) + small.flush()
    replies = {
        "long": Response(body=long),
        "bomb": Response(body=packed, headers={"content-encoding": "gzip"}),
        "fine": Response(body=fine, headers={"content-encoding": "gzip"}),
        "odd": Response(body=fine, headers={"content-encoding": "br"}),
        "broken": Response(body=b"no gzip", headers={"content-encoding": "gzip"}),
    }
    with OpenAIServer(lambda text, times: replies[text]) as server:
        found = ask_once(server, *replies, attempts=2)
        assert server.times["long"] == server.times["bomb"] == 1
    assert len(packed) < 2000
    assert (found["fine"].error, found["fine"].text) == (None, "packed")
    assert "is longer than" in (found["long"].error or "") and "is longer than" in (found["bomb"].error or "")
    assert "packed as 'br'" in (found["odd"].error or "")
    assert found["broken"].error == "the server's answer cannot be unpacked (attempts: 2)"
