"""Fixtures shared by all tests. No test needs a network: the Hub's clients are told so."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from smoke_run import command
from smollm2 import smollm2_folder


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)  # pytest's readline gives its workers one, and tables would be as wide

settings.register_profile("default", deadline=None)  # how long an example takes depends on what else runs
settings.load_profile("default")

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests whose fixtures are heavy. Their files come first, lest one of them begin when the others end."""
    for item in items:
        if "heavy" in getattr(item, "fixturenames", ()):
            item.add_marker("heavy")
    long = {item.path for item in items if item.get_closest_marker("heavy")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def heavy() -> None:
    """What starts an engine, the test Hub, a browser or a whole run asks for this: see the marker in setup.cfg."""


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The trained models of the tiny world."""
    return ROOT / "recipes" / "tiny" / "zoo"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a real model of 135 million parameters, with its own tokenizer and chat template."""
    return smollm2_folder()


@pytest.fixture(scope="session")
def recipes() -> list[Path]:
    """Every whole recipe of the repository: parts of recipes and configs of accelerate have no name."""
    files = sorted((ROOT / "recipes").rglob("*.yaml"))
    found = [path for path in files if re.search(r"^name:", path.read_text(encoding="utf-8"), re.MULTILINE)]
    assert len(found) >= 5
    return found


@pytest.fixture(scope="session")
def finished(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A store with the finished chain of `smoke_run`, and the seconds it took, start-up of the process included.

    Made once for all processes of the tests, which must leave it as it is.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    took = folder / "seconds"
    with FileLock(f"{folder}.lock"):
        if not took.exists():
            begun = time.monotonic()
            arguments = [sys.executable, "-m", "persyn_hf.cli", *command(folder / "store")]
            done = subprocess.run(arguments, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            took.write_text(str(time.monotonic() - begun))
    return folder / "store", float(took.read_text())
