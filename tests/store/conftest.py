from pathlib import Path

import pytest

from persyn_hf.store.local import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
