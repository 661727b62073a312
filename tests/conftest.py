"""Fixtures shared by all tests. No test needs a network: the Hub's clients are told so."""

import os
from pathlib import Path

import pytest


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The trained models of the tiny world."""
    return ROOT / "recipes" / "tiny" / "zoo"
