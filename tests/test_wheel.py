"""The wheel holds all that the package and the README name, and runs it outside the repository, by name."""

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from smoke_run import ZOO, command


@pytest.fixture(scope="module")
def wheel(heavy: None, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files, as `pip wheel` makes it; nothing is fetched."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-c", "--null", "-T", "-", "-f", str(out / "files.tar")], cwd=root, input=files, check=True)
    subprocess.run(["tar", "-x", "-f", str(out / "files.tar")], cwd=clone, check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(out), "."], cwd=clone, check=True)
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_every_file_of_the_package_and_what_comes_with_it(wheel: Path, root: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    needed = {
        name if name.startswith("persyn_hf/") else f"persyn_hf/{name}"
        for name in tracked.splitlines()
        if name.startswith(("persyn_hf/", "recipes/", "dataset_cards/"))
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert len(needed) > 400
    assert held == needed
    assert wheel.stat().st_size < 15e6


def test_its_record_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        said = message_from_bytes(file.read(metadata))
        (script,) = (name for name in file.namelist() if name.endswith("/entry_points.txt"))
        assert b"persyn = persyn_hf.cli.main:script" in file.read(script)
    assert said["Name"] == "persyn-hf" and said["Requires-Python"] == ">=3.11"
    assert {"models", "train", "eval", "space", "completion"} <= set(said.get_all("Provides-Extra", []))


def test_what_was_run_by_path_in_the_repository_is_reused_by_name_outside_it(
    wheel: Path, finished: tuple[Path, float], tmp_path: Path
) -> None:
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(unpacked)
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(unpacked)}

    def persyn(*arguments: str) -> str:
        called = [sys.executable, "-m", "persyn_hf.cli", *arguments]
        done = subprocess.run(called, env=environment, cwd=empty, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert persyn("recipes", "persyn:slurm/ray.sbatch").startswith(str(unpacked)), "not the repository's"
    persyn("validate", "persyn:tiny/demo", "persyn:one-gpu/gsm8k", "persyn:paper/instruct/gemma-2-2b")
    _, _, *options = command(finished[0])
    zoo = str(unpacked / "persyn_hf" / "recipes" / "tiny" / "zoo")
    options = [option.replace(str(ZOO), zoo) for option in options]
    said = persyn("run", "persyn:tiny/smoke", *options)
    assert "all steps are done: 0 run now" in said
    assert [*empty.iterdir()] == []
