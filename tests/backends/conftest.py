from pathlib import Path

import pytest
import torch
from tiny_models import save_model

from persyn_hf.backends.engines.batch import collecting, wire


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small are many times slower with several threads on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random models by architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, name, seed) for seed, name in enumerate(("qwen2", "llama", "gemma2"))}


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services of batches that fail for a while are asked again soon: a second each would be a quarter of a minute."""
    monkeypatch.setattr(wire, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(collecting, "NAP_S", 0.05)
