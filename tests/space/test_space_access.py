"""Everybody can use the page: axe finds nothing, all of it is in reach of a keyboard, on a phone, in both themes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from space_browser import free_port, go, listen, serve, start, stop
from space_samples import MANY, STUDENTS, TEACHERS, fill, prompt_id

from persyn_hf.space.url_state import VIEWS
from persyn_hf.store.local import Store


OPENED = f"?view=prompts&split=all&prompt={prompt_id(9)}"
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1440, "height": 900}


def addresses() -> list[str]:
    return [f"?view={view}&split=all" for view in VIEWS] + [OPENED, "?split=all&by=split", "?view=none&alpha=x"]


def violations(page: Any) -> list[str]:
    """What axe-core says of a page: rule, impact and the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}): {node['html'][:160]}" for one in found for node in one["nodes"]]


@pytest.fixture(params=["sample", pytest.param("example", marks=pytest.mark.ci)])
def shown(request: pytest.FixtureRequest, root: Path) -> Iterator[str]:
    """The address of the sample store, then of the bundled example."""
    if request.param == "sample":
        yield request.getfixturevalue("site")
        return
    app = str(root / "spaces" / "allocations" / "app.py")
    process, address = start(app, GRADIO_SERVER_PORT=free_port(), PERSYN_REFS="")
    yield address
    stop(process)


@pytest.mark.timeout(600)
def test_axe_finds_nothing(shown: str, chromium: Any) -> None:
    wrong: dict[str, list[str]] = {}
    context = chromium.new_context()
    page = context.new_page()
    for query in addresses():
        go(page, shown, query)
        for theme in ("light", "dark"):
            for size in (WIDE, PHONE):
                page.emulate_media(color_scheme=theme)
                page.set_viewport_size(size)
                if found := violations(page):
                    wrong[f"{query} {theme} {size['width']}"] = found
                assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], query
    context.close()
    assert wrong == {}
