from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


if not all(map(find_spec, ("duckdb", "gradio"))):  # looked for, not imported: Gradio takes seconds
    pytest.skip("the Space is an extra: pip install 'persyn-hf[space]'", allow_module_level=True)

from space_browser import CHROMIUM, COUNTED, listen, serve, settle, stop  # noqa: E402
from space_samples import add_router, fill  # noqa: E402

from persyn_hf.schemas import ASSIGNMENTS  # noqa: E402
from persyn_hf.space.collection import open_shelf  # noqa: E402
from persyn_hf.space.database import Database  # noqa: E402
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


@pytest.fixture(scope="session")
def site(heavy: None, filled: Path) -> Iterator[str]:
    """The address of a server that shows the store `filled`."""
    process, address = serve(filled)
    yield address
    stop(process)


@pytest.fixture(scope="module")  # it keeps an event loop in this thread, which other files may not have
def chromium(heavy: None) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # what stands in for the Hub's page may frame a server of this machine
        may = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=may)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(chromium: Any) -> Iterator[Any]:
    """What pages share, with the browser's cache."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    context.add_init_script(COUNTED)
    yield context
    context.close()


@pytest.fixture
def page(window: Any) -> Iterator[Any]:
    """A page on which nothing may be said in the console, fail or lead out of this machine."""
    opened = window.new_page()
    said = listen(opened)
    yield opened
    settle(opened)
    opened.close()
    assert said == []


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """With a router and two versions of an assignment that it made."""
    folder = tmp_path_factory.mktemp("deploy")
    store = Store(folder / "store")
    made = fill(store)
    router = add_router(store, made, folder / "model")
    model = made["assignments-s-persyn"].manifest
    inputs = {word: item.model_dump() for word, item in model.inputs.items()}
    inputs["router"] = {"ref": router.ref, "digest": router.digest}
    for seed in range(10):
        store.put(
            repo="org/assignments-s-routed",
            schema=ASSIGNMENTS,
            data=store.read_dataset(made["assignments-s-persyn"]),
            fields={
                **{"stage": "assign", "teachers": model.teachers, "student": model.student},
                **{"settings": model.settings, "seed": seed, "inputs": inputs},
            },
        )
    return store


@pytest.fixture
def changed() -> Iterator[Any]:
    """Changes a file, and sets it right afterwards."""
    kept: dict[Path, bytes] = {}

    def change(path: Path, old: bytes, new: bytes) -> None:
        kept[path] = path.read_bytes()
        path.chmod(0o644)
        assert old in kept[path]
        path.write_bytes(kept[path].replace(old, new))

    yield change
    for path, content in kept.items():
        path.write_bytes(content)
