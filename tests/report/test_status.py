"""`persyn status`: the heartbeat that a run has written, and one that is damaged."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from persyn_hf.cli.main import main
from persyn_hf.errors import StoreError
from persyn_hf.report.status import read_heartbeat, standing
from persyn_hf.runner.progress import RunProgress


@pytest.fixture
def heartbeat(tmp_path: Path) -> Path:
    """The heartbeat of a run that a server's error has ended."""
    path = tmp_path / ".persyn" / "status.json"
    path.parent.mkdir()
    with (
        pytest.raises(StoreError),
        RunProgress(path, Console(file=io.StringIO()), 3, "me/r") as run,
    ):
        run.step("responses", "generate")
        run.start("generate a", 10, done=2)
        run.tally("a", done=2, total=10, begun=1.0, before=2, errors={})
        run.tally("a", done=5, total=10, errors={"busy \x1b[31mred": 2, "busy red": 1, "half \ud800": 1})
        raise StoreError("the server says \x1b[2J\u202eboom\ud800\nand more")
    return path


def test_what_servers_say_is_written_and_shown_without_commands(
    heartbeat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_heartbeat(heartbeat)
    assert (state.state, state.error) == ("failed", "the server says boom\ufffd\nand more")
    assert state.teachers["a"].errors == {"busy red": 3, "half \ufffd": 1}
    assert main(["status", "--store", str(heartbeat.parents[1])]) == 0
    shown = capsys.readouterr().out
    assert "a: 3 x busy red; 1 x half \ufffd" in shown and "\x1b" not in shown
    assert "error: the server says boom\ufffd" in shown


def test_a_run_that_was_killed_before_its_first_step_has_a_state(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(
        json.dumps({"pid": 2**22 + 1, "recipe": "me/r", "state": "running", "updated": 1.0, "teachers": {}, "new": 1})
    )
    found = standing(tmp_path)
    assert found is not None and "me/r: killed (run the same command again" in found.lines[0]
    assert standing(tmp_path / "none") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"state": "running", "pid": "x"',
        '{"state": 5, "pid": "x", "teachers": []}',
        json.dumps({"pid": -1, "recipe": "r", "state": "running", "updated": 1.0}),
        json.dumps({"pid": 2**70, "recipe": "r", "state": "running", "updated": 1.0}),
        '{"pid": 1, "recipe": "r", "state": "running", "updated": Infinity}',
        json.dumps({"pid": 1, "recipe": "r", "state": "running", "updated": 1.0, "teachers": {"a": {"done": "many"}}}),
        "[" * 100_000,
    ],
)
def test_a_damaged_heartbeat_is_one_sentence(heartbeat: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    heartbeat.write_text(text)
    assert main(["status", "--store", str(heartbeat.parents[1])]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {heartbeat}, where a run writes its state, is damaged") and said.count("\n") == 1
    heartbeat.unlink()
    os.mkdir(heartbeat)
    with pytest.raises(StoreError, match=r"cannot be read \(Is a directory\)"):
        standing(heartbeat.parent)
