"""What if, Map and Router in a real browser: sliders, the brush, and the way back."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from space_browser import free_port, go, settle, start, stop, until
from space_links import EXAMPLE


@pytest.fixture(scope="module")
def example_site(heavy: None) -> Iterator[str]:
    """The address of the Space's app with the bundled example."""
    process, address = start(str(EXAMPLE.parent / "app.py"), PERSYN_REFS="", GRADIO_SERVER_PORT=free_port())
    yield address
    stop(process)


def asked(page: Any) -> dict[str, str]:
    """The address of the page, name -> text."""
    return {name: texts[-1] for name, texts in parse_qs(urlsplit(page.url).query).items()}


def drag(page: Any, box: dict[str, float], *places: tuple[float, float]) -> None:
    """Drag the mouse over places that are given as shares of a box."""
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def test_a_slider_moves_by_keys_and_by_dragging(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=whatif")
    page.evaluate("window.kept = document.getElementById('alpha')")
    assert page.locator("#outcome p").first.inner_text().startswith("These are the recipe's own weights")
    page.locator("#alpha").focus()
    page.keyboard.press("End")
    until(page, "location.search.includes('alpha=1')")
    settle(page)
    assert page.locator("#outcome p").first.inner_text().startswith("25 of 240 prompts")
    assert page.evaluate("window.kept === document.activeElement"), "the slider is the same, and has the focus"
    page.keyboard.press("ArrowLeft")
    until(page, "location.search.includes('alpha=0.99')")
    settle(page)
    assert page.locator("output[for=alpha]").inner_text() == "0.99"
    drag(page, page.locator("#alpha").bounding_box(), (0.99, 0.5), (0.6, 0.5), (0.02, 0.5))
    until(page, "Number(new URLSearchParams(location.search).get('alpha') ?? 0.4) < 0.1")
    settle(page)
    assert page.evaluate("window.kept.isConnected")
    assert "moved" not in page.locator("#pick").inner_html()
    hidden = page.locator("#pick input[name=alpha]").get_attribute("value")
    assert hidden == asked(page)["alpha"], "what else changes the page keeps the weights"


def test_a_pair_leads_to_its_prompts_and_back(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=whatif&alpha=1")
    link = page.locator("#outcome td a").first
    number = link.inner_text()
    link.click()
    settle(page)
    assert asked(page)["moved"] == "moved" and asked(page)["view"] == "prompts"
    assert page.locator("#list").inner_text() == f"{number} prompts"
    assert page.locator(".chips").inner_text().startswith("best teacher moves from")
    page.go_back()
    settle(page)
    assert asked(page) == {"view": "whatif", "alpha": "1"} and page.locator("svg.flow").count() == 1
    page.go_forward()
    settle(page)
    assert page.locator("#list").inner_text() == f"{number} prompts"


def test_a_ribbon_is_a_link(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=whatif&alpha=1")
    page.evaluate("window.same = true")
    ribbon = page.locator("svg.flow a").last
    number = ribbon.get_attribute("aria-label").split()[0]
    ribbon.dispatch_event("click")
    until(page, "location.search.includes('view=prompts')")
    settle(page)
    assert page.evaluate("window.same"), "the page was loaded anew"
    assert page.locator("#list").inner_text().split()[0] == number


def test_a_box_on_the_map_is_a_list(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=map")
    svg = page.locator("svg.map")
    svg.scroll_into_view_if_needed()
    drag(page, svg.bounding_box(), (0.02, 0.3), (0.2, 0.6), (0.26, 0.8))
    until(page, "location.search.includes('view=prompts')")
    settle(page)
    left, bottom, right, top = map(float, asked(page)["box"].split(","))
    assert left < right and bottom < top
    assert int(page.locator("#list").inner_text().split()[0]) > 20, "the cluster on the left of the map"
    assert page.locator(".chips").inner_text().startswith("a part of the map")
    page.go_back()
    settle(page)
    assert asked(page) == {"view": "map"} and page.locator("svg.map .brush").count() == 0


def test_a_click_on_a_point_opens_its_prompt(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=map&colour=topic")
    point = page.locator("svg.map a").first
    words = point.locator("title").text_content()
    point.locator("use").click()
    settle(page)
    assert asked(page)["view"] == "prompts" and asked(page)["prompt"]
    assert words.startswith(page.locator("#view-opened .turn").first.inner_text().split("\n")[-1])


def test_four_numbers_are_a_box_by_keyboard(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=map")
    page.locator("#box-right").fill("-2")
    page.locator("#box-right").press("Enter")
    until(page, "location.search.includes('view=prompts')")
    settle(page)
    assert asked(page)["box"].split(",")[2] == "-2" and "prompts" in page.locator("#list").inner_text()


def test_a_cell_of_chosen_against_best_and_back(example_site: str, page: Any) -> None:
    go(page, example_site, "?view=router")
    cell = page.locator("td.cell.other a").first
    number = cell.inner_text()
    cell.focus()
    page.keyboard.press("Enter")
    until(page, "location.search.includes('best=')")
    settle(page)
    assert page.locator("#list").inner_text().split()[0] == number
    page.go_back()
    settle(page)
    assert page.locator("h1").inner_text().startswith("The router closes")


@pytest.mark.parametrize("view", ["whatif&alpha=1", "map", "map&colour=regret", "router"])
def test_nothing_is_wider_than_a_phone(example_site: str, chromium: Any, view: str) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    try:
        opened = context.new_page()
        go(opened, example_site, f"?view={view}")
        assert opened.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        context.close()


def test_it_works_without_scripts(example_site: str, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    try:
        opened = context.new_page()
        go(opened, example_site, "?view=whatif")
        opened.locator("#how").select_option("rank")
        opened.locator("#weights button").click()
        assert asked(opened)["how"] == "rank" and "rank" in opened.locator("#numbers").inner_html()
        go(opened, example_site, "?view=map")
        opened.locator("svg.map use").first.click()
        assert asked(opened)["view"] == "prompts" and asked(opened)["prompt"]
    finally:
        context.close()
