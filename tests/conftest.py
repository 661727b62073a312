"""Fixtures shared by all tests. No test needs a network: the Hub's clients are told so."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import settings


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("default", deadline=None)  # how long an example takes depends on what else runs
settings.load_profile("default")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The trained models of the tiny world."""
    return ROOT / "recipes" / "tiny" / "zoo"


@pytest.fixture(scope="session")
def recipes() -> list[Path]:
    """Every whole recipe of the repository: parts of recipes and configs of accelerate have no name."""
    files = sorted((ROOT / "recipes").rglob("*.yaml"))
    found = [path for path in files if re.search(r"^name:", path.read_text(encoding="utf-8"), re.MULTILINE)]
    assert len(found) >= 5
    return found
