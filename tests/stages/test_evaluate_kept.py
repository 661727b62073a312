"""What a killed evaluation has heard is not asked again, and the result is that of an undisturbed one."""

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import evaluation_run
from evaluation_run import ENVIRONMENT, Killing, evaluated
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends.harness.work import KEPT, Kept, Share, Work
from persyn_hf.stage import Silent


WINDOWS = st.lists(st.integers(1, 4), max_size=8)


@given(WINDOWS, st.sets(st.integers(0, 31)), st.integers(1, 5))
def test_processes_do_what_is_left_once_together(sizes: list[int], known: set[int], processes: int) -> None:
    numbers = iter(range(sum(sizes)))
    windows = [[next(numbers) for _ in range(size)] for size in sizes]
    shares = [Share(frozenset(known), rank, processes).of(windows) for rank in range(processes)]
    done = [number for share in shares for window in share for number in window]
    assert sorted(done) == [number for number in range(sum(sizes)) if number not in known]
    whole = [window for window in windows if not known.intersection(window)]
    assert all(any(window in share for share in shares) for window in whole), "a window falls to one process"
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1


class Answering:
    """An engine that answers with the prompt itself, one by one, up to a number of texts."""

    def __init__(self, most: int = 100) -> None:
        self.asked: list[int] = []
        self.most = most

    def answer(self, work: Work, share: Share, done: object) -> None:
        for (number,) in share.of([[number] for number in range(len(work.texts))]):
            if len(self.asked) == self.most:
                raise KeyboardInterrupt
            self.asked.append(number)
            done([number], [[*work.texts[number], True]])  # type: ignore[operator]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6), st.integers(0, 6), st.integers(0, 30))
def test_what_was_heard_is_read_again_wherever_the_file_was_torn(texts: list[str], most: int, cut: int) -> None:
    work = Work(texts=[[text] for text in texts], max_tokens=4)
    with tempfile.TemporaryDirectory() as name:
        folder, first = Path(name), Answering(most)
        with suppress(KeyboardInterrupt):
            Kept(folder, [], Silent()).ask("t", work, first)
        path = folder / KEPT
        if path.exists():
            path.write_bytes(path.read_bytes()[: -cut or None])
        again = Answering()
        assert Kept(folder, [], Silent()).ask("t", work, again) == [[text, True] for text in texts]
        last = Answering()
        assert Kept(folder, [], Silent()).ask("t", work, last) == [[text, True] for text in texts]
        assert last.asked == []
        if not cut:
            assert again.asked == [number for number in range(len(texts)) if number not in first.asked]
        other = Answering()
        Kept(folder, [], Silent()).ask("t", Work(texts=work.texts, max_tokens=5), other)
        assert other.asked == [*range(len(texts))], "another work"
        other = Answering()
        Kept(folder, ["another student"], Silent()).ask("t", work, other)
        assert other.asked == [*range(len(texts))]


def test_a_killed_evaluation_goes_on(heavy: None, tmp_path: Path) -> None:
    program, folder = evaluation_run.__file__, tmp_path / "killed"
    folder.mkdir()
    for at in (10, 12):
        code = subprocess.run([sys.executable, program, str(folder), "null", str(at)], env=ENVIRONMENT).returncode
        assert code == -9
    before = (folder / KEPT).read_text()
    progress = Killing(10**6)
    assert evaluated(folder, progress=progress) == evaluated(tmp_path / "alone")
    assert sum(progress.known.values()) >= 10 + 12
    after = (folder / KEPT).read_text()
    assert after.startswith(before)
    lines = [json.loads(line) for line in after.splitlines() if line]
    heard = [(key, number) for key, numbers, _ in lines for number in numbers]
    assert len(heard) == len(set(heard)), "nothing was asked twice"
