"""What a page shows while an answer is slow: blocks in the shape of another view, or what was there, dimmed."""

from pathlib import Path
from typing import Any

import pytest
from space_browser import Held, go, serve, settle, stop, until
from space_samples import prompt_id
from test_space_access import violations

from persyn_hf.space.url_state import VIEWS


BLOCKS = "#placeholder i"
# notes every placeholder that is put on the page from now on, and how long after the click that was
WATCH = """() => {
  window.shown = [];
  addEventListener("click", () => { window.clicked = performance.now(); }, true);
  new MutationObserver(() => {
    const one = document.getElementById("placeholder");
    if (one && one !== window.last) window.shown.push([one.className, performance.now() - window.clicked]);
    window.last = one;
  }).observe(document.body, {subtree: true, childList: true});
}"""
CONTROLS = """[...document.querySelectorAll("header.top :is(a, select, button)")].map(one => {
  const {x, y, width, height} = one.getBoundingClientRect();
  return [one.id || one.name || one.textContent, x, y, width, height];
})"""


def click(page: Any, selector: str) -> None:
    """Follow a link as a click does, without scrolling to it."""
    page.locator(selector).evaluate("link => link.click()")


@pytest.mark.parametrize("name", VIEWS)
def test_a_slow_view_is_blocks_in_its_shape_until_it_is_there(site: str, page: Any, name: str) -> None:
    go(page, site, f"?split=all&view={'cost' if name != 'cost' else 'map'}")
    page.evaluate(WATCH)
    before = page.evaluate(CONTROLS)
    held = Held(page, f"view={name}" if name != "allocation" else "?split=all")
    click(page, f"#to-{name}")
    until(page, "document.getElementById('placeholder')")
    [[shape, waited]] = page.evaluate("shown")
    assert shape == name and waited >= 200
    assert page.locator(BLOCKS).count() > 5 and page.locator("main > .view").is_hidden()
    sizes = page.locator(BLOCKS).evaluate_all("all => all.map(one => [one.offsetWidth, one.offsetHeight])")
    assert all(width > 50 and height > 10 for width, height in sizes), "each is seen"
    assert page.evaluate(CONTROLS) == before, "the controls have moved"
    assert page.locator("main").get_attribute("aria-busy") == "true"
    assert page.locator(f"{BLOCKS}:not([aria-hidden=true] *)").count() == 0
    assert page.get_by_role("main").aria_snapshot() == f'- main:\n  - heading "{VIEWS[name]}" [level=1]'
    held.let_go()
    settle(page)
    assert page.locator("#placeholder, [aria-busy]").count() == 0 and page.locator(f"#view-{name}").is_visible()
    assert [shape for shape, _ in page.evaluate("shown")] == [name]
    page.unroute_all()


def test_a_fast_answer_brings_no_blocks(site: str, page: Any) -> None:
    go(page, site)
    page.evaluate(WATCH)
    address = page.locator("#to-lineage").evaluate("link => link.href")
    kept = page.request.get(address)
    page.route(address, lambda route: route.fulfill(response=kept))  # from memory, so in a few milliseconds
    click(page, "#to-lineage")
    settle(page)
    assert page.title().startswith("Lineage")
    assert all(waited >= 200 for _, waited in page.evaluate("shown")), (
        "a busy machine may take that long, nothing else"
    )
    page.unroute_all()


def test_a_filter_dims_the_list_and_a_prompt_is_blocks_beside_it(site: str, page: Any) -> None:
    go(page, site, "?view=prompts&split=all")
    rows = page.locator("table.prompts").inner_text()
    held = Held(page, "sort=margin")
    click(page, "#sort-lead")
    until(page, "document.getElementById('main').ariaBusy === 'true'")
    assert page.locator("#placeholder").count() == 0 and page.locator("table.prompts").inner_text() == rows
    assert page.locator(".list").evaluate("list => getComputedStyle(list).opacity") == "0.85"
    held.let_go()
    settle(page)
    page.unroute_all()
    held = Held(page, f"prompt={prompt_id(9)}")
    click(page, f"a[href*='prompt={prompt_id(9)}'] >> nth=0")
    until(page, "document.getElementById('placeholder')")
    assert page.locator(".list").is_visible() and page.locator("#placeholder.opened i").count() > 5
    list_at, blocks_at = (page.locator(one).bounding_box() for one in (".list", "#placeholder"))
    assert list_at["x"] + list_at["width"] <= blocks_at["x"], "they lie side by side"
    held.let_go()
    settle(page)
    assert page.locator("#placeholder").count() == 0 and page.locator("#view-opened").is_visible()
    page.unroute_all()


def test_a_prompt_that_never_comes_leaves_the_list_as_it_was(filled: Path, window: Any) -> None:
    process, address = serve(filled)
    page = window.new_page()
    try:
        go(page, address, "?view=prompts&split=all")
        page.evaluate("scrollTo(0, 300)")
        width = page.locator(".list").bounding_box()["width"]
        for selector in (f"a[href*='prompt={prompt_id(9)}'] >> nth=0", "#to-cost"):
            held = Held(page, "view=")
            click(page, selector)
            until(page, "document.getElementById('placeholder')")
            for route in held.waiting:
                route.abort()
            page.get_by_role("alert").wait_for()
            assert page.locator("#placeholder, [aria-busy]").count() == 0
            assert page.locator(".list").bounding_box()["width"] == width
            assert page.evaluate("scrollY") >= 300, "further down, if at all: by the words that there is no answer"
            page.unroute_all()
    finally:
        stop(process)
        page.close()


def test_of_two_slow_views_the_later_one_has_its_shape_and_the_way_back_its_place(site: str, page: Any) -> None:
    go(page, site, "?view=prompts&split=all")
    page.evaluate("scrollTo(0, 300)")
    top = page.evaluate("scrollY")
    assert top > 0
    page.evaluate(WATCH)
    held = Held(page, "view=")
    click(page, "#to-cost")
    until(page, "document.getElementById('placeholder')?.className === 'cost'")
    assert page.evaluate("scrollY") == 0
    click(page, "#to-map")
    until(page, "document.getElementById('placeholder')?.className === 'map'")
    held.let_go()
    settle(page)
    page.unroute_all()
    assert page.title().startswith("Map") and page.evaluate("scrollY") == 0
    page.go_back()
    until(page, f"document.title.startsWith('Prompts') && scrollY === {top}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_blocks_and_they_stand_still_if_wished(site: str, page: Any, theme: str) -> None:
    go(page, site, "?split=all")
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    for name, selector in (("router", "#to-router"), ("opened", f"a[href*='prompt={prompt_id(9)}'] >> nth=0")):
        if name == "opened":
            go(page, site, "?view=prompts&split=all")
        held = Held(page, "view=")
        click(page, selector)
        until(page, f"document.getElementById('placeholder')?.className === '{name}'")
        assert violations(page) == []
        block = page.locator(BLOCKS).first
        grey, behind = (
            one.evaluate("one => getComputedStyle(one).backgroundColor") for one in (block, page.locator("body"))
        )
        assert grey != behind
        assert page.evaluate("document.getAnimations().length") == 0
        page.emulate_media(color_scheme=theme, reduced_motion="no-preference")
        assert page.evaluate("document.getAnimations().length") > 0
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        held.let_go()
        settle(page)
        page.unroute_all()
