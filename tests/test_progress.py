"""What a run says of itself where there is no terminal: a line a minute, so that a log tells how far it is."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from persyn_hf.runner import progress
from persyn_hf.runner.progress import RunProgress


def work(tmp_path: Path, console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    with RunProgress(tmp_path / "status.json", console, 5, "me/r") as run:
        run.step("responses", "generate")
        run.start("generate big", 2000, done=1200)
        for _ in range(3):
            run.advance(100)
        run.note("stored")
    return console.file.getvalue()


def test_a_log_gets_a_line_about_a_step_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_S", 0)
    *lines, last = work(tmp_path, Console(file=io.StringIO(), width=40)).splitlines()
    assert last == "[1/5] responses: stored"
    assert len(lines) == 3
    for number, line in zip(("1,300", "1,400", "1,500"), lines, strict=True):
        assert re.fullmatch(rf"\[1/5\] responses: generate big: {number} of 2,000, [\d.]+/s, 0 s left", line), line


def test_no_more_than_one_a_minute_and_none_beside_the_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert work(tmp_path, Console(file=io.StringIO())) == "[1/5] responses: stored\n"
    monkeypatch.setattr(progress, "LOG_S", 0)
    assert "generate big: 1,300" not in work(tmp_path, Console(file=io.StringIO(), force_terminal=True))
