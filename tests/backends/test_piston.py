"""Tests of code on a server of Piston: what is asked, what replies mean, and servers that are not set up for it."""

import json
import shutil
from collections.abc import Iterator

import pytest
from hostile import ADD, BOUNDS, graded, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from piston_server import DEFAULTS, ROOMY, Piston, serve_piston

from persyn_hf.backends.grading import piston, sandbox
from persyn_hf.backends.grading.settings import SandboxSettings
from persyn_hf.backends.grading.tested import CodeGrader
from persyn_hf.backends.grading.verdicts import Ungraded
from persyn_hf.errors import EngineError


RIGHT = "def add(a, b): return a + b"

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Piston]:
    with serve_piston() as server:
        yield server


def settings_of(server: Piston) -> SandboxSettings:
    return SandboxSettings(engine="piston", url=f"{server.url}/", **BOUNDS)


def grader_of(server: Piston) -> CodeGrader:
    grader = CodeGrader(settings_of(server), 2.5)
    grader._is_tried = True
    return grader


def test_a_run_is_asked_for_as_the_api_has_it(server: Piston) -> None:
    server.asked.clear()
    assert graded(grader_of(server), [RIGHT]) == [True]
    asked = server.asked[0]
    assert asked["language"] == "python" and [file["name"] for file in asked["files"]] == ["inside.py"]
    assert [asked[name] for name in ("run_timeout", "run_cpu_time", "run_memory_limit")] == [10_000, 2500, 256 << 20]
    assert RIGHT in json.loads(asked["stdin"].split("\n", 1)[1][:-32])["code"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (503, b"<html>busy</html>"),
        (400, b'{"message": "python->=3.11.0 runtime is unknown"}'),
        (200, b""),
        (200, b"[]"),
        (200, b'{"run": null}'),
        (200, b'{"run": {"stdout": 1}}'),
        (200, b'{"run": {"stdout": "", "status": "XX", "message": "box 3 failed"}}'),
        (200, b'{"run": {"stdout": "started\\n\\ufffd", "code": 0, "signal": null}}'),
        (200, b"[" * 100_000),
    ],
)
def test_a_reply_that_says_nothing_is_no_verdict(server: Piston, status: int, body: bytes) -> None:
    server.instead.append((status, body))
    assert graded(grader_of(server), [RIGHT]) == [Ungraded("no_sandbox")]


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda of: st.dictionaries(
    st.sampled_from(["run", "stdout", "stderr", "code", "signal", "status", "message"]), of)))  # fmt: skip
def test_no_reply_is_an_error_of_the_program_or_a_pass(reply: object) -> None:
    try:
        ran = piston._read(reply)
    except piston._NoReply:
        return
    assert isinstance(ran.output, bytes) and isinstance(ran.status, int)


def test_a_server_that_is_away_or_refuses_what_is_large_gives_no_verdict(server: Piston) -> None:
    large = reference({"inputs": ["x" * 200_000], "outputs": ["x"]})
    assert graded(grader_of(server), ["print(input()[0])"], large) == [Ungraded("no_sandbox")]
    away = CodeGrader(SandboxSettings(engine="piston", url="http://127.0.0.1:9"), 1)
    with pytest.raises(EngineError, match=r"on Piston at http://127.0.0.1:9, and it runs none \(it does not answer"):
        graded(away, [RIGHT])
    away._is_tried = True
    assert graded(away, [RIGHT]) == [Ungraded("no_sandbox")]


def test_servers_that_are_not_set_up_for_it_are_refused_before_anything_is_run() -> None:
    with serve_piston(DEFAULTS) as server, pytest.raises(EngineError) as caught:
        sandbox.try_sandbox(settings_of(server), 5)
    assert "(status 400: run_timeout cannot exceed the configured limit of 3000)" in str(caught.value)
    assert "bounds that allow `verify_timeout_s`, 4 times that by the clock" in str(caught.value)
    with serve_piston(ROOMY | {"output_max_size": 1024}) as server:
        with pytest.raises(EngineError, match=r"cuts output too soon; set PISTON_OUTPUT_MAX_SIZE=4194304: without"):
            sandbox.try_sandbox(settings_of(server), 5)
    with serve_piston() as server:
        server.version = "3.10.0"
        with pytest.raises(EngineError, match=r"\(status 400: python->=3.11.0 runtime is unknown\); it needs"):
            sandbox.try_sandbox(settings_of(server), 5)
    routes = f"routes 1 {'x' * piston.PRINTED}\n"
    fault = piston.fault(settings_of(server), routes, piston.Ran(output=b"", words="", status=0, passed=None))
    assert "which lets code use its network; set PISTON_DISABLE_NETWORKING=true" in str(fault)


@pytest.mark.heavy
def test_output_that_passes_the_bound_and_time_are_wrong_answers(server: Piston) -> None:
    cases = reference({"inputs": ["1"], "outputs": ["1"]})
    assert graded(grader_of(server), ["print(input())", "while True: print('x' * 10**6)"], cases) == [True, False]
    assert graded(grader_of(server), ["import time\ntime.sleep(600)"], ADD) == [False]
