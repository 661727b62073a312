"""`persyn artifacts ls` and `rm`: what is listed, what goes with what, and that nothing else does."""

import sys
from pathlib import Path

import pytest
from rows import assignment, prompt, response

from persyn_hf.cli.main import main
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.store import remove
from persyn_hf.store.lineage import verify
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


def put(store: Store, repo: str, schema, rows, *made_from: Stored, tag: str | None = None) -> Stored:
    inputs = {f"i{number}": {"ref": item.ref, "digest": item.digest} for number, item in enumerate(made_from)}
    fields = {"stage": "generate", "inputs": inputs, "counts": {"rows": len(rows)}}
    return store.put(repo=repo, schema=schema, data=schema.dataset(rows), fields=fields, tag=tag)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Prompts in two versions; assignments and responses made from the first, one by way of the other."""
    store = Store(tmp_path / "store")
    prompts = put(store, "lab/a-prompts", PROMPTS, [prompt("1", "p")])
    put(store, "lab/a-prompts", PROMPTS, [prompt("1", "p"), prompt("2", "q")])
    assigned = put(store, "lab/a-assignments-all", ASSIGNMENTS, [assignment("p", "t", scores=[])], prompts)
    put(store, "lab/a-responses", RESPONSES, [response("p", "t", "four")], assigned)
    put(store, "lab/b-responses", RESPONSES, [response("p", "t", "five")])
    return store


def refs(store: Store) -> list[str]:
    return [item.ref for item in store.artifacts()]


def artifacts(store: Store, *arguments: str) -> int:
    command, *rest = arguments
    return main(["artifacts", command, "--store", str(store.root), *rest])


def files(store: Store) -> set[Path]:
    return {path for path in store.root.rglob("*") if path.is_file() and ".persyn" not in path.parts}


def test_what_was_made_from_an_artifact_goes_with_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    others = files(store)
    assert artifacts(store, "rm", "lab/a-prompts@v1", "--yes") == 0
    told = capsys.readouterr().out
    assert refs(store) == ["lab/a-prompts@v2", "lab/b-responses@v1"]
    assert "lab/a-responses@v1 (responses, " in told and told.count("made from these") == 2
    assert "removed 3 artifacts" in told
    for ref in refs(store):
        verify(store, ref)
    assert files(store) < others
    assert not (store.root / "datasets--lab--a-responses").exists()


def test_a_version_goes_and_the_other_stays_whole(store: Store) -> None:
    assert artifacts(store, "rm", "lab/a-prompts@v2", "--yes") == 0
    assert refs(store)[-2:] == ["lab/a-responses@v1", "lab/b-responses@v1"] and len(refs(store)) == 4
    assert store.get("lab/a-prompts").tag == "v1", "the newest is what is left"
    verify(store, "lab/a-responses@v1")


def test_a_tag_that_an_artifact_names_goes_with_it_and_another_one_stays(store: Store) -> None:
    store.retag(store.get("lab/a-prompts@v1"), "first")
    assert artifacts(store, "rm", "lab/a-prompts@first", "--yes") == 0
    assert "lab/a-responses@v1" in refs(store), "it was made from v1, which is the same content"
    verify(store, "lab/a-responses@v1")
    store.retag(store.get("lab/a-prompts@v1"), "first")
    assert artifacts(store, "rm", "lab/a-prompts@v1", "--yes") == 0
    assert "lab/a-responses@v1" not in refs(store) and "lab/a-prompts@first" in refs(store)
    for ref in refs(store):
        verify(store, ref)


def test_a_kill_in_between_leaves_nothing_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the tag is gone, the next removal in the repository takes the files away."""
    with monkeypatch.context() as cut:
        cut.setattr(remove, "_sweep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove.remove(store, [store.get("lab/a-prompts@v2")])
    assert "lab/a-prompts@v2" not in refs(store)
    put(store, "lab/a-prompts", PROMPTS, [prompt("3", "r")], tag="v3")
    remove.remove(store, [store.get("lab/a-prompts@v3")])
    folder = store.root / "datasets--lab--a-prompts"
    assert len(list((folder / "snapshots").iterdir())) == 1
    needed = {path.resolve().name for path in (folder / "snapshots").rglob("*") if path.is_file()}
    assert {path.name for path in (folder / "blobs").iterdir()} == needed


def test_nothing_goes_without_a_yes(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = refs(store)
    assert artifacts(store, "rm", "lab/b-*") == 2
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert artifacts(store, "rm", "lab/b-*") == 1
    assert artifacts(store, "rm", "nothing-*", "--yes") == 2
    assert artifacts(store, "rm", "lab/none@v1", "--yes") == 2
    assert refs(store) == before


def test_ls_shows_names_whole_and_filters(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = f"lab/{'a.very.long.name.' * 3}responses"
    put(store, long, RESPONSES, [response("p", "t", "six")])
    monkeypatch.setenv("COLUMNS", "80")
    assert artifacts(store, "ls") == 0
    shown = capsys.readouterr().out
    assert f"{long}@v1" in shown and "lab/a-prompts@v2" in shown
    for arguments, expected in (
        (["a-*"], {"lab/a-assignments-all@v1", "lab/a-prompts@v1", "lab/a-prompts@v2", "lab/a-responses@v1"}),
        (["*@v2"], {"lab/a-prompts@v2"}),
        (["--kind", "responses", "lab/?-responses"], {"lab/a-responses@v1", "lab/b-responses@v1"}),
    ):
        assert artifacts(store, "ls", *arguments) == 0
        shown = capsys.readouterr().out
        assert {word for word in shown.split() if "@v" in word} == expected
    assert artifacts(store, "ls", "--kind", "response") == 2
    assert "did you mean `responses`" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["artifacts", "ls", "--store", str(tmp_path / "file")]) == 2
