"""What the journal keeps and gives back. Its behaviour over long sequences: test_journal_model.py; under damage, kills
and full disks: test_journal_faults.py."""

import hashlib
import pickle
import sqlite3
import stat
import zlib
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_samples import answer, request

from persyn_hf.backends.answers import Entry, Prepared
from persyn_hf.backends.journal import Journal, Spent, read_spent
from persyn_hf.errors import StoreError


def test_every_part_of_a_request_is_in_its_key() -> None:
    base = request()
    others = [request("q"), request(index=1), request(temperature=0.7), request(top_p=0.9), request(top_k=1)]
    others += [request(max_tokens=17), request(seed=2), replace(base, engine="f"), replace(base, model="m@2")]
    others += [replace(base, prompt=Prepared(text="<system><p>", num_tokens=3))]
    assert len({base.key, *(other.key for other in others)}) == 11
    assert request().key == base.key
    assert replace(base, prompt=Prepared(text="<p>", num_tokens=4)).key == base.key


def test_answers_of_old_journals_are_found() -> None:
    asked = request("é", 1)  # the values are those that journals hold since the first version
    assert asked.key == "3b17b289b931dfef6dc8b7934ca8b501277169c2b8dc03c85fe93770cb45d157"
    assert asked.digest == "ad5560cd5cde57f87784f040d57d47343ff08bc14a658466fab750c41acf8862"
    assert asked.family == "498970d6164e558bbe3f517d5a8a484d178fc8273cbcfde015f6c4e60eda66be"


def test_a_request_is_small_and_travels() -> None:
    asked = request("q", 2)
    for part in (asked, asked.prompt, asked.sampling):  # millions are held: a dict each would double them
        assert not hasattr(part, "__dict__")
    sent = pickle.loads(pickle.dumps(asked))
    assert (sent, sent.key) == (asked, asked.key), "as Ray's actors get it"


def test_an_answered_key_never_changes(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.write([answer(request(), "first"), answer(request("bad"), "", "boom")], teacher="t") == 2
        assert journal.write([answer(request(), "second"), answer(request("bad"), "late")], teacher="t") == 0
        found = journal.read([request().key, request("bad").key, request("unasked").key])
        assert len(found) == 2
        assert found[request().key].text == "first"
        assert found[request("bad").key].error == "boom"
        assert (
            journal.write(
                [answer(request(), "third"), answer(request("bad"), "mended")], teacher="t", supersede_errors=True
            )
            == 1
        )
        found = journal.read([request().key, request("bad").key])
        assert (found[request().key].text, found[request("bad").key].text) == ("first", "mended")
        assert found[request("bad").key].attempt == 1
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            journal._db.execute("UPDATE answers SET text = 'changed'")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            journal._db.execute("DELETE FROM answers")


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = replace(answer(request("b")), finish_reason=None)  # type: ignore[arg-type]
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(StoreError):
            journal.write([answer(request("a")), broken], teacher="t")
        assert journal.answered([request("a").key]) == set()


def test_tokens_that_nobody_counted_are_unknown_and_their_answers_counted(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    served = replace(request("a"), prompt=replace(request().prompt, num_tokens=0))
    nothing = answer(request("c"), text="", error="HTTP 500", num_tokens=0)
    with Journal(path, recipe="r") as journal:
        journal.write([answer(served, num_tokens=None), answer(request("b")), nothing], teacher="t")
        found = journal.read([served.key, request("b").key, request("c").key])
        spent = journal.spent("r")["t"]
    assert (found[served.key].num_tokens, found[served.key].num_prompt_tokens) == (None, None)
    assert (found[request("b").key].num_tokens, found[request("b").key].num_prompt_tokens) == (2, 3)
    assert found[request("c").key].num_tokens == 0
    assert (spent.requests, spent.prompt_tokens, spent.completion_tokens, spent.uncounted) == (3, 3, 2, 1)
    # A file of a version that did not count them: it is counted once, and readable before.
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER answers_are_not_counted")
    db.execute("DROP TABLE uncounted")
    db.commit()
    db.close()
    assert read_spent(path, "r")["t"].uncounted == 0
    with Journal(path, recipe="r") as journal:
        assert journal.spent("r")["t"].uncounted == 1
        journal.write([answer(request("d"), num_tokens=None)], teacher="t")
        assert journal.spent("r")["t"].uncounted == 2
    assert read_spent(path, "r")["t"].uncounted == 2


def test_a_plan_is_made_once_and_dropped(tmp_path: Path) -> None:
    plan = [[request("a"), request("b")], [request("c")]]
    keys = [[r.key for r in batch] for batch in plan]
    with Journal(tmp_path / "j.sqlite") as journal:
        assert list(journal.plan("step", lambda: plan)) == keys
    with Journal(tmp_path / "j.sqlite") as journal:
        assert list(journal.plan("step", lambda: pytest.fail("planned twice"))) == keys
        assert list(journal.plan("empty", list)) == []
        assert list(journal.plan("empty", lambda: plan)) == []
        journal.drop_plan("step")
        assert list(journal.plan("step", lambda: plan[1:])) == keys[1:]


def test_derived_values_are_kept(tmp_path: Path) -> None:
    a, b, c = (hashlib.sha256(name.encode()).hexdigest() for name in "abc")
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.keep({a: [1.5, True], b: None})
        journal.keep({a: "later"})
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.recall([a, b, c]) == {a: [1.5, True], b: None}


def test_the_files_are_private(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.write([answer(request())], teacher="t")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {"j.sqlite", "j.sqlite-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_an_entry_is_what_was_said(tmp_path: Path) -> None:
    said = answer(request(), "4", reasoning="2 + 2", num_prompt_tokens=7, finish_reason="length")
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.write([said, answer(request("plain"))], teacher="t")
        found = journal.read([request().key, request("plain").key])
    figures = {"num_tokens": 2, "seconds": 0.5, "error": None, "attempt": 0}
    assert found == {
        request().key: Entry(text="4", reasoning="2 + 2", finish_reason="length", num_prompt_tokens=7, **figures),
        request("plain").key: Entry(text="ok", reasoning=None, finish_reason="stop", num_prompt_tokens=3, **figures),
    }


def test_the_checksum_of_a_row_is_the_one_that_stored_journals_hold(tmp_path: Path) -> None:
    """The order of its values is part of the format: a new column of what was said comes with a new one."""
    said = answer(request(), "4", reasoning="2 + 2", num_prompt_tokens=7, finish_reason="length")
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.write([said], teacher="t")
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as db:
        (found,) = db.execute("SELECT checksum FROM answers").fetchone()
    key = bytes.fromhex(request().key[:32])
    values = (key, 0, "4", "2 + 2", "length", 7, 2, 0.5, None)
    assert found == zlib.crc32(repr(values).encode())


def test_a_row_says_who_paid_whom(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite", recipe="local/demo") as journal:
        journal.write([answer(request())], teacher="small")
    db = sqlite3.connect(tmp_path / "j.sqlite")
    assert db.execute("SELECT hex(key), hex(family), max_tokens, teacher, recipe FROM answers").fetchall() == [
        (request().key[:32].upper(), request().family[:32].upper(), 16, "small", "local/demo")
    ]
    db.close()


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec=None)), reasoning=st.none() | st.text(st.characters(codec=None), min_size=1))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str, reasoning: str | None) -> None:
    """But half a surrogate pair, which no file can hold: U+FFFD."""

    def whole(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    with Journal(tmp_path_factory.mktemp("j") / "j.sqlite") as journal:
        journal.write([answer(request(), text, reasoning=reasoning)], teacher="t")
        entry = journal.read([request().key])[request().key]
    assert (entry.text, entry.reasoning) == (whole(text), None if reasoning is None else whole(reasoning))
    assert entry.text == text or any("\ud800" <= character <= "\udfff" for character in text)


def test_many_keys_in_one_question(tmp_path: Path) -> None:
    asked = [request(str(number)) for number in range(1201)]
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.write([answer(each, each.prompt_id) for each in asked[:1100]] * 2, teacher="t") == 1100
        keys = [each.key for each in asked]
        assert journal.answered(iter(keys)) == set(keys[:1100])
        assert {key: entry.text for key, entry in journal.read(iter(keys)).items()} == {
            each.key: each.prompt_id for each in asked[:1100]
        }
        assert journal.read([]) == {} and journal.answered([]) == set()


def test_answers_that_ended_before_a_smaller_bound_stand(tmp_path: Path) -> None:
    """Only a finished answer to the very same request, and the one with the largest bound of several."""

    told = [
        answer(request("done", max_tokens=4)),
        answer(request("done", max_tokens=8)),
        answer(request("done", max_tokens=64)),
        answer(request("cut", max_tokens=8), finish_reason="length"),
        answer(request("grew", max_tokens=4)),
        answer(request("grew", max_tokens=8), finish_reason="length"),
        answer(request("failed", max_tokens=8), "", "boom"),
        answer(request("own", max_tokens=8)),
        answer(request("own", max_tokens=16)),
        answer(request("other seed", max_tokens=8, seed=2)),
        answer(request("other sample", 1, max_tokens=8)),
        answer(replace(request("other model", max_tokens=8), model="m@2")),
    ]
    asked = [request(name) for name in ("done", "cut", "grew", "failed", "own", "other seed", "new")]
    asked += [request("other sample", 0), request("other model")]
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.finished_shorter(asked) == {}
        journal.write(told, teacher="t")
        found = journal.finished_shorter(asked)
        by_key = {each.request.key: each.request for each in told}
        full = {key: next(whole for whole in by_key if whole.startswith(short)) for key, short in found.items()}
        assert {key: by_key[whole].sampling.max_tokens for key, whole in full.items()} == {
            request("done").key: 8,
            request("grew").key: 4,
        }
        assert all(journal.read([short])[short].text == "ok" for short in found.values())
        journal.write([answer(request("failed", max_tokens=8), "mended")], teacher="t", supersede_errors=True)
        assert journal.read(journal.finished_shorter([request("failed")]).values()).popitem()[1].text == "mended"
        journal.write([answer(request("failed"), error="again")], teacher="t")
        assert journal.finished_shorter([request("failed")]) == {}, "an error is an answer"
        assert len(journal.finished_shorter([request("failed")], errors=False)) == 1, "unless errors are asked again"


def test_what_a_recipe_has_spent(tmp_path: Path) -> None:
    """Every attempt counts; an answer that was there already does not; who pays is the recipe that asks."""
    path, long_reason = tmp_path / "j.sqlite", "x" * 100
    with Journal(path, recipe="local/a") as journal:
        assert journal.spent("local/a") == {}
        journal.write([answer(request("1")), answer(request("2"), "", "boom", num_tokens=0)], teacher="small")
        journal.write([answer(request("2"), "", long_reason)], teacher="small", supersede_errors=True)
        journal.write([answer(request("2"), "now")], teacher="small", supersede_errors=True)
        journal.write([answer(request("1")), answer(request("2"))], teacher="small")
        cut = answer(request("3"), finish_reason="length", num_prompt_tokens=10)
        journal.write([cut, answer(request("4"), "", "boom", num_tokens=0)], teacher="big")
        journal.write([answer(request("5"), "", "boom", num_tokens=0)], teacher="big")
    with Journal(path, recipe="local/b") as journal:
        journal.write([answer(request("6")), answer(request("1"))], teacher="small")
        spent = journal.spent("local/a")
        assert journal.spent("local/b") == read_spent(path, "local/b")
        assert journal.spent("local/b") == {
            "small": Spent(requests=1, prompt_tokens=3, completion_tokens=2, seconds=0.5, truncated=0)
        }
    assert spent == read_spent(path, "local/a")
    assert spent == {
        "small": Spent(
            requests=4,
            prompt_tokens=9,  # not that of the request that failed before its first token
            completion_tokens=6,
            seconds=2.0,
            truncated=0,
            errors=Counter({"boom": 1, "x" * 80: 1}),
        ),
        "big": Spent(
            requests=3,
            prompt_tokens=10,
            completion_tokens=2,
            seconds=1.5,
            truncated=1,
            errors=Counter({"boom": 2}),
        ),
    }
