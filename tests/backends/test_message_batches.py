"""Anthropic's message batches against a real server: nothing is sent twice, and no other run's batch is taken."""

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import batch_asking as asking
import pytest
from batch_asking import ask, check_kills, notes, requests
from batch_server import Reply
from hypothesis import given, settings
from hypothesis import strategies as st
from message_batch_server import Made, MessageBatchServer, erred, message, result, succeeded

from persyn_hf.backends.answers import Said, Sampling
from persyn_hf.backends.engines.batch.engine import BatchEngine
from persyn_hf.backends.engines.messages import message_body, read_message, refused
from persyn_hf.backends.engines.replies import Fault
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import BatchSettings, ServerSettings
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.stages.generate.settings import Settings, check


engine = partial(asking.engine, api="anthropic", patience_s=60)


pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("short_pauses")]


def lose(folder: Path) -> str:
    """Make the one note forget the id of its batch, as after a kill, and return the id."""
    path = next((folder / "batches").glob("*.json"))
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "batch": None}))
    return str(known["batch"])


def leave(server: MessageBatchServer, folder: Path, number: int) -> None:
    """Send a batch of `number` requests, and end before it is collected."""
    with engine(server.url, folder) as batch:
        batch.send([[request] for request in requests(batch, number)])


@pytest.mark.parametrize("twice", [False, True])
def test_every_request_is_sent_once_and_answered_as_at_once(tmp_path: Path, twice: bool) -> None:
    with MessageBatchServer(twice=twice) as server, engine(server.url, tmp_path, max_requests=4) as batch:
        asked = requests(batch, 10)
        answers = ask(batch, asked)
        assert {answer.request.key: answer.text for answer in answers} == {
            request.key: f"you said word {index}" for index, request in enumerate(asked)
        }
        assert {(a.num_tokens, a.num_prompt_tokens, a.finish_reason, a.error) for a in answers} == {
            (3, 7, "stop", None)
        }
        assert len(server.made) == 3 and set(server.sent.values()) == {1} and notes(tmp_path) == []
        given = ServerSettings(urls=(server.url,), api="anthropic")
        with ServerEngine("m", given) as one:
            same = requests(one, 1)
            assert same[0].key == asked[0].key, "the journal has them for both engines"
            assert [answer.text for answer in next(iter(one.generate([same])))] == ["you said word 0"]
        assert server.at_once == 1
        with ServerEngine("m", ServerSettings(urls=(server.url,))) as other:
            assert requests(other, 1)[0].key != asked[0].key, "another form of API may answer otherwise"


def test_what_was_not_answered_is_sent_anew_and_what_is_silent_is_not(tmp_path: Path) -> None:
    """Only a request that the results call expired, cancelled or erred is known not to be billed."""

    def outcome(line: dict[str, Any], times: int) -> dict[str, Any] | None:
        word = int(line["params"]["messages"][-1]["content"].split()[1])
        early = {
            1: result(line, "expired"),
            2: result(line, "canceled"),
            3: erred(line, "overloaded_error", "Overloaded"),
            4: erred(line, "api_error", "Internal server error"),
        }
        if times == 1 and word in early:
            return early[word]
        always = {
            5: erred(line, "invalid_request_error", "prompt is too long"),
            6: None,
            7: result(line, "expired"),
            8: result(line, "succeeded", message=message("", "refusal", stop_details={"explanation": "no"})),
            9: result(line, "succeeded", message={"content": 7}),
        }
        return always[word] if word in always else succeeded(line, times)

    with MessageBatchServer(outcome=outcome) as server, engine(server.url, tmp_path, attempts=2) as batch:
        found = {answer.request.prompt_id: answer for answer in ask(batch, requests(batch, 10))}
        assert {name: server.sent[f"word {name}"] for name in range(10)} == {
            0: 1, 1: 2, 2: 2, 3: 2, 4: 2, 5: 1, 6: 1, 7: 2, 8: 1, 9: 1
        }  # fmt: skip
    silent = found["p6"].error
    assert silent.startswith("the batch ended (") and silent.endswith("), and nothing was said to this request")
    assert [found[f"p{index}"].error for index in (0, 1, 2, 3, 4, 5, 7, 8, 9)] == [
        *[None] * 5,
        "error: prompt is too long",
        "the request was expired",
        "the model refused: no",
        "the server's answer is no message (it has no `content`)",
    ]
    assert found["p8"].num_tokens == 3 and notes(tmp_path) == []


@pytest.mark.parametrize("reply", [Reply(429, {"retry-after": "0"}), Reply(500), Reply(529)], ids=lambda r: r.status)
@pytest.mark.parametrize("end", ["batches", "msgbatch_1", "results"])
def test_a_service_that_fails_for_a_while_is_waited_for(tmp_path: Path, reply: Reply, end: str) -> None:
    failed: list[int] = []

    def before(number: int, path: str) -> Reply | None:
        if path.endswith(end) and not failed:
            failed.append(number)
            return reply
        return None

    with MessageBatchServer(before=before) as server, engine(server.url, tmp_path) as batch:
        assert {answer.error for answer in ask(batch, requests(batch, 3))} == {None}
        assert set(server.sent.values()) == {1} and failed


def test_a_reply_that_is_lost_does_not_pay_twice(tmp_path: Path) -> None:
    """The batch is made, and the connection is cut before its id arrives: it is known once it has ended."""
    lost: list[int] = []

    def cut(number: int, path: str) -> None:
        if path.endswith("batches") and not lost:
            lost.append(number)
            raise ConnectionAbortedError

    with MessageBatchServer(after=cut, looks=3) as server, engine(server.url, tmp_path) as batch:
        heard: list[str | None] = []
        batch.when_waiting(heard.append)
        assert len(ask(batch, requests(batch, 4))) == 4
        assert len(server.made) == 1 and set(server.sent.values()) == {1} and lost
    assert any("until 1 like it ends, to see whether it is the one" in (reason or "") for reason in heard)


def strange(server: MessageBatchServer, number: int, *, ended: bool, at: str | None = None) -> str:
    """Put a batch of somebody else among the server's, and return its id."""
    name = f"msgbatch_other_{len(server.made)}"
    lines = [{"custom_id": f"{index:064}", "params": {"messages": [{"content": "else"}]}} for index in range(number)]
    made = at or server.made["msgbatch_1"].at
    server.made[name] = Made(lines, made, looks=99 if ended else 0)
    return name


def test_a_lost_batch_is_found_among_others_of_its_size_by_what_came_out(tmp_path: Path) -> None:
    with MessageBatchServer(page=2, looks=2) as server:
        leave(server, tmp_path, 3)
        assert lose(tmp_path) == "msgbatch_1"
        for ended in (True, False, True):
            strange(server, 3, ended=ended)
        strange(server, 5, ended=True)
        with engine(server.url, tmp_path) as batch:
            assert {answer.text for answer in ask(batch, requests(batch, 3))} == {
                f"you said word {i}" for i in range(3)
            }
        assert set(server.sent.values()) == {1} and notes(tmp_path) == []
        asked = [path for path in server.paths if path.endswith("results")]
        assert not any("_other_4" in path for path in asked), "a batch of another size is not looked into"
        assert len(asked) == len(set(asked)) + 1, "each is looked into once, and ours is then fetched"


def test_another_runs_batch_is_not_taken_for_one_that_was_never_made(tmp_path: Path) -> None:
    """Another store has sent the same requests: the keys are the same, its marks are not."""
    with MessageBatchServer() as server:
        leave(server, tmp_path / "a", 3)
        leave(server, tmp_path / "b", 3)
        lose(tmp_path / "b")
        del server.made["msgbatch_2"]  # it had never arrived
        server.sent.clear()
        with engine(server.url, tmp_path / "b") as batch:
            assert len(ask(batch, requests(batch, 3))) == 3
        assert set(server.sent.values()) == {1} and len(server.made) == 2, "sent anew once the other was known"
        with engine(server.url, tmp_path / "a") as batch:
            assert len(ask(batch, requests(batch, 3))) == 3
        assert set(server.sent.values()) == {1}


def test_a_lost_batch_whose_results_are_deleted_is_not_sent_anew(tmp_path: Path) -> None:
    with MessageBatchServer(before=lambda number, path: 404 if path.endswith("results") else None) as server:
        leave(server, tmp_path, 2)
        lose(tmp_path)
        server.looks = 0
        with engine(server.url, tmp_path) as batch, pytest.raises(EngineError, match="does not know") as caught:
            ask(batch, requests(batch, 2))
        assert "batch whose id was lost was made with another key" in str(caught.value)
        assert notes(tmp_path)[0] in str(caught.value) and set(server.sent.values()) == {1}


def test_batches_that_were_made_before_the_note_are_not_looked_at(tmp_path: Path) -> None:
    with MessageBatchServer() as server:
        leave(server, tmp_path, 2)
        lose(tmp_path)
        server.made.clear()
        server.sent.clear()
        strange(server, 2, ended=False, at="2026-01-01T00:00:00Z")
        with engine(server.url, tmp_path) as batch:
            assert len(ask(batch, requests(batch, 2))) == 2
        assert set(server.sent.values()) == {1}


def test_results_that_are_kept_no_longer_are_said_to_be_gone(tmp_path: Path) -> None:
    class Archive(MessageBatchServer):
        def show(self, name: str) -> dict[str, Any]:
            return {**super().show(name), "results_url": None, "archived_at": "2026-01-01T00:00:00Z"}

    with Archive(looks=0) as server, engine(server.url, tmp_path) as batch:
        with pytest.raises(EngineError, match="keeps no results of batch msgbatch_1 any more"):
            ask(batch, requests(batch, 2))


def test_the_key_goes_to_the_service_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results may lie elsewhere, behind a signed address."""
    monkeypatch.setenv("MY_KEY", "secret")

    class Storage(MessageBatchServer):
        def get(self, path: str, query: str, headers: Any) -> Any:
            return server.made["msgbatch_1"].results if query == "signed=1" else Reply(404)

    with Storage() as storage, MessageBatchServer() as server:
        away = Reply(302, {"location": f"{storage.url}/blob?signed=1"})
        server.before = lambda number, path: away if path.endswith("results") else None
        given = ServerSettings(urls=(server.url,), api_key_env="MY_KEY", api="anthropic")
        with BatchEngine("m", given, BatchSettings(poll_s=0.05), state_dir=tmp_path / "unfinished") as batch:
            assert len(ask(batch, requests(batch, 2))) == 2
        assert set(server.keys) == {"secret"} and storage.keys == [None]
        server.before = lambda number, path: Reply(302, {"location": path}) if path.endswith("results") else None
        with engine(server.url, tmp_path) as batch, pytest.raises(EngineError, match="redirects 3 times"):
            ask(batch, requests(batch, 1))
        server.before = lambda number, path: Reply(302, {"location": "file:///etc"}) if "results" in path else None
        with engine(server.url, tmp_path / "b") as batch, pytest.raises(EngineError, match="HTTP 302"):
            ask(batch, requests(batch, 1))


def test_a_service_that_takes_no_more_is_waited_for_while_batches_go_on(tmp_path: Path) -> None:
    """The account may have so many requests in its queue."""
    with MessageBatchServer(looks=2) as server:
        ended = lambda: all(made.looks > server.looks for made in server.made.values())  # noqa: E731

        def before(number: int, path: str) -> Reply | None:
            full = server.paths[-1].endswith("batches") and bool(server.made) and not ended()
            return Reply(429) if full else None

        server.before = before
        with engine(server.url, tmp_path, patience_s=0, max_requests=2) as batch:
            assert len(ask(batch, requests(batch, 6))) == 6
        assert set(server.sent.values()) == {1} and notes(tmp_path) == []
        server.before = lambda number, path: 429
        with engine(server.url, tmp_path, patience_s=0) as batch, pytest.raises(EngineError, match="HTTP 429"):
            ask(batch, requests(batch, 1))


def test_a_request_is_sent_as_the_api_takes_it(tmp_path: Path) -> None:
    with engine("http://a/v1", tmp_path, {"thinking": {"type": "adaptive"}, "temperature": None}) as batch:
        asked = requests(batch, 1)[0]
        system = [{"role": "system", "content": "one"}, {"role": "system", "content": "two"}]
        turns = [{"role": "user", "content": "q"}]
        prompt = batch.prepare([*system, *turns])
        late = batch.prepare([*turns, *system, *turns])
    assert prompt.refusal is None
    assert late.refusal == "a system turn is not the first, which Anthropic's API does not take"
    asked = replace(asked, prompt=prompt)
    assert message_body("m", {"thinking": {"type": "adaptive"}, "temperature": None}, asked) == {
        "model": "m",
        "max_tokens": 9,
        "messages": turns,
        "system": "one\n\ntwo",
        "thinking": {"type": "adaptive"},
    }
    sampling = Sampling(temperature=0.5, top_p=1.0, top_k=0, max_tokens=4, seed=3)
    sent = message_body("m", {}, replace(asked, sampling=sampling))
    assert sent["temperature"] == 0.5 and not {"top_p", "seed", "stream", "top_k"} & sent.keys()


@pytest.mark.parametrize(
    ("extra", "temperature", "top_p", "words"),
    [
        ({}, 1, 1, None),
        ({}, 0.6, 1, None),
        ({}, 1, 0.9, None),
        ({}, 0, 0.9, None),
        ({"temperature": None}, 0.6, 0.9, None),
        ({"seed": None}, 1, 1, None),
        ({}, 0.6, 0.9, "models of Anthropic take a temperature or a top_p, found 0.6 and 0.9; set one to 1"),
        ({}, 1.2, 1, "Anthropic's API takes a temperature from 0 to 1, found 1.2; lower it"),
        (
            {"response_format": {"type": "json_object"}},
            1,
            1,
            "Anthropic's API does not take `response_format`, found in `server.extra`; leave it out",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            0.6,
            1,
            "with `thinking` Anthropic's API takes no temperature but 1, found 0.6; set it to 1",
        ),
    ],
)
def test_what_the_api_refuses_is_refused_before_anything_is_sent(
    extra: dict[str, Any], temperature: float, top_p: float, words: str | None
) -> None:
    assert refused(extra, temperature=temperature, top_p=top_p) == words
    server = {"urls": ["http://a/v1"], "api": "anthropic", "extra": extra}
    own = Settings(engine="server", temperature=temperature, top_p=top_p)
    with pytest.raises(RecipeError) if words else nullcontext() as caught:
        check(own, (Teacher(name="t", model="m", server=server),))
    assert caught is None or str(caught.value) == f"the teacher `t`: {words}"
    judge = {"model": "m", "temperature": temperature, "top_p": top_p, "server": server}
    with pytest.raises(RecipeError) if words else nullcontext() as caught:
        read_section(JudgeSettings, judge, "score.judge")
    assert caught is None or f"the judge `m`: {words}" in str(caught.value)


def test_thoughts_text_end_and_tokens_are_read_in_one_place() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm ", "signature": "x"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "four", "citations": None},
        {"type": "text", "text": "!"},
    ]
    said = read_message(message("", content=blocks))
    assert isinstance(said, Said)
    assert (said.text, said.reasoning, said.finish_reason) == ("four!", "hm ", "stop")
    assert (said.num_tokens, said.num_prompt_tokens) == (3, 7)
    ends = {"max_tokens": "length", "stop_sequence": "stop", "model_context_window_exceeded": "length"}
    ends |= {"refusal": "content_filter", "pause_turn": "pause_turn"}
    for word, stored in ends.items():
        said = read_message(message("part", word))
        assert isinstance(said, Said) and (said.finish_reason, said.text) == (stored, "part")
    for word, reason in {"refusal": "the model refused: it gives no reason", "tool_use": "call of a tool"}.items():
        fault = read_message(message("", word))
        assert isinstance(fault, Fault) and reason in fault.reason and fault.num_tokens == 3
    bare = read_message({**message("ok"), "usage": {"input_tokens": 5, "output_tokens": 2}})
    assert isinstance(bare, Said) and (bare.num_tokens, bare.num_prompt_tokens) == (2, 5)
    unknown = read_message({**message("ok"), "usage": {"input_tokens": "5"}})
    assert isinstance(unknown, Said) and (unknown.num_tokens, unknown.num_prompt_tokens) == (None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@settings(deadline=None, max_examples=200)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("content", "usage", "stop_reason", "stop_details"), JSON)), JSON
)
def test_any_message_is_an_answer_or_a_fault(found: dict[str, Any], part: Any) -> None:
    for block in (found, {**found, "content": [{"type": "text", "text": part}], "usage": {"output_tokens": part}}):
        assert isinstance(read_message(block), Said | Fault)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
@pytest.mark.parametrize("dealt", [False, True], ids=["before", "after"])
def test_killed_at_any_request_nothing_is_sent_twice(heavy: None, dealt: bool, kills: int, tmp_path: Path) -> None:
    with MessageBatchServer(looks=1) as server:
        check_kills(server, tmp_path, "anthropic", kills=kills, dealt=dealt)
