import multiprocessing
import os
import shutil
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persyn_hf.backends.engines import Answer, Prepared, Request, Sampling
from persyn_hf.backends.journal import Journal
from persyn_hf.errors import StoreError


SAMPLING = Sampling(temperature=0.6, top_p=1.0, top_k=0, max_tokens=16, seed=1)


def request(prompt: str = "p", index: int = 0, **changes: object) -> Request:
    prepared = Prepared(text=f"<{prompt}>", num_tokens=3)
    return Request(
        prompt_id=prompt,
        model="m@1",
        engine="e",
        sample_index=index,
        prompt=prepared,
        sampling=replace(SAMPLING, **changes),  # type: ignore[arg-type]
    )


def answer(to: Request, text: str = "ok", error: str | None = None) -> Answer:
    reason = "error" if error else "stop"
    return Answer(request=to, text=text, finish_reason=reason, num_tokens=2, seconds=0.5, error=error)


def test_every_part_of_a_request_is_in_its_key() -> None:
    base = request()
    others = [request("q"), request(index=1), request(temperature=0.7), request(top_p=0.9), request(top_k=1)]
    others += [request(max_tokens=17), request(seed=2), replace(base, engine="f"), replace(base, model="m@2")]
    others += [replace(base, prompt=Prepared(text="<system><p>", num_tokens=3))]
    assert len({base.key, *(other.key for other in others)}) == 11
    assert request().key == base.key
    assert replace(base, prompt=Prepared(text="<p>", num_tokens=4)).key == base.key


def test_an_answered_key_never_changes(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.write([answer(request(), "first"), answer(request("bad"), "", "boom")]) == 2
        assert journal.write([answer(request(), "second"), answer(request("bad"), "late")]) == 0
        found = journal.read([request().key, request("bad").key, request("unasked").key])
        assert [entry.text for entry in found.values()] == ["first", ""] or len(found) == 2
        assert found[request().key].text == "first"
        assert found[request("bad").key].error == "boom"
        assert (
            journal.write([answer(request(), "third"), answer(request("bad"), "mended")], supersede_errors=True) == 1
        )
        found = journal.read([request().key, request("bad").key])
        assert (found[request().key].text, found[request("bad").key].text) == ("first", "mended")
        assert found[request("bad").key].attempt == 1
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            journal._db.execute("UPDATE answers SET text = 'changed'")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            journal._db.execute("DELETE FROM answers")


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = replace(answer(request("b")), text=object())  # type: ignore[arg-type]
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(StoreError):
            journal.write([answer(request("a")), broken])
        assert journal.answered([request("a").key]) == set()


def test_a_plan_is_made_once_and_dropped(tmp_path: Path) -> None:
    plan = [[request("a"), request("b")], [request("c")]]
    keys = [[r.key for r in batch] for batch in plan]
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.plan("step", lambda: plan) == keys
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.plan("step", lambda: pytest.fail("planned twice")) == keys
        assert journal.plan("empty", list) == []
        assert journal.plan("empty", lambda: plan) == []
        journal.drop_plan("step")
        assert journal.plan("step", lambda: plan[1:]) == keys[1:]


def test_derived_values_are_kept(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.keep({"a": [1.5, True], "b": None})
        journal.keep({"a": "later"})
        assert journal.recall(["a", "b", "c"]) == {"a": [1.5, True], "b": None}


def test_the_files_are_private(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.write([answer(request())])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {"j.sqlite", "j.sqlite-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def _open_in_child(path: Path, queue: "multiprocessing.Queue[str]") -> None:
    try:
        Journal(path).close()
        queue.put("opened")
    except StoreError as error:
        queue.put(str(error))


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with Journal(path):
        child = context.Process(target=_open_in_child, args=(path, queue))
        child.start()
        said = queue.get(timeout=30)
        child.join()
    assert said == f"the journal {path} is in use by another run; wait until that run has ended, or stop it"
    Journal(path).close()


@pytest.mark.parametrize(("found", "age"), [(0, "an older"), (2, "a newer")])
def test_another_format_is_refused_and_left_as_it_is(tmp_path: Path, found: int, age: str) -> None:
    path = tmp_path / "j.sqlite"
    Journal(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {found}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        Journal(path)
    assert str(caught.value) == (
        f"the journal {path} is of format {found}, written by {age} version of persyn-hf; this version reads and "
        "writes format 1: use the version that wrote it, or name another journal (nothing was changed)"
    )
    assert path.read_bytes() == before


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (a)")
    db.close()
    with pytest.raises(StoreError, match="is an sqlite file but no persyn-hf journal; name another journal"):
        Journal(path)


@pytest.mark.parametrize("fault", ["garbage", "stub", "half", "hole"])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.write([answer(request(str(i)), "x" * 3000) for i in range(50)])
    whole = path.read_bytes()
    broken = {
        "garbage": b"no database" * 1000,
        "stub": whole[:100],
        "half": whole[: len(whole) // 2 // 4096 * 4096],
        "hole": whole[:4096] + bytes(8192) + whole[4096 + 8192 :],
    }[fault]
    path.write_bytes(broken)
    with pytest.raises(StoreError, match=r"is damaged \(.+\); it was left as it is: put back a copy of it, or save"):
        Journal(path)
    assert path.read_bytes() == broken


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.write([answer(request("kept"))])
        journal._db.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError, match="cannot grow: database or disk is full; free some space and run again"):
            journal.write([answer(request(str(i)), "x" * 9000) for i in range(50)])
    with Journal(path) as journal:
        assert len(journal.answered([request("kept").key, *(request(str(i)).key for i in range(50))])) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Journal(tmp_path / "file" / "j.sqlite")


def test_a_kill_between_write_and_close_loses_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.write([answer(request())])
        for name in ("j.sqlite", "j.sqlite-wal"):  # what a kill at this moment leaves behind
            shutil.copy(tmp_path / name, tmp_path / f"killed-{name}")
    os.rename(tmp_path / "killed-j.sqlite", tmp_path / "k.sqlite")
    os.rename(tmp_path / "killed-j.sqlite-wal", tmp_path / "k.sqlite-wal")
    with Journal(tmp_path / "k.sqlite") as journal:
        assert journal.read([request().key])[request().key].text == "ok"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 5), st.text(max_size=5), st.booleans()), max_size=4),
            st.booleans(),  # supersede errors
            st.booleans(),  # close and open again
        ),
        max_size=8,
    )
)
def test_the_journal_behaves_like_a_dictionary_that_only_grows(
    tmp_path_factory: pytest.TempPathFactory, batches: list
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    model: dict[str, tuple[str, str | None, int]] = {}
    keys = [request(str(number)).key for number in range(6)]
    journal = Journal(path)
    try:
        for batch, supersede, reopen in batches:
            for number, _, _ in batch:
                assert request(str(number)).key in keys
            answers = [answer(request(str(n)), text, "failed" if fails else None) for n, text, fails in batch]
            written = journal.write(answers, supersede_errors=supersede)
            expected = 0
            for given_answer in answers:
                key, old = given_answer.request.key, model.get(given_answer.request.key)
                if old is None or (supersede and old[1] is not None):
                    model[key] = (given_answer.text, given_answer.error, 0 if old is None else old[2] + 1)
                    expected += 1
            assert written == expected
            if reopen:
                journal.close()
                journal = Journal(path)
            found = journal.read(keys)
            assert {key: (entry.text, entry.error, entry.attempt) for key, entry in found.items()} == model
            assert journal.answered(keys) == set(model)
            assert journal.answered(keys, errors=False) == {key for key, old in model.items() if old[1] is None}
    finally:
        journal.close()
