"""The batch engine against a real server: nothing is sent twice, whatever dies when; what expires is sent anew."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from batch_asking import ask, check_kills, engine, notes, requests
from batch_server import BatchServer, Reply, answered
from openai_server import OpenAIServer

from persyn_hf.backends.engines.batch.engine import BatchEngine
from persyn_hf.backends.engines.batch.notes import FORGOTTEN_S
from persyn_hf.backends.engines.batch.service import cut
from persyn_hf.backends.engines.open_engine import open_local
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import BatchSettings, ServerSettings, VllmSettings
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.stages.generate.settings import Settings


pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("short_pauses")]


def test_every_request_is_sent_once_and_answered_as_a_server_would(tmp_path: Path) -> None:
    with BatchServer() as server, engine(server.url, tmp_path, {"min_p": 0.1}, max_requests=4) as batch:
        asked = requests(batch, 10)
        answers = ask(batch, asked)
        assert {answer.request.key: answer.text for answer in answers} == {
            request.key: f"you said word {index}" for index, request in enumerate(asked)
        }
        assert {(answer.num_tokens, answer.finish_reason, answer.error) for answer in answers} == {(3, "stop", None)}
        assert len(server.batches) == 3 and set(server.sent.values()) == {1}
        line = server.lines("file_1")[0]
    assert (line["method"], line["url"], line["custom_id"]) == ("POST", "/v1/chat/completions", asked[0].key)
    assert notes(tmp_path) == []
    with OpenAIServer() as other, ServerEngine("m", ServerSettings(urls=(other.url,), extra={"min_p": 0.1})) as one:
        same = requests(one, 1)
        assert same[0].key == asked[0].key, "the journal has them for both engines"
        list(one.generate([same]))
        assert {**line["body"], "stream": False} == other.bodies[0]


def test_what_expires_is_sent_anew_and_what_was_refused_is_an_error(tmp_path: Path) -> None:
    def outcome(line: dict[str, Any], times: int) -> dict[str, Any] | None:
        word = line["body"]["messages"][-1]["content"]
        if word == "word 0":
            return {"custom_id": line["custom_id"], "response": None, "error": {"code": "x", "message": "bad word"}}
        if word == "word 1":
            body = {"error": {"message": "too long", "code": "context_length_exceeded"}}
            return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": body}}
        if word == "word 2":
            return None  # never
        return None if word == "word 3" and times < 2 else answered(line, times)

    with BatchServer(outcome=outcome, status=lambda number: "expired") as server:
        with engine(server.url, tmp_path, attempts=3) as batch:
            found = {answer.request.prompt_id: answer for answer in ask(batch, requests(batch, 5))}
        assert sorted(server.sent.values()) == [1, 1, 1, 2, 3]
    assert [found[f"p{index}"].error for index in range(5)] == [
        "bad word",
        "HTTP 400: too long",
        "the batch expired",
        None,
        None,
    ]
    assert found["p0"].num_tokens == 0 and notes(tmp_path) == []


def test_a_line_that_says_that_a_request_expired_is_no_answer(tmp_path: Path) -> None:
    """OpenAI writes such a line of every request that a batch had no time for, and a line of every status."""

    def outcome(line: dict[str, Any], times: int) -> dict[str, Any] | None:
        word = int(line["body"]["messages"][-1]["content"].split()[1])
        if word < 2 or times < 2:
            code = ("request_timeout", "batch_expired", "batch_cancelled")[word % 3]
            return {"custom_id": line["custom_id"], "response": None, "error": {"code": code, "message": f"{code}."}}
        if times < 3:
            body = {"error": {"message": "slow down"}}
            return {"custom_id": line["custom_id"], "response": {"status_code": (429, 500)[word % 2], "body": body}}
        return answered(line, times)

    with BatchServer(outcome=outcome, status=lambda number: "expired") as server:
        with engine(server.url, tmp_path, attempts=3) as batch:
            found = {answer.request.prompt_id: answer for answer in ask(batch, requests(batch, 5))}
        assert set(server.sent.values()) == {3}
    assert [found[f"p{index}"].error for index in range(5)] == ["request_timeout.", "batch_expired.", None, None, None]


class OddServer(BatchServer):
    """Calls a batch that goes on `word`, and names the results of one only at the `named`-th look at it."""

    word = "in_progress"
    named = 0

    def show(self, name: str) -> dict[str, Any]:
        found = super().show(name)
        if found["status"] == "in_progress":
            found["status"] = self.word
        if self.batches[name].looks < self.named or found["status"] == "expired":
            found["output_file_id"] = None
        return found


@pytest.mark.parametrize("word", ["scheduled", "IN-PROGRESS", "paused"])
def test_what_is_not_known_to_be_over_goes_on(tmp_path: Path, word: str) -> None:
    with OddServer(looks=2) as server, engine(server.url, tmp_path) as batch:
        server.word, server.named = word, 6
        assert {answer.error for answer in ask(batch, requests(batch, 2))} == {None}
        assert len(server.batches) == 1


def test_a_batch_that_expires_without_results_is_sent_anew(tmp_path: Path) -> None:
    with OddServer(status=lambda number: "expired" if number == 1 else "completed") as server:
        with engine(server.url, tmp_path) as batch:
            assert {answer.error for answer in ask(batch, requests(batch, 2))} == {None}
        assert len(server.batches) == 2


def test_the_same_address_in_another_spelling_finds_its_batches(tmp_path: Path) -> None:
    with BatchServer(before=lambda number, path: 503 if path.endswith("content") else None) as server:
        with engine(server.url, tmp_path, patience_s=0) as batch, pytest.raises(EngineError, match="go on there"):
            ask(batch, requests(batch, 2))
        server.before = lambda number, path: None
        with engine(f"{server.url}/chat/completions/", tmp_path) as batch:
            assert len(ask(batch, requests(batch, 2))) == 2
        assert len(server.batches) == 1 and notes(tmp_path) == []


@pytest.mark.parametrize("place", ["batch_1", "content"])
def test_a_batch_that_is_not_there_is_said_to_be_gone(tmp_path: Path, place: str) -> None:
    with BatchServer(before=lambda number, path: 404 if path.endswith(place) else None) as server:
        for _ in range(2):
            with engine(server.url, tmp_path) as batch, pytest.raises(EngineError, match="does not know") as caught:
                ask(batch, requests(batch, 2))
        assert notes(tmp_path)[0] in str(caught.value) and len(server.batches) == 1


def test_a_lost_batch_is_found_where_marks_are_not_kept_and_pages_not_counted(tmp_path: Path) -> None:
    """Groq and Together list no metadata, Groq does not say whether there are more batches."""

    class Pages(BatchServer):
        def listed(self, query: str) -> dict[str, Any]:
            after = dict(part.split("=") for part in query.split("&")).get("after")
            assert "api-version=7" in query
            names = list(reversed(self.batches))
            names = names[names.index(after) + 1 :] if after else names
            shown = [{**self.show(name), "metadata": None} for name in names[:1]]
            return {"data": [{**each, "input_file_id": self.batches[each["id"]].file} for each in shown]}

    lost: list[int] = []

    def cut(number: int, path: str) -> None:
        if path == "/v1/batches" and not lost:
            lost.append(number)
            for name in ("other_1", "other_2"):
                server.batches[name] = server.batches["batch_1"].__class__("file_1", "completed", {})
                server.batches[name].file = f"file_of_{name}"
                server.files[f"file_of_{name}"] = b""
            raise ConnectionAbortedError

    with Pages(after=cut) as server, engine(f"{server.url}?api-version=7", tmp_path, patience_s=60) as batch:
        assert len(ask(batch, requests(batch, 2))) == 2
        assert set(server.sent.values()) == {1} and lost


def test_a_batch_that_answers_another_step_too_is_kept_for_it(tmp_path: Path) -> None:
    with BatchServer(before=lambda number, path: 503 if path.endswith("content") else None) as server:
        with engine(server.url, tmp_path, patience_s=0) as batch, pytest.raises(EngineError, match="go on there"):
            ask(batch, requests(batch, 6))
        server.before = lambda number, path: None
        with engine(server.url, tmp_path) as batch:
            asked = requests(batch, 6)
            assert len(ask(batch, asked[:2])) == 2 and len(notes(tmp_path)) == 1
            assert len(ask(batch, asked[2:])) == 4 and notes(tmp_path) == []
        assert len(server.batches) == 1 and set(server.sent.values()) == {1}


def test_services_that_fail_for_a_while_are_waited_for(tmp_path: Path) -> None:
    heard: list[str | None] = []
    with BatchServer(before=lambda number, path: 503 if number in (1, 3) else None) as server:
        with engine(server.url, tmp_path, patience_s=60) as batch:
            batch.when_waiting(heard.append)
            assert len(ask(batch, requests(batch, 3))) == 3
        assert set(server.sent.values()) == {1}
    assert any("HTTP 503: not now" in (reason or "") for reason in heard) and heard[-1] is None
    assert any("0 of 3 answered" in (reason or "") for reason in heard)


def test_a_reply_that_is_lost_does_not_pay_twice(tmp_path: Path) -> None:
    """The batch is made, and the connection is cut before its id arrives."""
    lost: list[int] = []

    def cut(number: int, path: str) -> None:
        if path == "/v1/batches" and not lost:
            lost.append(number)
            raise ConnectionAbortedError

    with BatchServer(after=cut) as server, engine(server.url, tmp_path, patience_s=60) as batch:
        assert len(ask(batch, requests(batch, 4))) == 4
        assert len(server.batches) == 1 and set(server.sent.values()) == {1} and lost


def test_an_account_that_is_full_is_waited_for(tmp_path: Path) -> None:
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    with BatchServer(status=lambda number: "failed" if number < 3 else "completed", error=full) as server:
        with engine(server.url, tmp_path, attempts=1) as batch:
            assert len(ask(batch, requests(batch, 2))) == 2
        assert len(server.batches) == 4 and set(server.sent.values()) == {1}


def test_a_batch_that_is_larger_than_the_account_allows_is_halved(tmp_path: Path) -> None:
    """Three requests may be under way; eight were sent at once."""
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    with BatchServer(error=full) as server:
        sent = lambda: [name for name in server.files if not name.startswith("file_of")]  # noqa: E731
        server.status = lambda number: "failed" if len(server.lines(sent()[-1])) > 3 else "completed"
        with engine(server.url, tmp_path, attempts=1) as batch:
            assert len(ask(batch, requests(batch, 8))) == 8
        assert len(server.batches) <= 9
        assert set(server.sent.values()) == {1}


def test_a_batch_that_cannot_begin_ends_the_run_with_the_services_words(tmp_path: Path) -> None:
    with BatchServer(status=lambda number: "failed") as server, engine(server.url, tmp_path) as batch:
        with pytest.raises(EngineError, match=r"has not begun a batch \(the batch failed: no such model\)"):
            ask(batch, requests(batch, 2))
        assert notes(tmp_path) == []
    with BatchServer(before=lambda number, path: 401) as server, engine(server.url, tmp_path) as batch:
        with pytest.raises(EngineError, match=r"takes no batch \(HTTP 401: not now\); where it wants a key"):
            ask(batch, requests(batch, 2))
    with engine(server.url, tmp_path, patience_s=0) as batch, pytest.raises(EngineError, match="not answered for 0 s"):
        ask(batch, requests(batch, 1))


def test_the_key_goes_with_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with BatchServer() as server:
        settings = ServerSettings(urls=(server.url,), api_key_env="MY_KEY")
        with BatchEngine("m", settings, BatchSettings(poll_s=0.05), state_dir=tmp_path / "unfinished") as batch:
            ask(batch, requests(batch, 1))
        assert set(server.keys) == {"Bearer secret"}


def test_files_are_cut_by_number_and_by_bytes() -> None:
    sizes: list[Any] = [5, 5, 5, 20, 1]

    def line(size: Any, mark: str) -> bytes:
        return mark[:1].encode() * size

    parts = list(cut(sizes, line, 2, 11))
    assert [[len(made) for _, made in part] for _, part in parts] == [[5, 5], [5], [20], [1]]
    assert len({mark for mark, _ in parts}) == 4
    assert {made[:1].decode() == mark[:1] for mark, part in parts for _, made in part} == {True}
    assert [len(part) for _, part in cut(sizes, line, 1, 100)] == [1] * 5


def test_notes_that_say_nothing_are_passed_over_and_old_ones_removed(tmp_path: Path) -> None:
    folder = tmp_path / "batches"
    folder.mkdir()
    (folder / "half.json").write_text('{"service": "x", "mod')
    (folder / "other.json").write_text("[]")
    (folder / "old.json").write_text("{}")
    os.utime(folder / "old.json", (time.time() - FORGOTTEN_S - 9,) * 2)
    with BatchServer() as server, engine(server.url, tmp_path) as batch:
        assert len(ask(batch, requests(batch, 1))) == 1
    assert notes(tmp_path) == ["half.json", "other.json"]


def test_notes_of_earlier_versions_are_collected(tmp_path: Path) -> None:
    with BatchServer() as server:
        with engine(server.url, tmp_path) as batch:
            batch.send([[request] for request in requests(batch, 3)])
        (path,) = (tmp_path / "batches").iterdir()
        known = json.loads(path.read_text())
        old = ("service", "model", "mark", "keys", "file", "batch", "attempt")
        path.write_text(json.dumps({name: known[name] for name in old}))
        with engine(server.url, tmp_path) as batch:
            assert len(ask(batch, requests(batch, 2))) == 2 and len(notes(tmp_path)) == 1
            assert len(ask(batch, requests(batch, 3)[2:])) == 1 and notes(tmp_path) == []
        assert len(server.batches) == 1


def test_files_that_lie_elsewhere_are_fetched_without_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with BatchServer() as server, BatchServer() as storage:
        away = Reply(302, {"location": f"{storage.url}/files/file_of_batch_1/content?signed=1"})
        server.before = lambda number, path: away if path.endswith("content") else None
        storage.files = server.files
        settings = ServerSettings(urls=(server.url,), api_key_env="MY_KEY")
        with BatchEngine("m", settings, BatchSettings(poll_s=0.05), state_dir=tmp_path / "unfinished") as batch:
            assert {answer.error for answer in ask(batch, requests(batch, 2))} == {None}
        assert storage.keys == [None] and set(server.keys) == {"Bearer secret"}


def test_a_lost_batch_behind_too_many_others_is_not_sent_anew(tmp_path: Path) -> None:
    class Endless(BatchServer):
        def listed(self, query: str) -> dict[str, Any]:
            return {"data": [{"id": f"batch_{self.number}", "created_at": time.time()}], "has_more": True}

    with Endless() as server:
        with engine(server.url, tmp_path) as batch:
            batch.send([[request] for request in requests(batch, 2)])
        (path,) = (tmp_path / "batches").iterdir()
        path.write_text(json.dumps({**json.loads(path.read_text()), "batch": None}))
        with engine(server.url, tmp_path) as batch, pytest.raises(EngineError, match="lists more than 5,000 batches"):
            ask(batch, requests(batch, 2))
        assert len(server.batches) == 1 and notes(tmp_path) == [path.name]


def test_what_cannot_be_asked_in_batches_is_refused(tmp_path: Path) -> None:
    two = ServerSettings(urls=("http://a/v1", "http://b/v1"))
    with pytest.raises(RecipeError, match="has 2 urls, and a batch goes to one"):
        BatchEngine("m", two, BatchSettings(), state_dir=tmp_path)
    with pytest.raises(ValueError, match="knows no `executor`"):
        Settings(engine="batch", executor={"kind": "ray"})
    options: dict[str, Any] = {"kind": "batch", "model": "m", "revision": None, "system_prompt": None}
    options |= {"batch_tokens": 1, "dtype": "auto", "device": "auto", "vllm": VllmSettings(), "log_dir": tmp_path}
    with pytest.raises(RecipeError, match="has no server"):
        open_local(**options, server=ServerSettings(), state_dir=tmp_path)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
@pytest.mark.parametrize("dealt", [False, True], ids=["before", "after"])
def test_killed_at_any_request_nothing_is_sent_twice(heavy: None, dealt: bool, kills: int, tmp_path: Path) -> None:
    with BatchServer(looks=1) as server:
        check_kills(server, tmp_path, "openai", kills=kills, dealt=dealt)
