"""What a run says of itself where there is no terminal: a line a minute, so that a log tells how far it is."""

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from persyn_hf.report.status import standing
from persyn_hf.runner import progress
from persyn_hf.runner.progress import RunProgress, shortened


def said(console: Console, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of 800 answers that come 100 every 30 seconds."""
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.seconds, time=time.time))
    assert isinstance(console.file, io.StringIO)
    with RunProgress(folder / "status.json", console, 5, "me/r") as run:
        run.step("responses", "generate")
        run.start("generate big", 2000, done=1200)
        for _ in range(5):
            clock.seconds += 30
            run.advance(100)
        run.note("stored")
    return console.file.getvalue()


def test_a_log_gets_a_line_a_minute_about_a_step_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(Console(file=io.StringIO(), width=40), tmp_path, monkeypatch).splitlines() == [
        "[1/5] responses: generate big: 1,400 of 2,000, 3.3/s, 3.00 min left",
        "[1/5] responses: generate big: 1,600 of 2,000, 3.3/s, 2.00 min left",
        "[1/5] responses: stored",
    ]


def test_there_is_none_beside_the_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = said(Console(file=io.StringIO(), width=100, force_terminal=True), tmp_path, monkeypatch)
    assert "responses: stored" in shown and "1,400 of 2,000" not in shown


@pytest.mark.parametrize("width", [80, 100, 200])
def test_numbers_and_times_stay_whole_beside_long_names(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal gets no bars
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with RunProgress(tmp_path / "status.json", console, 35, "lab/study") as progress:
        progress.step("responses-a-student-of-a-long-name-persyn-alpha0.7", "generate")
        progress.start("generate meta-llama-3.3-70b-instruct", 12345, 345)
        progress.advance(5000)
        progress._bars.refresh()
    shown = text.getvalue()
    assert "5345/12345" in shown and "/s" in shown and "[1/35]" in shown
    assert (
        "…" in shown if width < 200 else "responses-a-student-of-a-long-name-persyn-alpha0.7 · generate meta" in shown
    )


@given(st.text(max_size=80), st.integers(3, 60))
def test_a_shortened_text_has_its_room_and_both_ends(text: str, room: int) -> None:
    found = shortened(text, room)
    assert len(found) <= room and (found == text or (len(found) == room and found[0] == text[0]))
    assert not text or found[-1:] == text[-1:]


def test_time_left_goes_by_the_work_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come longest first: 10 of 100 rows in 60 s were half of the work, so 60 s are left, not 540."""
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.seconds, time=time.time))
    console = Console(file=io.StringIO(), width=80)
    with RunProgress(tmp_path / "status.json", console, 1, "me/r") as run:
        run.step("rewards", "score")
        run.start("likelihood", 100, work=5000.0)
        clock.seconds += 60
        run.advance(10, work=2500.0)
        run._beat(force=True)
        state = json.loads((tmp_path / "status.json").read_text())
    assert (state["eta_s"], state["per_second"]) == (60, 0.17)


def test_a_wait_is_shown_with_its_reason_until_it_ends(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    with RunProgress(tmp_path / "status.json", console, 1, "me/r") as run:
        run.step("responses", "generate")
        run.start("generate big", 10)
        run.advance(2)
        run.waiting("http://gpu-1/v1 is away (refused)")
        run.waiting("http://gpu-1/v1 is away (again)")
        shown = standing(tmp_path)
        assert shown is not None
        assert [line for line in shown.lines if line.startswith("waiting since ")] == [
            "waiting since 0 s: http://gpu-1/v1 is away (refused)"
        ]
        assert " left" not in "".join(shown.lines), "nobody knows how long it takes"
        run.waiting(None)
        again = standing(tmp_path)
        assert again is not None and not any("waiting" in line for line in again.lines)
