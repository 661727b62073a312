"""What a launch with accelerate leaves behind: nothing outside its own folder, however it ends."""

import contextlib
from pathlib import Path

import psutil
import pytest

from persyn_hf.backends.launch import launch
from persyn_hf.backends.launching.command import LAUNCHED
from persyn_hf.backends.launching.plan import read_plan


CPU_2 = str(Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml")


@pytest.mark.parametrize("how", ["ended", "stopped", "killed"])
def test_nothing_is_left_in_the_temporary_folder(
    heavy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """At its own end, and where it is stopped or killed with SIGKILL once its processes were started.

    What a killed launch has left lies in its folder, which is the step's and goes when that is done.
    """
    temporary, folder = tmp_path / "temporary", tmp_path / "work"
    temporary.mkdir()
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = psutil.Process().children(recursive=True)
    running = launch(read_plan("score", CPU_2), "platform", folder)  # a module that ends at once
    statuses = []
    for status in running:
        statuses.append(status)
        if how != "ended" and list((folder / LAUNCHED).glob("*/*")):
            if how == "killed":
                for process in set(psutil.Process().children(recursive=True)) - set(before):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            running.close()
    assert how != "ended" or statuses[-1] == 0
    assert list((folder / LAUNCHED).iterdir()), "the launcher writes where it was told to"
    caches = "torchinductor"  # of torch, one for each user and not for each launch
    assert [path.name for path in temporary.iterdir() if not path.name.startswith(caches)] == []
