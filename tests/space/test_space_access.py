"""Everybody can use the page: axe finds nothing, all of it is in reach of a keyboard, on a phone, in both themes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from space_browser import free_port, go, serve, settle, start, stop
from space_samples import EVIL, MANY, STUDENTS, TEACHERS, fill, prompt_id

from persyn_hf.report.colours import luminance
from persyn_hf.space.url_state import VIEWS
from persyn_hf.store.local import Store


OPENED = f"?view=prompts&split=all&prompt={prompt_id(9)}"
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1440, "height": 900}


# What can be reached by Tab; of the buttons of one choice one is.
REACHABLE = """[...document.querySelectorAll(
  "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")].filter(
  one => !one.disabled && !one.closest("svg [tabindex='-1']") && one.checkVisibility({visibilityProperty: true}))"""
# points and dots of pictures are no stops: a table beside them has the same links


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


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_is_reached_by_tab_and_seen_to_be(site: str, page: Any, view: str) -> None:
    go(page, site, f"?view={view}&split=all")
    page.evaluate(f"() => {{ window.left = new Set({REACHABLE}); }}")
    number = page.evaluate("left.size")
    assert number >= len(VIEWS) + 4
    for _ in range(number + 1):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => {
              const one = document.activeElement, style = getComputedStyle(one);
              left.delete(one);
              if (one === document.body) return "";
              const outline = parseFloat(style.outlineWidth), there = style.outlineStyle !== "none" && outline >= 2;
              return there ? "" : one.outerHTML.slice(0, 120);
            }"""
        )
        assert seen == "", "it has the focus and does not look like it"
    assert page.evaluate("[...left].map(one => one.outerHTML.slice(0, 120))") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_edges_placeholders_and_the_focus_stand_out(site: str, page: Any, theme: str) -> None:
    go(page, site, f"?view=try&split=all&__theme={theme}")
    colours = """() => {
      const all = [], back = getComputedStyle(document.body).backgroundColor;
      const controls = "button:not(.term), input:not([type=hidden]), select, textarea, .button";
      for (const one of document.querySelectorAll(controls)) {
        all.push([one.outerHTML.slice(0, 80), getComputedStyle(one).borderTopColor, back, 3]);
        if (one.placeholder) all.push([one.placeholder, getComputedStyle(one, "::placeholder").color, back, 4.5]);
      }
      document.querySelector("nav a").focus();
      return [...all, ["focus", getComputedStyle(document.querySelector("nav a")).outlineColor, back, 3]];
    }"""
    for view in ("allocation", "prompts", "whatif"):
        page.locator(f"#to-{view}").click()
        settle(page)
        page.keyboard.press("Tab")
        for what, colour, back, needed in page.evaluate(colours):
            assert contrast(colour, back) >= needed, (view, what)


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it, of two computed colours."""
    shades = ["#" + "".join(f"{int(part):02x}" for part in text[4:-1].split(",")[:3]) for text in (one, other)]
    low, high = sorted(luminance(shade) for shade in shades)
    return (high + 0.05) / (low + 0.05)


def test_the_first_screen_of_a_phone_has_an_answer(site: str, chromium: Any) -> None:
    context = chromium.new_context(viewport=PHONE)
    page = context.new_page()
    go(page, site)
    first = page.locator(".verdict").first.bounding_box()
    assert first["y"] + first["height"] <= PHONE["height"]
    go(page, site, "?view=prompts&split=all")
    assert page.get_by_role("link", name=EVIL[0]).first.bounding_box()["y"] <= PHONE["height"] - 40
    context.close()


# Pools of other sizes


@pytest.fixture(scope="module", params=["many", "one", "students"])
def other(request: pytest.FixtureRequest, heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a store of 19 teachers with names of 42 characters, of one teacher, of three students."""
    root = tmp_path_factory.mktemp(request.param) / "store"
    sizes: dict[str, dict[str, Any]] = {
        "many": {"teachers": MANY},
        "one": {"teachers": TEACHERS[:1]},
        "students": {"students": STUDENTS},
    }
    fill(Store(root), **sizes[request.param])
    process, address = serve(root)
    yield address
    stop(process)


def test_every_view_holds_pools_of_other_sizes(other: str, chromium: Any) -> None:
    context = chromium.new_context()
    page = context.new_page()
    for query in (f"?view={view}&split=all" for view in VIEWS):
        go(page, other, query)
        assert "fault of ours" not in page.locator("main").inner_text(), query
        for size in (WIDE, {"width": 1024, "height": 768}, PHONE):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], query
        cut = page.evaluate(
            """() => [...document.querySelectorAll(".name")].filter(
              one => one.scrollWidth > one.clientWidth + 1 && one.title !== one.textContent).length"""
        )
        assert cut == 0, "a name that is cut is told whole"
    context.close()
