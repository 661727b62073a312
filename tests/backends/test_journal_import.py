"""Answers come from another store's journal: what is here stays, what is lacking comes, whatever is cut short."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_samples import answer, request

from persyn_hf.backends import journal_import
from persyn_hf.backends.journal import Journal, read_spent
from persyn_hf.backends.journal_import import Imported, import_journal
from persyn_hf.backends.journal_reading import JournalReader
from persyn_hf.cli.main import main
from persyn_hf.errors import StoreError


def fill(path: Path, said: dict[str, str | None], recipe: str = "") -> None:
    """Answers by prompt; None is an error."""
    answers = [answer(request(p), text or "", None if text else "boom") for p, text in said.items()]
    with Journal(path, recipe=recipe) as journal:
        journal.write(answers, teacher="t")
        journal.keep({request(p).digest: {"right": True} for p in said})


def content(path: Path, prompts: Iterable[str]) -> dict[str, str | None]:
    with Journal(path) as journal:
        entries = journal.read([request(p).key for p in prompts])
        return {p: e.text if e.error is None else None for p in prompts if (e := entries.get(request(p).key))}


def test_the_example(tmp_path: Path) -> None:
    here, there = tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    fill(here, {"1": "4", "2": None}, recipe="local/mine")
    fill(there, {"1": "four", "2": "5", "3": None, "4": "7"}, recipe="local/theirs")
    before = read_spent(here, "local/mine")
    with Journal(here) as journal:
        assert import_journal(journal, there) == Imported(answers=3, known=1, derived=2)
        assert import_journal(journal, there) == Imported(answers=0, known=4, derived=0)
        assert journal.recall([request("4").digest]) == {request("4").digest: {"right": True}}
    assert content(here, "1234") == {"1": "4", "2": "5", "3": None, "4": "7"}
    assert read_spent(here, "local/mine") == before and read_spent(here, "local/theirs") == {}
    assert content(there, "1234")["1"] == "four", "the other one is as it was"


PROMPTS = "abcdef"
SAID = st.dictionaries(st.sampled_from(PROMPTS), st.none() | st.sampled_from(["x", "y"]))


@settings(max_examples=30)
@given(here=SAID, there=SAID, cut=st.integers(0, 3))
def test_any_two_journals_come_together(
    here: dict[str, str | None], there: dict[str, str | None], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An import that was cut after some transactions ends, made again, as one that was not."""
    folder = tmp_path_factory.mktemp("two")
    fill(folder / "here.sqlite", here)
    fill(folder / "there.sqlite", there)
    with pytest.MonkeyPatch.context() as patch, Journal(folder / "here.sqlite") as journal:
        patch.setattr(journal_import, "AT_A_TIME", 1)
        whole, times = journal_import._write, 0

        def write(*arguments: object) -> int:
            nonlocal times
            times += 1
            if times > cut:
                raise KeyboardInterrupt
            return whole(*arguments)  # type: ignore[arg-type]

        patch.setattr(journal_import, "_write", write)
        try:
            import_journal(journal, folder / "there.sqlite")
        except KeyboardInterrupt:
            patch.setattr(journal_import, "_write", whole)
            import_journal(journal, folder / "there.sqlite")
    expected = {p: here[p] if here.get(p) else there.get(p, here.get(p)) for p in {*here, *there}}
    assert content(folder / "here.sqlite", PROMPTS) == expected


def test_a_run_that_writes_meanwhile_is_read_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "there.sqlite", {"1": "4"})
    with Journal(tmp_path / "there.sqlite") as writing, Journal(tmp_path / "here.sqlite") as journal:
        writing.write([answer(request("2"), "5")], teacher="t")
        assert import_journal(journal, tmp_path / "there.sqlite").answers == 2


def test_what_cannot_be_imported_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "other" / ".persyn" / "journal.sqlite", {"1": "4"})
    store = ["--store", str(tmp_path / "store")]
    assert main(["journal", "import", str(tmp_path / "other"), *store]) == 0
    assert "1 answers are new here, 0 were known" in capsys.readouterr().out
    for source in ("none", "store"):
        assert main(["journal", "import", str(tmp_path / source), *store]) == 2
    assert "name another" in capsys.readouterr().err
    (tmp_path / "text").write_text("no journal" * 100)
    with Journal(tmp_path / "here.sqlite") as journal, pytest.raises(StoreError):
        import_journal(journal, tmp_path / "text")


KILLED = """
import sys
from pathlib import Path
from persyn_hf.backends import journal_import
from persyn_hf.backends.journal import Journal
journal_import.AT_A_TIME = 5
with Journal(Path(sys.argv[1])) as journal:
    print(journal_import.import_journal(journal, Path(sys.argv[2])).answers, flush=True)
"""


def test_an_import_that_is_killed_goes_on(heavy: None, tmp_path: Path) -> None:
    """Killed whenever some answers have come, until one ends: nothing is lost, nothing is there twice."""
    here, there = tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    prompts = [str(number) for number in range(4000)]
    fill(there, {prompt: f"answer to {prompt}" for prompt in prompts})
    fill(here, {"7": "mine"})
    killed, seen = 0, 1
    for _ in range(50):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(here), str(there)], stdout=subprocess.DEVNULL)
        while killed < 4 and process.poll() is None:
            with JournalReader(here) as reading:
                count = len(reading.answered(request(prompt).key for prompt in prompts))
            if count > seen:
                seen, killed = count, killed + 1
                process.kill()
        if process.wait() == 0:
            break
    assert killed == 4
    found = content(here, prompts)
    assert found == {prompt: "mine" if prompt == "7" else f"answer to {prompt}" for prompt in prompts}
