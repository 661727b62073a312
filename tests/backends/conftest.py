from pathlib import Path

import pytest
import torch
from tiny_models import save_model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small are many times slower with several threads on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random models by architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, name, seed) for seed, name in enumerate(("qwen2", "llama", "gemma2"))}
