"""What a launch with accelerate leaves behind: nothing outside its own folder, however it ends."""

from pathlib import Path

import pytest

from persyn_hf.backends.launch import LAUNCHED, launch


CPU_2 = str(Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml")


@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_is_left_in_the_temporary_folder(
    heavy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """At its own end, and where it is stopped once its processes were started."""
    temporary, folder = tmp_path / "temporary", tmp_path / "work"
    temporary.mkdir()
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    running = launch(CPU_2, "platform", folder)  # a module that ends at once
    statuses = []
    for status in running:
        statuses.append(status)
        if stopped and list((folder / LAUNCHED).glob("*/*")):
            running.close()
    assert stopped or statuses[-1] == 0
    assert list((folder / LAUNCHED).iterdir()), "the launcher writes where it was told to"
    assert [path.name for path in temporary.iterdir() if path.name.startswith("torchelastic")] == []
