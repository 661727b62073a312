"""The page in a real browser: every view, its controls, its address, its downloads; planted texts never run."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from space_browser import go, settle
from space_samples import EVIL, prompt_id

from persyn_hf.space.url_state import VIEWS


@pytest.mark.parametrize(("name", "title"), VIEWS.items())
def test_a_view_is_opened_by_its_tab_and_by_its_address(site: str, page: Any, name: str, title: str) -> None:
    go(page, site, "?split=all&view=" + ("cost" if name != "cost" else "allocation"))
    page.evaluate("window.same = true")
    page.get_by_role("navigation", name="Views").get_by_role("link", name=title, exact=True).click()
    settle(page)
    assert page.evaluate("window.same"), "the page was loaded anew"
    assert (f"view={name}" in page.url) == (name != "allocation") and "split=all" in page.url
    assert page.title().startswith(f"{title} · ")
    shown = page.locator(f"#view-{name}").inner_text()
    go(page, site, page.url.removeprefix(site + "/"))
    assert page.locator(f"#view-{name}").inner_text() == shown


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.ci) for n in range(1, len(EVIL)))])
def test_what_a_model_wrote_is_text(site: str, page: Any, number: int) -> None:
    go(page, site, f"?view=prompts&split=all&prompt={prompt_id(number)}")
    page.wait_for_selector("#view-opened .answer")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    inside = page.locator("main")
    assert inside.locator("script, img, iframe, object, [onload], [onerror], [onclick]").count() == 0
    links = [link.get_attribute("href") or "" for link in inside.locator("a").all()]
    assert [link for link in links if not link.startswith(("?", "save/"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200


def test_no_file_is_served_and_none_taken(site: str, filled: Path) -> None:
    inside = next(filled.glob("datasets--org--prompts/snapshots/*/persyn.json"))
    for path in ("/etc/passwd", inside, inside.resolve(), Path(__file__)):
        for route in ("gradio_api/file=", "file=", "gradio_api/proxy=", "gradio_api/stream/", "assets/", "save/"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{site}/{route}{path}")
            assert refused.value.code in (400, 401, 403, 404, 405)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nmore than a byte\r\n--x--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{site}/gradio_api/upload", body, kind))
    assert refused.value.code == 413
