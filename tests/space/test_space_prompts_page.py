"""The prompts in a real browser: chips, side by side, keyboard, pins, the way back; planted texts never run."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from space_browser import COUNTED, go, listen, settle, until
from space_samples import EVIL, NUMBER, POOL, prompt_id


LIST = "?view=prompts&split=all"


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    context.add_init_script(COUNTED)
    page = context.new_page()
    said = listen(page)
    yield page
    settle(page)
    context.close()
    assert said == []


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.id"))


def box(page: Any, selector: str) -> dict[str, float]:
    found: dict[str, float] = page.locator(selector).first.bounding_box()
    return found


def press(page: Any, key: str) -> None:
    page.keyboard.press(key)
    settle(page)


def test_filters_become_chips_and_chips_take_them_away(site: str, page: Any) -> None:
    go(page, site, LIST)
    page.evaluate("window.same = true")
    page.locator("#filters summary").click()
    page.locator("#filter [name=teacher]").select_option("small")
    settle(page)
    assert query(page)["teacher"] == ["small"] and page.locator("#filters").get_attribute("open") is not None
    page.get_by_label("Lead at least").fill("0.5")
    page.get_by_label("Lead at least").press("Enter")
    settle(page)
    page.get_by_label("Search in the prompts").fill("Question")
    page.get_by_label("Search in the prompts").press("Enter")
    settle(page)
    chips = page.get_by_role("list", name="Filters")
    assert chips.locator(".words").all_inner_texts() == ["contains “Question”", "teacher: small", "lead at least 0.5"]
    assert page.locator("#filters summary .tag").inner_text() == "3"
    assert {"q", "teacher", "lead"} < query(page).keys() and "page" not in query(page)
    chips.get_by_role("link", name="Remove the filter: teacher: small").click()
    settle(page)
    assert "teacher" not in query(page) and focused(page) == "list"
    page.get_by_role("link", name="Clear all").click()
    settle(page)
    assert query(page) == {"view": ["prompts"], "split": ["all"]} and page.locator(".chips").count() == 0
    assert page.locator("h1").inner_text() == f"{NUMBER} prompts"
    page.go_back()
    settle(page)
    assert page.locator(".chips .words").count() == 2
    assert page.evaluate("window.same"), "the page was loaded anew"


def test_an_empty_list_leads_back(site: str, page: Any) -> None:
    go(page, site, f"{LIST}&q=nowhere&tied=tied")
    page.get_by_role("link", name="clear all").last.click()
    settle(page)
    assert page.locator("table.prompts tbody tr").count() == 25


def test_a_head_sorts_and_sorts_the_other_way(site: str, page: Any) -> None:
    go(page, site, LIST)
    for way, sort in (("ascending", "margin"), ("descending", "-margin")):
        page.get_by_role("link", name="lead").click()
        settle(page)
        head = page.get_by_role("columnheader", name="lead")
        assert (head.get_attribute("aria-sort"), query(page)["sort"]) == (way, [sort])
        assert focused(page) == "sort-lead"
        leads = [float(text) for text in page.locator("td[data-label=lead]").all_inner_texts()]
        assert leads == sorted(leads, reverse=way == "descending")


def test_list_and_prompt_stand_side_by_side(site: str, page: Any) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    go(page, site, LIST)
    assert page.get_by_role("columnheader", name="topic").is_visible()
    page.locator(".what a").nth(3).click()
    settle(page)
    listed, opened = box(page, "section.list"), box(page, "#opened")
    assert listed["x"] + listed["width"] <= opened["x"] and opened["y"] < 200
    assert page.locator("table.prompts tbody tr").count() == 25
    assert not page.locator("table.prompts").get_by_text("tokens").is_visible()
    assert (
        page.locator("tr.opened").count() == 1 and page.locator("tr.opened a").get_attribute("aria-current") == "true"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
    page.locator("table.prompts tr").last.scroll_into_view_if_needed()
    page.locator(".what a").last.click()
    settle(page)
    assert 0 <= box(page, "#opened-prompt")["y"] < 450, "what was opened is in sight, however far the list is scrolled"


def test_on_a_phone_the_prompt_takes_the_screen_and_closes(site: str, phone: Any) -> None:
    go(phone, site, f"{LIST}&lead=0.01&margin=9&source=router")
    assert phone.locator("#filters").get_attribute("open") is None
    first = box(phone, "table.prompts tbody tr")
    assert first["y"] + first["height"] < 844 / 2, "the first result is on the first screen"
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.get_by_role("row").count() > 3 and phone.get_by_role("cell").count() > 20, "cards are still a table"
    row = phone.locator(".what a").nth(9)
    name = row.get_attribute("id")
    row.scroll_into_view_if_needed()
    row.tap()
    settle(phone)
    assert not phone.locator("table.prompts").is_visible() and not phone.locator("header.top").is_visible()
    opened = box(phone, "#opened")
    assert (opened["x"] < 20 and opened["width"] > 350) and 0 <= box(phone, "#opened-prompt")["y"] < 200
    assert focused(phone) == "opened-prompt"
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.evaluate("scrollTo(0, 2000)")
    assert 0 <= box(phone, "#close-prompt")["y"] < 60, "Close stays in sight"
    phone.get_by_role("link", name="Close").tap()
    settle(phone)
    assert focused(phone) == name and phone.locator("#opened").count() == 0
    assert 0 <= box(phone, f"#{name}")["y"] < 844


def test_the_keyboard_alone_goes_through_the_prompts(site: str, page: Any) -> None:
    go(page, site, f"{LIST}&sort=-margin")
    rows = page.locator(".what a").evaluate_all("links => links.map(link => link.id)")
    page.locator(f"#{rows[0]}").focus()
    page.keyboard.press("Tab")
    assert focused(page) == rows[1]
    page.evaluate("window.same = true")
    press(page, "Enter")
    assert focused(page) == "opened-prompt" and "prompt" in query(page)
    first = query(page)["prompt"]
    press(page, "j")
    assert focused(page) == "opened-prompt" and query(page)["prompt"] != first
    press(page, "k")
    assert query(page)["prompt"] == first
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#opened') !== null"), "the next stop is in the prompt"
    press(page, "Escape")
    assert "prompt" not in query(page) and focused(page) == rows[1]
    page.locator(f"#{rows[24]}").focus()
    press(page, "Enter")
    press(page, "j")
    assert page.locator("tr.opened").count() == 1 and "26 of 60" in page.locator("#opened").inner_text()
    press(page, "Escape")
    assert query(page)["page"] == ["2"] and focused(page) not in rows
    page.get_by_label("Search in the prompts").focus()
    page.keyboard.type("jk")
    assert page.get_by_label("Search in the prompts").input_value() == "jk"
    assert page.evaluate("window.same"), "the page was loaded anew"


def test_two_pinned_answers_show_what_differs(site: str, page: Any) -> None:
    go(page, site, f"{LIST}&prompt={prompt_id(9)}")
    for name in POOL[:2]:
        page.get_by_role("link", name=f"Pin the answer of {name}", exact=True).click()
        settle(page)
        assert focused(page) == "pinned" and box(page, "#pinned")["y"] < 900
    left, right = (page.get_by_role("region", name=f"Pinned answer of {name}").bounding_box() for name in POOL[:2])
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    assert query(page)["pin"] == [",".join(POOL[:2])]
    page.get_by_role("link", name=f"Unpin the answer of {POOL[0]}").click()
    settle(page)
    assert query(page)["pin"] == [POOL[1]] and page.locator(".sides").count() == 0
    assert "Pin a second answer" in page.locator("#opened").inner_text()


def test_back_and_forward_open_and_close_without_loading(site: str, page: Any) -> None:
    go(page, site, f"{LIST}&sort=margin")
    page.evaluate("window.same = true")
    page.locator(".what a").nth(4).click()
    settle(page)
    address = page.url
    page.go_back()
    until(page, "!document.querySelector('#opened')")
    assert "prompt" not in query(page) and query(page)["sort"] == ["margin"]
    page.go_forward()
    until(page, "document.querySelector('#opened')")
    assert page.url == address and page.evaluate("window.same")


def test_an_unknown_prompt_can_be_closed_on_a_phone(site: str, phone: Any) -> None:
    go(phone, site, f"{LIST}&prompt=none")
    assert "holds no prompt `none`" in phone.locator("#opened").inner_text()
    phone.get_by_role("link", name="Close").tap()
    settle(phone)
    assert phone.locator("table.prompts tbody tr").count() == 25


@pytest.mark.parametrize("number", [2, *(pytest.param(n, marks=pytest.mark.ci) for n in (0, 1, 3, 4, 5))])
def test_a_planted_text_that_is_pinned_is_text(site: str, page: Any, number: int) -> None:
    assert len(EVIL) == 6
    go(page, site, f"{LIST}&q={prompt_id(number)}&prompt={prompt_id(number)}&pin=small,large")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    inside = page.locator("main")
    assert inside.locator("script, img, iframe, object, svg, [onload], [onerror], [onclick]").count() == 0
    assert page.locator(".sides .written").all_inner_texts() == [EVIL[number]] * 2


def test_a_download_is_what_is_listed(site: str, page: Any, tmp_path: Any) -> None:
    go(page, site, f"{LIST}&teacher=small&sort=-margin")
    listed = [parse_qs(link)["prompt"][0] for link in links(page)]
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download CSV").click()
    waiting.value.save_as(tmp_path / "prompts.csv")
    assert waiting.value.suggested_filename.endswith(".csv")
    lines = (tmp_path / "prompts.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == listed


def links(page: Any) -> list[str]:
    found: list[str] = page.locator(".what a").evaluate_all("links => links.map(link => link.search)")
    return [link.removeprefix("?") for link in found]
