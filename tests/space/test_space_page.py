"""The page in a real browser: views, addresses, the way back, what is slow or gone; planted texts never run."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from space_browser import Held, free_port, go, listen, serve, settle, start, stop, until
from space_samples import EVIL, NUMBER, UNSHOWN, prompt_id

from persyn_hf.space.app import POLICY
from persyn_hf.space.url_state import VIEWS


def tab(page: Any, title: str) -> Any:
    return page.get_by_role("navigation", name="Views").get_by_role("link", name=title, exact=True)


def asked(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


@pytest.mark.parametrize(("name", "title"), VIEWS.items())
def test_a_view_is_opened_by_its_tab_and_by_its_address(site: str, page: Any, name: str, title: str) -> None:
    go(page, site, f"?split=all&view={'cost' if name != 'cost' else 'map'}")
    before = page.title()
    page.evaluate("window.same = true")
    tab(page, title).click()
    settle(page)
    assert page.evaluate("window.same"), "the page was loaded anew"
    assert asked(page) == {"split": ["all"]} | ({"view": [name]} if name != "allocation" else {})
    assert page.title() == before.replace(before.partition(" · ")[0], title)
    shown = page.locator(f"#view-{name}").inner_text()
    page.reload()
    assert page.locator(f"#view-{name}").inner_text() == shown


def test_back_and_forward_load_nothing_and_scroll_to_where_one_was(site: str, page: Any) -> None:
    go(page, site, "?view=prompts&split=all")
    page.evaluate("window.same = true")
    page.evaluate("scrollTo(0, 400)")
    first = page.url
    tab(page, "Lineage").evaluate("link => link.click()")  # a click of the mouse would scroll to it
    until(page, "document.title.startsWith('Lineage')")
    assert page.evaluate("scrollY") == 0
    page.evaluate("scrollTo(0, 150)")
    tab(page, "Cost").evaluate("link => link.click()")
    until(page, "document.title.startsWith('Cost')")
    page.go_back()
    until(page, "document.title.startsWith('Lineage') && scrollY === 150")
    page.go_back()
    until(page, "document.title.startsWith('Prompts') && scrollY === 400")
    assert page.url == first
    page.go_forward()
    until(page, "document.title.startsWith('Lineage') && scrollY === 150")
    assert page.evaluate("window.same"), "the page was loaded anew"
    page.reload()
    until(page, "document.title.startsWith('Lineage') && scrollY === 150")


def test_a_filter_is_a_step_of_the_history(site: str, page: Any) -> None:
    go(page, site, "?view=prompts&split=all")
    page.locator("#pick [name=split]").select_option("pool")
    settle(page)
    assert "split" not in asked(page), "pool is what is shown first"
    page.locator("#pick [name=assignment]").focus()
    page.locator("#pick [name=assignment]").select_option(label="strong")
    settle(page)
    assert page.locator("#pick [name=split]").input_value() == "pool"
    assert asked(page)["assignment"] == ["org/assignments-s-strong@v1"]
    assert page.evaluate("document.activeElement.name") == "assignment", "the focus stays"
    for left in ("pool", "all"):
        page.go_back()
        settle(page)
        assert page.locator("#pick [name=split]").input_value() == left
        assert page.locator("#pick [name=assignment]").input_value() == "org/assignments-s-persyn@v1"


def test_a_share_leads_to_its_prompts_and_their_number_is_right(site: str, page: Any) -> None:
    go(page, site, "?split=all")
    shares = page.get_by_role("region", name="Shares as a table").get_by_role("row")
    link = shares.filter(has_text="thinker").get_by_role("link").first
    share = link.inner_text()
    link.click()
    settle(page)
    assert asked(page) == {"view": ["prompts"], "split": ["all"], "teacher": ["thinker"]}
    number = int(page.locator("h1").inner_text().partition(" ")[0])
    assert f"{number / NUMBER:.1%}" == share


@pytest.mark.parametrize(("query", "words"), UNSHOWN)
def test_one_bad_value_is_dropped_with_a_word(site: str, page: Any, query: str, words: str) -> None:
    go(page, site, f"?{query}")
    assert words in page.locator("main").inner_text()
    assert page.get_by_role("navigation", name="Views").get_by_role("link").count() == len(VIEWS), "a way on"


def test_the_rest_of_an_address_with_a_bad_value_stays(site: str, page: Any) -> None:
    go(page, site, "?view=prompts&split=all&teacher=large&sort=none&alpha=7")
    said = page.get_by_role("status").filter(has_text="Not all of this address").inner_text()
    assert "there is no sort `none`" in said and "alpha is given as `7`, and 0 to 1 is needed" in said
    page.evaluate("document.querySelector('nav.views a').click()")
    settle(page)
    page.go_back()
    settle(page)
    assert asked(page) == {"view": ["prompts"], "split": ["all"], "teacher": ["large"]}


# Untrusted texts


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


def test_a_typed_text_is_text(site: str, page: Any) -> None:
    go(page, site, "?view=try&typed=</textarea><script>window.ran=1</script>&q=<img src=x onerror=window.ran=1>")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None


def test_the_policy_forbids_what_the_page_does_not_need(site: str, window: Any) -> None:
    answer = urllib.request.urlopen(site)
    assert answer.headers["Content-Security-Policy"] == POLICY and "script-src 'self';" in POLICY
    page = window.new_page()
    said = listen(page)
    go(page, site)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    page.evaluate("new Promise(done => setTimeout(done, 300))")
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in said), "a handler in HTML is refused"
    page.close()


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


def test_an_address_of_too_many_fields_is_refused_in_a_sentence(site: str) -> None:
    fields = "&".join(f"a{number}=" for number in range(201))
    for path, status in (("", 400), ("save/thumbnail.png", 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{site}/{path}?{fields}")
        assert refused.value.code == status
        assert "the address has more than 200 fields; leave some out" in refused.value.read().decode()


# Without the script, slowly, not at all


def test_without_its_script_every_view_and_form_works(site: str, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    said = listen(page)
    go(page, site, "?split=all")
    for name, title in VIEWS.items():
        tab(page, title).click()
        assert page.locator(f"#view-{name}").inner_text() and page.title().startswith(title)
    tab(page, "Overview").click()
    for form in page.locator("form").all():
        assert form.locator("button:not([type=button])").count() >= 1, "it is sent by itself with the script alone"
    page.locator("#pick [name=assignment]").select_option(label="strong")
    page.locator("#pick").get_by_role("button", name="Show").click()
    assert page.locator("h1").inner_text().startswith("strong")
    page.get_by_label("Broken down by").select_option("split")
    page.locator("#broken-down").get_by_role("button", name="Show").click()
    assert asked(page)["by"] == ["split"]
    assert page.get_by_role("button", name="Copy link").count() == 0
    assert said == []
    context.close()


def test_a_slow_answer_is_announced_and_a_fast_one_not(site: str, page: Any) -> None:
    go(page, site)
    page.evaluate(
        """() => { window.busy = 0; new MutationObserver(changes => { window.busy += changes.filter(
          one => one.target.ariaBusy === 'true').length; }).observe(
          document.body, {subtree: true, attributes: true, attributeFilter: ['aria-busy']}); }"""
    )
    held = Held(page, "view=cost")
    begun = page.evaluate("performance.now()")
    tab(page, "Cost").click()
    until(page, "document.getElementById('main').ariaBusy === 'true'")
    assert page.evaluate("performance.now()") - begun >= 200
    assert page.title().startswith("Overview")
    held.let_go()
    settle(page)
    assert page.title().startswith("Cost") and page.locator("[aria-busy]").count() == 0
    address = page.locator("#to-lineage").evaluate("link => link.href")
    kept = page.request.get(address)
    page.route(address, lambda route: route.fulfill(response=kept))  # from memory, so in a few milliseconds
    took, busy = page.evaluate(
        """async () => {
          window.busy = 0;
          const begun = performance.now();
          document.getElementById("to-lineage").click();
          while (!document.title.startsWith("Lineage")) await new Promise(done => setTimeout(done));
          return [performance.now() - begun, window.busy];
        }"""
    )
    assert busy == 0 or took >= 200
    page.unroute_all()


def test_of_two_clicks_the_later_one_wins(site: str, page: Any) -> None:
    go(page, site)
    held = Held(page, "view=cost")
    tab(page, "Cost").click()
    tab(page, "Lineage").click()
    until(page, "document.title.startsWith('Lineage')")
    held.let_go()
    settle(page)
    assert page.title().startswith("Lineage") and asked(page)["view"] == ["lineage"]
    assert page.evaluate("history.length") == 3, "about:blank, the first view, the later one"
    page.unroute_all()


def test_a_server_that_is_gone_leaves_the_page_and_says_so(filled: Path, window: Any) -> None:
    process, address = serve(filled)
    page = window.new_page()
    try:
        go(page, address)
        shown = page.locator("#view-allocation").inner_text()
    finally:
        stop(process)
    tab(page, "Cost").click()
    said = page.get_by_role("alert")
    said.wait_for()
    assert "The server does not answer" in said.inner_text()
    assert page.locator("#view-allocation").inner_text() == shown
    assert said.get_by_role("link", name="Try again").get_attribute("href").endswith("?view=cost")
    assert page.locator("[aria-busy]").count() == 0
    page.close()


# Elsewhere


def test_the_link_is_copied_or_shown_to_be_copied(site: str, chromium: Any) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    said = listen(page)
    go(page, site, "?view=prompts&split=all&teacher=large")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('forbidden')); }")
    page.get_by_role("button", name="Copy link").click()
    field = page.get_by_label("Copy this link")
    field.wait_for()
    assert field.input_value() == page.url and page.evaluate("getSelection().toString()") == page.url
    assert said == []
    context.close()


def test_inside_the_hub_its_address_follows(site: str, chromium: Any) -> None:
    """The Hub's page is a frame around this one, and takes {queryString} from it: "Handle Spaces URL parameters"."""
    context = chromium.new_context()
    page = context.new_page()
    page.route(
        "https://huggingface.co/**",
        lambda route: route.fulfill(
            content_type="text/html",
            body="<script>window.got = []; addEventListener('message', e => got.push([e.origin, e.data]));</script>"
            f"<iframe src='{site}/?view=cost' width=1000 height=700></iframe>",
        ),
    )
    page.goto("https://huggingface.co/spaces/org/space?view=cost")
    until(page, "got.length === 1")
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Lineage", exact=True).click()
    until(page, "got.length === 2")
    assert page.evaluate("got") == [[site, {"queryString": "?view=cost"}], [site, {"queryString": "?view=lineage"}]]
    context.close()


@pytest.mark.parametrize(
    ("theme", "system", "dark"), [("", "dark", True), ("light", "dark", False), ("dark", "light", True)]
)
def test_the_theme_is_the_systems_or_the_hubs(site: str, chromium: Any, theme: str, system: str, dark: bool) -> None:
    context = chromium.new_context(color_scheme=system)
    page = context.new_page()
    go(page, site, f"?__theme={theme}" if theme else "")
    red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 128) == dark
    tab(page, "Cost").click()
    until(page, "document.title.startsWith('Cost')")
    assert asked(page).get("__theme", [""]) == [theme]
    context.close()


@pytest.mark.ci
def test_the_bundled_example_is_shown_where_nothing_is_named(root: Path, page: Any) -> None:
    app = root / "spaces" / "allocations" / "app.py"
    process, address = start(str(app), GRADIO_SERVER_PORT=free_port(), PERSYN_REFS="")
    try:
        for view in VIEWS:
            go(page, address, f"?view={view}")
            assert page.locator(".message.error").count() == 0
    finally:
        stop(process)
