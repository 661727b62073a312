from collections.abc import Iterator
from pathlib import Path

import pytest


pytest.importorskip("duckdb", reason="the Space is an extra: pip install 'persyn-hf[space]'")
pytest.importorskip("gradio", reason="the Space is an extra: pip install 'persyn-hf[space]'")

from space_samples import fill  # noqa: E402

from persyn_hf.space.database import Database  # noqa: E402
from persyn_hf.space.shelf import open_shelf  # noqa: E402
from persyn_hf.store.local import Store  # noqa: E402
from persyn_hf.store.stored import Stored  # noqa: E402


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with everything that the Space reads."""
    root = tmp_path_factory.mktemp("space") / "store"
    fill(Store(root))
    yield root


@pytest.fixture(scope="session")
def database(filled: Path) -> Database:
    return Database(open_shelf([], Store(filled)))


@pytest.fixture(scope="session")
def persyn(database: Database) -> Stored:
    return database.shelf.get("org/assignments-s-persyn@v1")


@pytest.fixture(scope="session")
def strong(database: Database) -> Stored:
    return database.shelf.get("org/assignments-s-strong@v1")
