"""The page in a real browser: every view, its controls, its address, its downloads; planted texts never run."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from space_samples import EVIL, NUMBER, UNSHOWN, prompt_id


playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
# Said by Gradio of what a page was still doing: a request before its answer, or in the midst of it, and the stream.
LEFT = ("AbortError: signal is aborted", "AbortError: BodyStreamBuffer was aborted", "Connection errored out")
leaving: set[Any] = set()  # pages that are on their way to another address


def start(*command: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A server and its address, once it answers."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    assert process.stdout is not None
    found = re.search(r"shown at (\S+)", process.stdout.readline())
    assert found is not None, f"it ended with {process.wait()}"
    return process, found[1].rstrip("/")


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.fixture(scope="module")
def site(heavy: None, filled: Path) -> Iterator[str]:
    process, address = start("-m", "persyn_hf.cli", "space", "--store", str(filled), "--port", free_port())
    yield address
    stop(process)


@pytest.fixture(scope="module")
def chromium(heavy: None) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(chromium: Any) -> Iterator[Any]:
    """What all pages share: the browser's cache, so that Gradio's scripts are fetched and compiled once."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    yield context
    context.close()


@pytest.fixture
def page(window: Any) -> Iterator[Any]:
    """A page on which nothing may be said in the console, fail or lead out of this machine; nothing is kept of it."""
    opened = window.new_page()
    said: list[str] = []

    def hear(line: Any) -> None:
        if not (opened in leaving and any(words in line.text for words in LEFT)):
            said.append(f"{line.type}: {line.text}")

    opened.on("console", hear)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(dialog.message))
    opened.on("request", lambda request: said.append(request.url) if "//127.0.0.1" not in request.url[:20] else None)
    yield opened
    settle(opened)
    opened.evaluate("location.origin === 'null' || localStorage.clear()")
    opened.close()
    window.clear_cookies()
    assert [line for line in said if not line.startswith("data:")] == []


def settle(page: Any) -> None:
    """Wait until the page has not changed for a while; it keeps a stream open, so the network is never idle."""
    page.evaluate(
        """() => new Promise(done => {
          let wait = setTimeout(done, 500);
          new MutationObserver(() => { clearTimeout(wait); wait = setTimeout(done, 500); })
            .observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
        })"""
    )


def go(page: Any, site: str, query: str = "") -> Any:
    if page.url != "about:blank":
        leaving.add(page)
    page.goto(f"{site}/{query}")
    leaving.discard(page)
    page.wait_for_selector(".view :is(table, ul, .message):visible")
    settle(page)
    return page


@pytest.mark.parametrize(
    ("title", "name", "words"),
    [
        ("Allocation", "allocation", "as even as"),
        ("Prompts", "prompts", f"{NUMBER} prompts"),
        ("What if", "whatif", "mean quality"),
        ("Router quality", "router", "Chosen against best"),
        ("Cost", "cost", "generate-then-select"),
        ("Lineage", "lineage", "org/rewards-s@v1"),
    ],
)
def test_a_view_is_opened_by_its_tab_and_by_its_address(
    site: str, page: Any, title: str, name: str, words: str
) -> None:
    go(page, site, "?split=all")
    page.get_by_role("tab", name=title, exact=True).click()
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)
    settle(page)
    assert (f"view={name}" in page.url) == (name != "allocation")
    go(page, site, page.url.removeprefix(site + "/"))
    assert words in page.locator(f"#view-{name}").inner_text()


def test_a_filter_a_prompt_and_the_way_back_by_address(site: str, page: Any) -> None:
    go(page, site, "?view=prompts&split=all")
    page.get_by_label("Search").fill("Question 11")
    page.get_by_label("Search").press("Enter")
    page.wait_for_function("document.body.innerText.includes('1 prompts')")
    page.get_by_role("link", name="Question 11?").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#opened")
    settle(page)
    shown = page.locator("#opened").inner_text()
    assert "reference" in shown and "chosen" in shown and "rank" in shown
    assert page.locator("#opened math").count() >= 6
    address = page.url
    assert f"prompt={prompt_id(11)}" in address and "q=Question+11" in address
    go(page, site, address.removeprefix(site + "/"))
    assert page.locator("#opened").inner_text() == shown
    assert page.get_by_label("Search").input_value() == "Question 11"


def test_the_slider_recomputes(site: str, page: Any) -> None:
    go(page, site, "?view=whatif&split=all")
    before = page.locator("#view-whatif .facts").inner_text()
    page.get_by_role("slider").first.focus()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.querySelector('#view-whatif .facts').innerText !== before", arg=before)
    settle(page)
    assert "alpha=1" in page.url
    assert "the paper" in (page.locator("#view-whatif svg").text_content() or "")


def test_the_allocation_is_saved(site: str, page: Any, tmp_path: Path) -> None:
    go(page, site)
    for kind, begin in (("CSV", b"group,assignment,teacher"), ("PNG", b"\x89PNG")):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {kind}").click()
        waiting.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(begin)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.ci) for n in range(1, len(EVIL)))])
def test_what_a_model_wrote_is_text(site: str, page: Any, number: int) -> None:
    go(page, site, f"?view=prompts&split=all&prompt={prompt_id(number)}")
    page.wait_for_selector("#opened .answer")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    for name in ("#view-prompts", "#view-opened"):
        inside = page.locator(name)
        assert inside.locator("script, img, iframe, svg, object, [onload], [onerror]").count() == 0
        links = [link.get_attribute("href") or "" for link in inside.locator("a").all()]
        assert all(link.startswith("?view=prompts&prompt=") for link in links)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200


def test_a_megabyte_is_cut(site: str, page: Any) -> None:
    go(page, site, f"?view=prompts&split=all&prompt={prompt_id(7)}")
    page.wait_for_selector("#opened")
    assert "The first 20,000 of 1,000,000 characters" in page.locator("#opened").inner_text()


@pytest.mark.parametrize(
    ("query", "words"),
    [pytest.param(*case, marks=() if number in (2, 6) else pytest.mark.ci) for number, case in enumerate(UNSHOWN)],
)
def test_an_address_that_cannot_be_shown_says_why(site: str, page: Any, query: str, words: str) -> None:
    go(page, site, f"?{query}")
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)


def test_a_phone_shows_it_without_sideways_scrolling(site: str, chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    for view in ("allocation", "prompts", "whatif", "router", "cost", "lineage"):
        go(page, site, f"?view={view}&split=all")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        controls = [box for item in page.locator(".form > .block").all() if (box := item.bounding_box())]
        assert len(controls) >= 2 and all(box["width"] >= 130 and box["x"] + box["width"] <= 390 for box in controls)
    context.close()


def test_every_view_is_as_wide_and_shows_its_tables_whole(site: str, page: Any) -> None:
    edges = set()
    for view in ("allocation", "prompts", "whatif", "router", "cost", "lineage"):
        go(page, site, f"?view={view}&split=all")
        edges.add(page.locator("h1").bounding_box()["x"])
        wide = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth).filter(w => w > 0)"
        assert page.evaluate(wide) == []
    assert len(edges) == 1


def test_the_way_back_and_a_prompt_that_is_in_sight(site: str, chromium: Any) -> None:
    """The way back loads the page anew; the browser may say that it broke off what the old one listened to."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    go(page, site, "?view=prompts&split=all&sort=margin")
    page.wait_for_function("history.state !== null")  # the page has noted where it began, so the click adds a step
    page.locator("#view-prompts table a").nth(4).click()
    page.wait_for_selector("#opened")
    settle(page)
    address = page.url
    assert "prompt=" in address
    page.go_back()
    page.wait_for_function("!document.querySelector('#opened') && document.querySelector('#view-prompts table')")
    assert "prompt=" not in page.url and "sort=margin" in page.url
    page.go_forward()
    page.wait_for_selector("#opened")
    assert page.url == address
    inside = "y => -50 < y && y < innerHeight / 2"
    page.wait_for_function(f"({inside})(document.querySelector('#opened').getBoundingClientRect().y)")
    context.close()


def test_pages_are_turned(site: str, page: Any) -> None:
    go(page, site, f"?view=prompts&split=all&prompt={prompt_id(3)}")
    listed = page.locator("#view-prompts table a")
    seen = listed.all_inner_texts()
    assert page.get_by_role("button", name="Previous").is_disabled()
    for number in (2, 3):
        page.get_by_role("button", name="Next").click()
        page.wait_for_function("words => document.body.innerText.includes(words)", arg=f"page {number} of 3")
        settle(page)
        assert f"page={number}" in page.url and "prompt=" not in page.url and page.locator("#opened").count() == 0
        seen += listed.all_inner_texts()
    assert len(seen) == NUMBER == len(set(seen)), "every prompt is on one page"
    assert page.get_by_role("button", name="Next").is_disabled()


def test_no_file_is_served_and_none_taken(site: str, filled: Path) -> None:
    inside = next(filled.glob("datasets--org--prompts/snapshots/*/persyn.json"))
    for path in ("/etc/passwd", inside, inside.resolve(), Path(__file__)):
        for route in ("gradio_api/file=", "file=", "gradio_api/proxy=", "gradio_api/stream/"):
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


@pytest.mark.ci
def test_the_bundled_example_is_shown_where_nothing_is_named(root: Path, page: Any) -> None:
    app = root / "spaces" / "allocations" / "app.py"
    process, address = start(str(app), GRADIO_SERVER_PORT=free_port(), PERSYN_REFS="")
    try:
        for view in ("allocation", "prompts", "whatif", "router", "cost", "lineage"):
            go(page, address, f"?view={view}")
            page.wait_for_selector(f"#view-{view} :is(table, ul):visible")
            assert page.locator(".message.error").count() == 0
        leaving.add(page)
        page.goto("about:blank")  # what it is still asking for would break off
    finally:
        stop(process)
    size = sum(path.stat().st_size for path in app.parent.rglob("*") if path.is_file())
    assert size < 2**20
